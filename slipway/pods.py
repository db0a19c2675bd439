"""What a cluster says of a job and its pods, in the few words that matter here: pure functions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from slipway.errors import UNAVAILABLE, SlipwayError

Document = dict[str, Any]

JOB = "batch.kubernetes.io/job-name"  # label of its pods
NUMBER = "batch.kubernetes.io/job-completion-index"  # annotation of each
OTHERS_FAILED = UNAVAILABLE  # status of scripts/launch where another node has failed
HEARD = ("runs", "succeeded", "failed")  # in these states a pod has said something
GONE: Document = {
    "status": {"conditions": [{"type": "Failed", "status": "True", "message": "it was deleted"}]}
}


def ending(job: Document) -> str:
    """``Complete`` or ``Failed``, and why; empty while a job goes on."""
    for row in job.get("status", {}).get("conditions") or ():
        if row["type"] in ("Complete", "Failed") and row["status"] == "True":
            return f"{row['type']}: {row.get('message', '')}".rstrip(": ")
    return ""


def node(pod: Document) -> str:
    """How the node is spoken of that a pod is, or was."""
    return f"node {pod['metadata'].get('annotations', {}).get(NUMBER, '?')}"


def state(pod: Document) -> str:
    """What a pod does: one of ``HEARD``, or that it waits, and for what."""
    status = pod.get("status", {})
    known = {"Running": "runs", "Succeeded": "succeeded", "Failed": "failed"}
    found = known.get(status.get("phase", ""), "waits")
    waiting = _container(pod).get("waiting", {})
    why = [waiting.get("reason", ""), waiting.get("message", "")]
    if found == "waits" and not any(why):
        blocked = [row for row in status.get("conditions") or () if row["status"] == "False"]
        why = [row.get("message", "") for row in blocked]
    reason = ": ".join(dict.fromkeys(word for word in why if word))
    return f"waits: {reason}" if reason and found in ("waits", "runs") else found


def news(found: Sequence[Document], known: dict[str, str]) -> Iterator[tuple[str, str, str, bool]]:
    """What has changed since the last look: node, pod, what it does, whether it begins to speak.

    :param known: what each pod did then; kept up to date.
    """
    for pod in found:
        name, now = pod["metadata"]["name"], state(pod)
        before = known.get(name, "")
        known[name] = now
        if now != before:
            yield node(pod), name, now, now in HEARD and before not in HEARD


def _container(pod: Document) -> Document:
    """The state of a pod's one container."""
    rows: list[Document] = pod.get("status", {}).get("containerStatuses") or [{}]
    return dict(rows[0].get("state", {}))


def failure(job: Document, pods: Sequence[Document]) -> SlipwayError | None:
    """How a job has failed: with the status of the node that failed first, and by itself."""
    end = ending(job)
    if not end.startswith("Failed"):
        return None
    ended = [(_container(pod).get("terminated"), pod) for pod in pods]
    own = [(e, pod) for e, pod in ended if e and e["exitCode"] not in (0, OTHERS_FAILED)]
    name = job.get("metadata", {}).get("name", "NAME")
    fix = [f"kubectl describe job {name}", f"kubectl logs --selector {JOB}={name} --prefix"]
    if not own:
        return SlipwayError("the job has failed", cause=end, fix=fix, code=UNAVAILABLE)
    first, pod = min(own, key=lambda pair: str(pair[0].get("finishedAt")))
    why = f" ({first['reason']})" if first.get("reason") not in (None, "Error") else ""
    what = f"{node(pod)} has failed with status {first['exitCode']}{why}"
    return SlipwayError(what, cause=end, fix=fix, code=int(first["exitCode"]))


def refusal(body: str | None) -> str:
    """The sentence in what an API server answers when it refuses."""
    try:
        return str(json.loads(body or "")["message"])
    except (ValueError, TypeError, KeyError):
        return (body or "").strip()

"""The same job for Kubernetes: files for ``kubectl apply -k``, and what each value is for.

An Indexed Job with a headless Service gives every node a number and a name, as ``invoke train``
gives them to containers; ``scripts/launch`` in the image does the rest. Nothing else of ours runs
in the cluster.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from slipway import (
    applications,
    applying,
    builds,
    console,
    engine,
    outputs,
    ranks,
    receipts,
    registry,
)
from slipway.applications import Application
from slipway.errors import BAD_CONFIG, BAD_DATA, USAGE, SlipwayError
from slipway.pods import JOB, NUMBER, OTHERS_FAILED, Document
from slipway.project import resolve
from slipway.records import Record
from slipway.settings import Workshop

WAIT_S = 600  # as ranks.WAIT_S, but each node's machine may first have to fetch the image
RESTARTS = 3
KEPT_S = 24 * 3600
UID = 10001  # nobody's: a production image runs as any uid
MEMORY_GIB = 2  # of each process
VOLUME_GIB = 10
INDEX = "JOB_COMPLETION_INDEX"
HOPELESS = (USAGE, BAD_CONFIG)  # statuses of scripts/launch that no second try would mend

# What stands above a line of a file: name of the file, and of the key.
REMARKS = {
    "service.yaml": {
        "clusterIP": "Headless: all that it does is to give each node the name NAME-NUMBER.NAME.",
        "publishNotReadyAddresses": "The nodes wait for each other by name, before any is ready.",
    },
    "volume.yaml": {
        "accessModes": """ReadWriteMany, since nodes on several machines write to it; where the
            cluster has no such storage, ReadWriteOnce and all nodes on one machine.""",
        "storage": "For checkpoints, and what else the job writes. It stays when the job is gone.",
    },
    "job.yaml": {
        "completions": "So many nodes, all at once. Each has a number, its completion index.",
        "backoffLimit": """So many times a node may fail. All start again then, and the program goes
            on from its last checkpoint.""",
        "podFailurePolicy": f"""A node that ends because another one has failed ({OTHERS_FAILED}),
            or because its machine is needed otherwise, does not count. What no second try would
            mend ({" and ".join(map(str, HOPELESS))}) gets none.""",
        "ttlSecondsAfterFinished": "For a day its logs can be read. The volume stays after it.",
        "restartPolicy": "A node that has failed can be looked at; another one takes its number.",
        "automountServiceAccountToken": "Nothing in it talks to the cluster.",
        "runAsNonRoot": "A uid that is nobody's, and a group that may write to the volumes.",
        "env": """Who is who, from the function that tells it the containers of `invoke train`. The
            number comes first: what follows refers to it.""",
        "resources": """A limit for the CPU would only slow it down. What is in /dev/shm counts as
            its memory.""",
        "readOnlyRootFilesystem": "What it writes goes to the volumes.",
    },
}


class Plan(Record, frozen=True):
    """A job on a cluster."""

    name: str
    image: str
    """By which the cluster's machines fetch it."""
    remark: str
    """On the image; empty where it has a digest."""
    nodes: int
    procs: int
    """Of each node."""
    gpus: int
    """Of each node."""
    shm: str
    """Size of /dev/shm, as Kubernetes has it: ``1Gi``."""
    arguments: tuple[str, ...] = ()
    """For train.py."""


# -- deciding: pure functions


def check_counts(nodes: int, procs: int, gpus: int) -> None:
    """Refuse numbers of which no job can be made; 0 processes are as many as there are GPUs."""
    for flag, number, least in (("nodes", nodes, 1), ("procs", procs, 0), ("gpus", gpus, 0)):
        if number < least:
            raise SlipwayError(
                f"--{flag} {number}: of a job it is at least {least}",
                fix=["invoke deploy --dir DIR --nodes 2"],
                code=USAGE,
            )


def reference(image: Mapping[str, Any] | None, alias: str) -> tuple[str, str]:
    """What a cluster fetches an image by, its digest where it was pushed; and a remark where not.

    :param image: as the engine describes it; None: it is not here.
    """
    digests = sorted(d for d in (image or {}).get("RepoDigests") or () if "/" in d)
    if digests:
        return str(digests[0]), ""
    why = "has not been pushed from here" if image else "has not been made here"
    return alias, (
        f"{alias} {why}: the cluster's machines have to have it under that name. After a push "
        "(invoke push --dir) the same command names it by its digest, which nobody can move."
    )


def quantity(size: str) -> str:
    """A size as docker's ``--shm-size`` takes it, in the words of Kubernetes: ``1g`` is ``1Gi``."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([kmgt]?)(?:i?b)?", size.strip().lower())
    if not match:
        raise SlipwayError(
            f"shm_size: '{size}' is no size", fix=["mend shm_size in invoke.yaml: 1g"], code=USAGE
        )
    unit = match[2].upper()
    return f"{match[1]}{f'{unit}i' if unit else ''}"


def documents(plan: Plan) -> dict[str, Document]:
    """The files of a job, without what is said in them: name to content, in the order applied."""
    return {
        "service.yaml": _object("v1", "Service", plan.name, spec=_service(plan)),
        "volume.yaml": _object("v1", "PersistentVolumeClaim", plan.name, spec=_volume(plan)),
        "job.yaml": _object("batch/v1", "Job", plan.name, spec=_job(plan)),
    }


def _object(version: str, kind: str, name: str, **parts: Any) -> Document:
    return {
        "apiVersion": version,
        "kind": kind,
        "metadata": {"name": name, "labels": _labels(name)},
        **parts,
    }


def _labels(name: str) -> dict[str, str]:
    return {"app.kubernetes.io/name": name, "app.kubernetes.io/managed-by": "slipway"}


def _service(plan: Plan) -> Document:
    return {
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": {JOB: plan.name},
    }


def _volume(plan: Plan) -> Document:
    return {
        "accessModes": ["ReadWriteMany" if plan.nodes > 1 else "ReadWriteOnce"],
        "resources": {"requests": {"storage": f"{VOLUME_GIB}Gi"}},
    }


def _job(plan: Plan) -> Document:
    def on_exit(action: str, *codes: int) -> Document:
        return {"action": action, "onExitCodes": {"operator": "In", "values": [*codes]}}

    disrupted = {
        "action": "Ignore",
        "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
    }
    rules = [on_exit("Ignore", OTHERS_FAILED), on_exit("FailJob", *HOPELESS), disrupted]
    return {
        "completionMode": "Indexed",
        "completions": plan.nodes,
        "parallelism": plan.nodes,
        "backoffLimit": RESTARTS,
        "podFailurePolicy": {"rules": rules},
        "ttlSecondsAfterFinished": KEPT_S,
        "template": {"metadata": {"labels": _labels(plan.name)}, "spec": _pod(plan)},
    }


def _pod(plan: Plan) -> Document:
    volumes: dict[str, tuple[str, Document]] = {
        "out": (ranks.OUT, {"persistentVolumeClaim": {"claimName": plan.name}}),
        "shm": ("/dev/shm", {"emptyDir": {"medium": "Memory", "sizeLimit": plan.shm}}),
        "tmp": ("/tmp", {"emptyDir": {}}),
        "home": ("/home/user", {"emptyDir": {}}),
    }
    mounts = [{"name": name, "mountPath": path} for name, (path, _) in volumes.items()]
    return {
        "subdomain": plan.name,
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": UID,
            "runAsGroup": UID,
            "fsGroup": UID,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(plan, mounts)],
        "volumes": [{"name": name, **source} for name, (_, source) in volumes.items()],
    }


def _container(plan: Plan, mounts: Sequence[Document]) -> Document:
    place = ranks.environment(
        f"$({INDEX})",
        ranks.names(plan.name, plan.nodes, plan.name),
        port=ranks.PORT,
        procs=plan.procs,
        wait_s=WAIT_S,
    )
    field = {"fieldPath": f"metadata.annotations['{NUMBER}']"}
    index = {"name": INDEX, "valueFrom": {"fieldRef": field}}
    gpus = {"nvidia.com/gpu": str(plan.gpus)} if plan.gpus else {}
    memory = f"{MEMORY_GIB * plan.procs}Gi"
    return {
        "name": "node",
        "image": plan.image,
        # A dollar is doubled: Kubernetes would replace $(NAME).
        "args": [word.replace("$", "$$") for word in applications.command(plan.arguments)],
        "env": [index, *({"name": name, "value": value} for name, value in place.items())],
        "resources": {
            "requests": {"cpu": str(plan.procs), "memory": memory, **gpus},
            "limits": {"memory": memory, **gpus},
        },
        "volumeMounts": [*mounts],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
    }


def texts(plan: Plan) -> dict[str, str]:
    """The files of a job, as they are written: name to text."""
    found = {}
    for name, document in documents(plan).items():
        remarks = dict(REMARKS[name])
        if name == "job.yaml":
            remarks["image"] = plan.remark
        if plan.nodes == 1:
            remarks.pop("accessModes", None)
        found[name] = text_of(document, remarks)
    return found


def kustomization(names: Sequence[str]) -> str:
    """What makes ``kubectl apply -k`` take the other files, and lets an overlay change them."""
    head = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}
    return text_of({**head, "resources": [*names]}, {})


def text_of(document: Document, remarks: Mapping[str, str]) -> str:
    """YAML, with each remark above the first line that begins with its key."""
    lines, left = [], {key: remark for key, remark in remarks.items() if remark}
    for line in yaml.safe_dump(document, sort_keys=False, width=1000).splitlines():
        bare = line.lstrip(" -")
        indent = " " * (len(line) - len(line.lstrip()))
        remark = " ".join(left.pop(bare.partition(":")[0], "").split())
        lines += [f"{indent}# {part}" for part in textwrap.wrap(remark, 96 - len(indent))]
        lines.append(line)
    return "\n".join(lines) + "\n"


# -- acting


def deploy(
    workshop: Workshop,
    wanted: str,
    counts: tuple[int, int, int],
    where: tuple[str, str, str],
    arguments: Sequence[str],
    *,
    dry_run: bool,
    apply: bool,
) -> None:
    """What ``invoke deploy`` does: the files of an application's job, and perhaps the job.

    :param wanted: the folder.
    :param counts: nodes, processes and GPUs of each.
    :param where: what ``--variant``, ``--project`` and ``--source`` say.
    :param dry_run: print the YAML and nothing else; nothing is made, and no image either.
    :param apply: hand it to the cluster, follow it, and end as it does.
    """
    nodes, procs, gpus = counts
    check_counts(nodes, procs, gpus)
    application = applications.find(wanted)
    check_launcher(application)
    there = None
    if apply and not (dry_run or workshop.dry):  # what it refuses is not told after minutes
        there = applying.Cluster(application.name)
    image, remark = _image(workshop, application, where, make=not dry_run)
    plan = Plan(
        name=application.name,
        image=image,
        remark=remark,
        nodes=nodes,
        procs=procs or gpus or 1,
        gpus=gpus,
        shm=quantity(workshop.settings.shm_size),
        arguments=tuple(arguments),
    )
    files = texts(plan)
    if dry_run:
        console.say("---\n".join(files.values()).rstrip())
        return
    directory = write(workshop, plan.name, files)
    if remark:
        console.say(remark)
    if there:
        applying.apply(there, [*documents(plan).values()])
    else:
        console.say(f"next: kubectl apply -k {console.shown(directory, workshop.root)}")


def check_launcher(application: Application) -> None:
    """Refuse a Dockerfile of the application's own that leaves the launcher out."""
    if ranks.LAUNCH not in application.dockerfile:
        raise SlipwayError(
            f"{application.directory / applications.DOCKERFILE} brings no {ranks.LAUNCH}",
            cause="it is what every node of a job starts, and waits for the others",
            fix=[f"add to it: {applications.LAUNCHER.strip()}, and FROM ${{TOOLS}} AS tools"],
            code=BAD_DATA,
        )


def _image(
    workshop: Workshop, application: Application, where: tuple[str, str, str], *, make: bool
) -> tuple[str, str]:
    """What the cluster fetches the image by, and a remark: see ``reference``.

    :param make: make it, where something has changed; else the one that was made last is meant.
    """
    variant, project, source = where
    if make:
        image = applications.ensure_app(workshop, application, variant, project, source)
        tag, alias = image.tag, image.alias
    else:
        tree = resolve(workshop, project, source)
        name = builds.chosen(workshop, tree, variant)[0]
        alias = applications.alias_of(application, tree, name)
        facts = receipts.facts(applications.receipt_of(workshop, application, name))
        tag = str(facts.get("tag", ""))
    here = engine.inspect_images(tag).get(tag) if tag else None
    pushed = _pushed(workshop, alias, str(here["Id"])) if here else ""
    return (pushed, "") if pushed else reference(here, alias)


def _pushed(workshop: Workshop, alias: str, image_id: str) -> str:
    """The name by digest of this very image in the settings' registry; empty: it is not there."""
    for target in registry.targets(workshop)[:1]:
        with registry.clients(workshop, [target]) as (client,):
            stored = client.stored(alias)
        if stored and stored.is_image(image_id):
            return f"{target.name(alias).rpartition(':')[0]}@{stored.digest}"
    return ""


def write(workshop: Workshop, name: str, files: Mapping[str, str]) -> Path:
    """Write the files to ``out/deploy/NAME``, which is returned."""
    directory = workshop.out / "deploy" / name
    all_files = {"kustomization.yaml": kustomization([*files]), **files}
    if workshop.dry:
        console.say(f"{console.shown(directory, workshop.root)} would get {', '.join(all_files)}")
        return directory
    outputs.make(directory, workshop.out)
    for file, text in all_files.items():
        receipts.write_whole(directory / file, text)
    console.say(f"{console.bold('made')} {console.shown(directory, workshop.root)}")
    return directory

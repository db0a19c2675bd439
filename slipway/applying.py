"""``deploy --apply``: hand a job to a cluster, by Kubernetes' own client, which only this needs."""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections.abc import Sequence
from typing import Any

from slipway import console, pods
from slipway.errors import TEMPORARY, SlipwayError
from slipway.pods import Document

LOOK_S, ANSWER_S, FOLLOW_S = 1.0, (10.0, 30.0), (10.0, 7 * 24 * 3600.0)
NAME_IT, WITHOUT = "export KUBECONFIG=FILE", "kubectl apply -k out/deploy/NAME, without it"
INSTALL = "./go python -m pip install --require-hashes --requirement requirements-cluster.txt"


class Cluster:
    """A namespace of a cluster, both as kubectl would choose them, without a job of this name."""

    def __init__(self, name: str) -> None:
        try:
            from kubernetes import client, config

            config.load_kube_config()
            context = config.list_kube_config_contexts()[1]["context"]
        except ImportError as error:
            what = "--apply needs Kubernetes' client for Python"
            raise SlipwayError(what, cause=str(error), fix=[INSTALL, WITHOUT]) from None
        except config.ConfigException as error:
            raise SlipwayError("no cluster is named", cause=str(error), fix=[NAME_IT]) from None
        self.namespace = context.get("namespace", "default")
        settings = client.Configuration.get_default_copy()
        settings.retries, self.host = 0, settings.host
        api = client.ApiClient(settings)
        self.core, self.batch = client.CoreV1Api(api), client.BatchV1Api(api)
        if self.ask(self.batch.read_namespaced_job, name, none_if=404):
            fix = [f"kubectl logs --follow job/{name}", f"kubectl delete job {name}, then again"]
            raise SlipwayError(f"the cluster has a job {name} already", fix=fix, code=TEMPORARY)

    def ask(self, method: Any, *named: str, none_if: int = 0, **more: Any) -> Document:
        """The answer to a call, as plain JSON; empty for the HTTP status that is no mistake."""
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        wait = {"_preload_content": False, "_request_timeout": ANSWER_S}
        try:
            return dict(json.loads(method(*named, self.namespace, **wait, **more).data))
        except ApiException as error:
            if error.status == none_if:
                return {}
            what, cause = f"refuses: HTTP {error.status} {error.reason}", pods.refusal(error.body)
            fix = f"kubectl auth can-i --list --namespace {self.namespace}"
        except HTTPError as error:
            what, cause, fix = "does not answer", str(error), "kubectl cluster-info"
        raise SlipwayError(f"the cluster at {self.host} {what}", cause=cause, fix=[fix])

    def create(self, document: Document) -> None:
        """Make an object; a service or a volume that is there already stays."""
        kind, name = document["kind"], document["metadata"]["name"]
        verb = f"create_namespaced_{re.sub(r'(?<=[a-z])(?=[A-Z])', '_', kind).lower()}"
        api = self.batch if kind == "Job" else self.core
        made = self.ask(getattr(api, verb), body=document, none_if=0 if kind == "Job" else 409)
        console.say(f"{kind} {name}: {'made' if made else 'was there'}")

    def show(self, pod: str, node: str) -> None:
        """Print what a pod says, to its end or until it cannot be heard."""
        how = {"follow": True, "_preload_content": False, "_request_timeout": FOLLOW_S}
        with contextlib.suppress(Exception):
            for line in self.core.read_namespaced_pod_log(pod, self.namespace, **how):
                console.say(f"{node}: {line.decode(errors='replace').rstrip()}")


def apply(there: Cluster, documents: Sequence[Document]) -> None:
    """Make what is described, the job last; print what its nodes say, and end as it ends."""
    name = documents[-1]["metadata"]["name"]
    for document in documents:
        there.create(document)
    label, known, readers = f"{pods.JOB}={name}", dict[str, str](), list[threading.Thread]()
    job, found = Document(), list[Document]()
    while not pods.ending(job):
        time.sleep(LOOK_S)
        job = there.ask(there.batch.read_namespaced_job, name, none_if=404) or pods.GONE
        found = there.ask(there.core.list_namespaced_pod, label_selector=label)["items"]
        for node, pod, state, speaks in pods.news(found, known):
            console.say(f"{node} {state}")
            if speaks:
                readers.append(threading.Thread(target=there.show, args=(pod, node), daemon=True))
                readers[-1].start()
    for reader in readers:
        reader.join(timeout=10)
    if error := pods.failure(job, found):
        raise error
    console.say(f"the job has ended: {pods.ending(job)}")

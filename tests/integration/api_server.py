"""What stands in for a cluster: an API server that keeps jobs, and whose pods end as they are told.

It shows what `--apply` says to a server and makes of its answers, not that a cluster would take it.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

JOBS, PODS = "/apis/batch/v1/namespaces/team/jobs", "/api/v1/namespaces/team/pods"


class Server(ThreadingHTTPServer):
    """Objects by path, what was asked for, and how pods end."""

    daemon_threads = True

    def __init__(self, exits: dict[int, int], refuses: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.objects: dict[str, dict[str, Any]] = {}
        self.exits = exits
        """Node number to exit status; a job with none goes on."""
        self.refuses = refuses
        """HTTP status of every answer; 0: none is refused."""
        self.looks = 0

    def job(self, stored: dict[str, Any]) -> dict[str, Any]:
        """A job as it stands: at the third look it has ended."""
        self.looks += 1
        failed = any(self.exits.values())
        kind, words = ("Failed", "backoff limit reached") if failed else ("Complete", "")
        row = {"type": kind, "status": "True", "message": words}
        return {**stored, "status": {"conditions": [row] if self.looks > 2 else []}}

    def pods(self) -> list[dict[str, Any]]:
        """The pods as they stand: waiting, running, ended."""
        found = []
        look = min(self.looks - 1, 2)
        for number, status in self.exits.items():
            ended = {"exitCode": status, "finishedAt": f"2026-01-01T00:00:0{number}Z"}
            states: list[dict[str, Any]] = [
                {"waiting": {"reason": "ContainerCreating"}},
                {"running": {}},
                {"terminated": ended},
            ]
            phase = ("Pending", "Running", "Failed" if status else "Succeeded")[look]
            annotations = {"batch.kubernetes.io/job-completion-index": str(number)}
            found.append(
                {
                    "metadata": {"name": f"pod-{number}", "annotations": annotations},
                    "status": {"phase": phase, "containerStatuses": [{"state": states[look]}]},
                }
            )
        return found


class Handler(BaseHTTPRequestHandler):
    """The few paths that a job needs."""

    server: Server

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Look at a job, list pods, or read what one says."""
        path = self.path.partition("?")[0]
        if self.server.refuses:
            self._status(self.server.refuses)
        elif path == PODS:
            self._answer(200, {"kind": "PodList", "items": self.server.pods()})
        elif path.startswith(PODS) and path.endswith("/log"):
            self._text(f"said by {path.split('/')[-2]}\n")
        elif path in self.server.objects:
            self._answer(200, self.server.job(self.server.objects[path]))
        else:
            self._status(404)

    def do_POST(self) -> None:
        """Keep an object."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        path = f"{self.path.partition('?')[0]}/{body['metadata']['name']}"
        if self.server.refuses:
            self._status(self.server.refuses)
        elif path in self.server.objects:
            self._status(409)
        else:
            self.server.objects[path] = body
            self._answer(201, body)

    def _status(self, code: int) -> None:
        words = f'{self.path.split("/")[-1]} is forbidden: User "ann" cannot do that'
        self._answer(code, {"kind": "Status", "status": "Failure", "message": words, "code": code})

    def _answer(self, code: int, data: dict[str, Any]) -> None:
        self._text(json.dumps(data), code, "application/json")

    def _text(self, text: str, code: int = 200, kind: str = "text/plain") -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())


@contextlib.contextmanager
def api_server(exits: dict[int, int], *, refuses: int = 0) -> Iterator[Server]:
    """Such a server, while it is wanted."""
    with Server(exits, refuses) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def kubeconfig(file: Path, port: int) -> Path:
    """Write the file that names a cluster at a port of this machine."""
    cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}
    context = {"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "team"}}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [cluster],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [context],
        "current-context": "x",
    }
    file.write_text(json.dumps(config))
    return file

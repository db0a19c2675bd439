"""An engine that does not see the caller's files: another machine's, as far as it can tell.

It is this machine's, reached by TCP, and the command line runs in a mount namespace of its own, in
which the checkout lies where the engine has an empty directory. Nothing would be said of that.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import os
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from slipway.errors import IO_ERROR, NO_INPUT, UNAVAILABLE
from slipway.volumes import volume_name
from tests.integration.conftest import Built
from tests.integration.test_logins import make_key
from tests.integration.workbench import (
    GATE,
    Checkout,
    User,
    containers,
    give_to,
    listening,
    refused,
    strangers,
    succeed,
    tree,
    wait_for,
)

SENT = re.compile(r"^sent (\d+) files, \S+ [kM]B, to the engine at tcp://", re.MULTILINE)
BIND = 'mount --bind "$0" "$1" && cd "$1" && shift && exec "$@"'
OURS = 3  # so many files does a build keep beside what it makes: a receipt, a log


class Bridge:
    """A port of this machine that leads to the engine's socket, until it is closed."""

    def __init__(self, port: int = 0) -> None:
        self._server = socket.create_server(("127.0.0.1", port))
        self.port = int(self._server.getsockname()[1])
        self._open: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def env(self) -> dict[str, str]:
        """What makes docker use it."""
        return {"DOCKER_HOST": f"tcp://127.0.0.1:{self.port}"}

    def close(self) -> None:
        """The engine goes away, in the middle of whatever it was doing."""
        for each in (self._server, *self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                engine = socket.socket(socket.AF_UNIX)
                engine.connect("/var/run/docker.sock")
                self._open += [client, engine]
                for pair in ((client, engine), (engine, client)):
                    threading.Thread(target=self._pump, args=pair, daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while block := source.recv(1 << 16):
                target.sendall(block)
            target.shutdown(socket.SHUT_WR)


@dataclass(frozen=True)
class Elsewhere(Checkout):
    """A checkout that is at its place only for those who work in it."""

    real: Path = field(default=Path())
    """Where its files are for everybody else."""

    @property
    def name(self) -> str:
        where = (
            f"{self.root}@{socket.gethostname()}"  # other machines may have one at the same path
        )
        return hashlib.sha256(os.fsencode(where)).hexdigest()[:8]

    @property
    def out(self) -> Path:
        return self.real / "out"

    def command(self, *arguments: str) -> list[str]:
        argv = ["unshare", "--mount", "sh", "-c", BIND, str(self.real), str(self.root)]
        who = []
        if self.user:
            ids = ["--reuid", str(self.user.uid), "--regid", str(self.user.uid)]
            who = ["setpriv", *ids, "--clear-groups"]
        return [*argv, *who, str(self.python), "-m", "invoke", *arguments]

    def popen(self, *argv: str, **more: Any) -> subprocess.Popen[str]:
        # As root, who alone may make the namespace; `command` becomes the user in it.
        root = Checkout(self.root, None, self.python)
        more = {"cwd": self.real, **more, "env": self.environment(more.get("env"))}
        return root.popen(*argv, **more)


@pytest.fixture(scope="module")
def bridge() -> Iterator[Bridge]:
    made = Bridge()
    yield made
    made.close()


def place_of(area: Path, name: str, real: Path, user: User | None = None) -> Elsewhere:
    root = area / "elsewhere" / name
    root.mkdir(parents=True)
    return Elsewhere(root, user, real=real)


@pytest.fixture(scope="module")
def far(area: Path, cloned: Callable[[str], Checkout], client: Any) -> Iterator[Elsewhere]:
    """A checkout with a small library in it."""
    near = cloned("far")
    tree(near.root / "tiny")
    checkout = place_of(area, "far away, and odd", near.root)
    yield checkout
    tidy(client, checkout)


def tidy(client: Any, checkout: Checkout) -> None:
    for container in containers(client, checkout):
        container.remove(force=True, v=True)
    for volume in client.volumes.list(filters=checkout.label):
        volume.remove()
    assert not list(checkout.root.iterdir())  # the engine has put nothing there


def test_a_package_is_built_and_tested_and_only_what_changed_travels(
    far: Elsewhere, bridge: Bridge
) -> None:
    project = ("--project", "tiny")
    said = succeed(far.invoke("build", *project, env=bridge.env))
    assert SENT.search(said)
    assert len(re.findall("Building CXX", said)) == 3
    program = far.out / "tiny" / "cpu" / "build" / "tiny"
    assert os.access(program, os.X_OK)
    again = succeed(far.invoke("build", *project, env=bridge.env))
    assert "no work to do" in again
    assert all(int(count) <= OURS for count in SENT.findall(again))
    (far.real / "tiny" / "one.cc").write_text("int one() { return 0 + 1; }\n")
    said = succeed(far.invoke("test", *project, env=bridge.env))
    assert int(SENT.findall(said)[0]) <= 1 + OURS
    assert len(re.findall("Building CXX", said)) == 1
    assert "tested tiny 1.0 cpu" in said
    said = succeed(far.invoke("deb", *project, env=bridge.env))
    (deb,) = (far.real / "dist" / "tiny-1.0").glob("*.deb")
    assert subprocess.run(["dpkg-deb", "--info", str(deb)], check=False).returncode == 0


def test_what_is_removed_here_is_removed_there_and_the_other_way_round(
    far: Elsewhere, bridge: Bridge
) -> None:
    project = ("--project", "tiny")
    (far.real / "tiny" / "more.cc").write_text("int more() { return 4; }\n")
    lists = far.real / "tiny" / "CMakeLists.txt"
    before = lists.read_text()
    lists.write_text(before + "add_library(more STATIC more.cc)\n")
    succeed(far.invoke("build", *project, env=bridge.env))
    assert (far.out / "tiny" / "cpu" / "build" / "libmore.a").is_file()
    (far.real / "tiny" / "more.cc").unlink()
    done = far.invoke("build", *project, env=bridge.env)
    assert done.returncode != 0, done.stdout
    assert "more.cc" in done.stdout
    lists.write_text(before)
    succeed(far.invoke("build", *project, env=bridge.env))
    # What `clean` removes here is not found there by the next build.
    succeed(far.invoke("clean", *project, env=bridge.env))
    said = succeed(far.invoke("build", *project, env=bridge.env))
    assert len(re.findall("Building CXX", said)) == 3


def test_who_has_lost_out_has_what_a_new_checkout_has(far: Elsewhere, bridge: Bridge) -> None:
    project = ("--project", "tiny")
    (far.real / "tiny" / "stale.txt").touch()
    succeed(far.invoke("build", *project, env=bridge.env))
    (far.real / "tiny" / "stale.txt").unlink()
    shutil.rmtree(far.out)
    said = succeed(far.invoke("build", *project, env=bridge.env))
    assert len(re.findall("Building CXX", said)) == 3
    assert (far.out / "tiny" / "cpu" / "build" / "tiny").is_file()
    command = ("shell", *project, "--", "ls", str(far.root / "tiny"))
    assert "stale.txt" not in succeed(far.invoke(*command, env=bridge.env))


def test_a_program_is_debugged(far: Elsewhere, bridge: Bridge) -> None:
    typed = "break main\nrun\nwhere\n"
    command = ["debug", "--project", "tiny", "--target", "tiny"]
    said = succeed(far.invoke(*command, input=typed, env=bridge.env))
    assert "main.cc" in said


def test_a_script_runs_where_it_lies_and_what_it_writes_comes_back(
    far: Elsewhere, bridge: Bridge
) -> None:
    succeed(far.invoke("prod", "--project", "tiny", env=bridge.env))
    (far.real / "x.py").write_text("import pathlib\npathlib.Path('made').write_text('there')\n")
    said = succeed(far.invoke("run", "--project", "tiny", "x.py", env=bridge.env))
    assert (far.real / "made").read_text() == "there"
    assert "fetched 1 files" in said  # not what was sent


def test_a_shell(far: Elsewhere, bridge: Bridge) -> None:
    succeed(far.invoke("build", "--project", "tiny", env=bridge.env))
    script = "echo $((6 * 7)); ls; touch here"
    said = succeed(
        far.invoke("shell", "--project", "tiny", "--", "sh", "-c", script, env=bridge.env)
    )
    assert "42" in said
    assert "build.ninja" in said
    assert (far.out / "tiny" / "cpu" / "build" / "here").exists()


def log_in(checkout: Elsewhere, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script by ssh, where the checkout is at its place."""
    config = str(checkout.root / "out" / "ssh" / "tiny-cpu.conf")
    there = ["unshare", "--mount", "sh", "-c", BIND, str(checkout.real), str(checkout.root)]
    return subprocess.run(
        [*there, "ssh", "-F", config, "-o", "BatchMode=yes", "slipway-tiny-cpu", script],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_what_is_written_by_who_has_logged_in_comes_back_when_it_stops(
    far: Elsewhere, bridge: Bridge, area: Path
) -> None:
    home = area / "far home of ann"
    make_key(home)
    env = {**bridge.env, "HOME": str(home), "SSH_AUTH_SOCK": ""}
    command = ["ssh", "--project", "tiny"]
    succeed(far.invoke("build", "--project", "tiny", env=env))
    succeed(far.invoke(*command, env=env))
    script = 'touch ~/kept; cd "$SLIPWAY_BUILD"; ls; echo there > written'
    done = log_in(far, script)
    assert done.returncode == 0, done.stderr
    assert "build.ninja" in done.stdout
    succeed(far.invoke(*command, "--stop", env=env))
    assert (far.out / "tiny" / "cpu" / "build" / "written").read_text() == "there\n"
    assert (far.out / "ssh" / "home" / "kept").exists()


def test_what_comes_back_belongs_to_the_caller(
    area: Path, cloned: Callable[[str], Checkout], bridge: Bridge, client: Any
) -> None:
    real = cloned("far user").root
    tree(real / "tiny")
    give_to(real.parent, 1000)
    home = area / "far home"
    home.mkdir()
    give_to(home, 1000)
    somebody = place_of(area, "user", real, User(1000, home, ()))
    succeed(somebody.invoke("test", "--project", "tiny", env=bridge.env))
    assert strangers(real / "out", 1000) == []
    assert (real / "out" / "tiny" / "cpu" / "build" / "tiny").is_file()
    # Files of their own are put into this user's containers, which are made before they start.
    make_key(home, uid=1000)
    command = ("ssh", "--project", "tiny")
    env = {**bridge.env, "SSH_AUTH_SOCK": ""}
    succeed(somebody.invoke(*command, env=env))
    done = log_in(somebody, "id --user; touch ~/kept")
    assert done.stdout == "1000\n", done.stderr
    succeed(somebody.invoke(*command, "--stop", env=env))
    assert (real / "out" / "ssh" / "home" / "kept").stat().st_uid == 1000
    tidy(client, somebody)


def test_an_engine_that_goes_away_is_told_with_what_is_left_where(
    far: Elsewhere, client: Any
) -> None:
    tree(far.real / "gated", cmake=GATE, project="name: gated\n")
    text = (far.real / "gated" / "project.yaml").read_text().replace("name: tiny\n", "", 1)
    (far.real / "gated" / "project.yaml").write_text(text)
    fragile = Bridge()
    with far.start("build", "--project", "gated", env=fragile.env) as process:
        wait_for(
            lambda: [c for c in containers(client, far) if "build-gated" in c.name],
            "the build runs",
        )
        fragile.close()
        said, _ = process.communicate(timeout=60)
    assert process.returncode == UNAVAILABLE, said
    assert f"the engine at tcp://127.0.0.1:{fragile.port} went away" in said
    assert re.search(r"left there: the container slipway-\w+-build-gated-cpu", said)
    assert volume_name(far.root / "gated", far.name) in said
    (far.real / "gated" / "open").touch()
    back = Bridge(fragile.port)
    said = succeed(far.invoke("build", "--project", "gated", env=back.env))
    assert "built gated 1.0 cpu" in said
    back.close()


def test_a_volume_that_is_full(far: Elsewhere, bridge: Bridge, client: Any) -> None:
    tree(far.real / "large")
    text = (far.real / "large" / "project.yaml").read_text().replace("name: tiny", "name: large")
    (far.real / "large" / "project.yaml").write_text(text)
    (far.real / "large" / "data").write_bytes(os.urandom(3_000_000))
    options = {"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}
    name = volume_name(far.root / "large", far.name)
    key, _, value = far.label["label"].partition("=")
    client.volumes.create(name, driver="local", driver_opts=options, labels={key: value})
    done = far.invoke("build", "--project", "large", env=bridge.env)
    refused(done, IO_ERROR, "could not be sent to the engine", "its disk is full")
    assert not (far.out / "large" / "cpu" / "build" / "tiny").exists()


def test_a_context_that_does_not_exist(built: Built) -> None:
    done = built.checkout.invoke("build", env={"DOCKER_CONTEXT": "builder"})
    refused(done, NO_INPUT, "docker knows no context 'builder'", "docker context ls")


class Old(http.server.BaseHTTPRequestHandler):
    """An engine of years ago, in the words that it has for a client of today."""

    def do_GET(self) -> None:
        words = "client version 1.44 is too new. Maximum supported API version is 1.18"
        is_ping = self.path.endswith("_ping")
        body = b"OK" if is_ping else json.dumps({"message": words}).encode()
        self.send_response(200 if is_ping else 400)
        self.send_header("Api-Version", "1.18")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def test_an_engine_that_speaks_an_older_api(built: Built) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Old) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        host = f"tcp://127.0.0.1:{server.server_port}"
        done = built.checkout.invoke("build", env={"DOCKER_HOST": host})
        server.shutdown()
    refused(done, UNAVAILABLE, "engine is older", "client version 1.44 is too new", "update that")


def test_an_engine_that_is_not_there(built: Built) -> None:
    with listening("127.0.0.1") as closed:
        port = closed.getsockname()[1]
    done = built.checkout.invoke("build", env={"DOCKER_HOST": f"tcp://127.0.0.1:{port}"})
    refused(done, UNAVAILABLE, "the docker engine does not answer", f"127.0.0.1:{port}")

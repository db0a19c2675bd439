"""Podman in Docker's place: its own program, and its socket for who speaks Docker's language.

Images and containers are in a storage of the tests' own, so nothing of this machine's is touched.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from slipway.errors import UNAVAILABLE
from tests.integration.workbench import (
    GATE,
    PLAIN_PATH,
    ROOT,
    Checkout,
    User,
    clone_working_tree,
    commit,
    give_to,
    refused,
    strangers,
    succeed,
    tree,
    wait_for,
)

STORAGE = """\
[storage]
driver = "overlay"
graphroot = "{0}/root"
runroot = "{0}/run"
"""
# Limits that this process may hand on, whatever Podman's own default is; runc, since crun does not
# start where both generations of control groups are mounted.
CONTAINERS = """\
[containers]
default_ulimits = ["nofile={0}:{0}", "nproc={1}:{1}"]
{2}
[engine]
runtime = "runc"
{3}
"""
PTY = "import pty, sys; status = pty.spawn(sys.argv[1:]); sys.exit(status >> 8)"


def own_limits(containers: str = "", engine: str = "") -> str:
    """containers.conf with limits that may be set here."""
    hard = [resource.getrlimit(x)[1] for x in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC)]
    files, processes = (4096 if limit < 0 else min(limit, 4096) for limit in hard)
    return CONTAINERS.format(files, processes, containers, engine)


@dataclass(frozen=True)
class Podman(Checkout):
    """A clone whose engine is a Podman with a storage of its own."""

    store: Path = field(default=Path())

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        own = {
            "INVOKE_ENGINE": "podman",
            "CONTAINERS_STORAGE_CONF": str(self.store / "storage.conf"),
            "CONTAINERS_CONF": str(self.store / "containers.conf"),
            "TMPDIR": str(self.store / "tmp"),
        }
        return super().environment({**own, **(more or {})})

    def asked(self, *arguments: str) -> str:
        """What podman itself answers."""
        return succeed(self.typed("podman", *arguments)).strip()

    def configured(self, name: str, text: str) -> dict[str, str]:
        """A variable that names another containers.conf."""
        file = self.store / name
        file.write_text(text)
        return {"CONTAINERS_CONF": str(file)}


@pytest.fixture(scope="module")
def pod(area: Path) -> Iterator[Podman]:
    """A clone with a development image, which Podman has built on a base that it has imported."""
    store = area / "podman"
    (store / "tmp").mkdir(parents=True)
    (store / "storage.conf").write_text(STORAGE.format(store))
    (store / "containers.conf").write_text(own_limits())
    checkout = Podman(area / "pod, a b" / "slipway", store=store)
    clone_working_tree(ROOT, checkout.root)
    tree(checkout.root / "tiny")
    try:
        said = succeed(checkout.invoke("dev", timeout=900))
        assert "dev image slipway-dev:" in said
        yield checkout
    finally:
        checkout.typed("podman", "system", "reset", "--force")


@pytest.fixture(scope="module")
def prod(pod: Podman) -> str:
    return succeed(pod.invoke("prod", timeout=600))


@pytest.fixture(scope="module")
def behind(pod: Podman) -> Iterator[dict[str, str]]:
    """What makes the docker program speak to that Podman."""
    path = pod.store / "podman.sock"
    with pod.popen("podman", "system", "service", "--time", "0", f"unix://{path}") as service:
        wait_for(path.exists, "the service listens")
        yield {"DOCKER_HOST": f"unix://{path}", "INVOKE_ENGINE": "auto"}
        service.terminate()


def test_the_images_are_podman_s_and_are_not_made_again(pod: Podman) -> None:
    names = pod.asked("images", "--format", "{{.Repository}}").splitlines()
    assert {"localhost/slipway-base", "localhost/slipway-dev"} <= set(names)
    (base,) = [
        n
        for n in pod.asked("images", "--format", "{{.Repository}}:{{.Tag}}").splitlines()
        if "slipway-base" in n
    ]
    labels = pod.asked("image", "inspect", "--format", "{{.Labels}}", base)
    assert "slipway.kind:base" in labels
    assert f"slipway.checkout:{pod.name}" in labels
    said = succeed(pod.invoke("dev"))
    assert "podman build" not in said


def test_build_test_and_deb(pod: Podman) -> None:
    said = succeed(pod.invoke("test"))
    assert "$ podman run --rm --init" in said
    assert "tests executed" in said
    said = succeed(pod.invoke("deb"))
    assert "no lintian error" in said
    assert [*pod.root.glob("dist/oar-*/oar_*.deb")]
    assert strangers(pod.out, os.getuid()) == []


def test_prod_and_run(pod: Podman, prod: str, tmp_path: Path) -> None:
    assert "audited image" in prod
    assert "made image oar:" in prod
    (tmp_path / "x.py").write_text(
        "import oar, pathlib\npathlib.Path('y').write_text(oar.__name__)\n"
    )
    command = ["--search-root", str(pod.root), "run", "x.py"]
    succeed(pod.typed(*pod.command(*command), cwd=tmp_path))
    assert (tmp_path / "y").read_text() == "oar"
    assert (tmp_path / "y").stat().st_uid == os.getuid()


def test_an_image_holds_the_package_of_now(pod: Podman, prod: str, tmp_path: Path) -> None:
    # Podman knows a step by its words, which are the same for every package.
    commit(pod.root, "one more")
    made = succeed(pod.invoke("prod", timeout=600))
    assert made != prod
    (tmp_path / "x.py").write_text("import oar\nprint(oar.build_info()['commit'])\n")
    command = ["--search-root", str(pod.root), "run", "x.py"]
    said = succeed(pod.typed(*pod.command(*command), cwd=tmp_path))
    head = succeed(pod.typed("git", "-c", "safe.directory=*", "rev-parse", "HEAD")).strip()
    assert head in said


def test_a_shell_has_a_terminal_and_its_status_is_ours(pod: Podman) -> None:
    argv = [sys.executable, "-c", PTY, *pod.command("shell", "--project", "tiny")]
    done = pod.typed(*argv, input="tty; whoami\nexit 3\n")
    assert done.returncode == 3, done.stdout
    assert "/dev/pts/" in done.stdout


def test_a_signal_leaves_no_container_behind(pod: Podman) -> None:
    source = tree(pod.root / "gated", cmake=GATE)
    command = ("build", "--project", str(source))
    with pod.start(*command) as process:
        wait_for(lambda: pod.asked("ps", "--quiet"), "the build runs")
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, said
    assert pod.asked("ps", "--all", "--quiet") == ""


def test_podman_is_found_where_there_is_no_docker(pod: Podman, tmp_path: Path) -> None:
    for directory in PLAIN_PATH.split(":"):
        for program in Path(directory).iterdir():
            link = tmp_path / program.name
            if not program.name.startswith("docker") and not link.exists():
                link.symlink_to(program)
    env = {"PATH": str(tmp_path), "INVOKE_ENGINE": "auto"}
    said = succeed(pod.invoke("test", "--project", "tiny", env=env))
    assert "$ podman run" in said
    said = pod.invoke("doctor", env=env).stdout
    assert f"answers ({tmp_path}/podman)" in said


def test_what_is_there_is_shown_and_removed(pod: Podman, prod: str) -> None:
    assert "made image" in prod
    said = succeed(pod.invoke("ps"))
    assert "slipway-dev:" in said
    assert "oar:" in said
    assert "nothing of this checkout" in succeed(pod.invoke("stop"))
    succeed(pod.invoke("clean", "--images"))
    names = pod.asked("images", "--format", "{{.Repository}}").splitlines()
    assert "localhost/oar" not in names
    assert "localhost/slipway-dev" in names


# -- behind its socket


def test_docker_s_program_builds_and_tests_at_a_podman(
    pod: Podman, area: Path, behind: dict[str, str]
) -> None:
    plain = Podman(area / "pod plain" / "slipway", store=pod.store)
    clone_working_tree(pod.root, plain.root)
    source = tree(plain.root / "needy", project="build: {apt: [hello]}\n")
    said = succeed(plain.invoke("test", "--project", str(source), env=behind))
    assert "$ docker run --rm --init" in said
    # An image of its own, which BuildKit cannot make there.
    assert f"podman --url {behind['DOCKER_HOST']} build" in said
    assert "1 tests executed" in said
    assert strangers(plain.out, os.getuid()) == []
    assert "that engine is Podman" in plain.invoke("doctor", env=behind).stdout


def test_a_path_that_its_socket_cannot_mount(pod: Podman, behind: dict[str, str]) -> None:
    done = pod.invoke("build", "--project", "tiny", env=behind)
    refused(done, UNAVAILABLE, "no path with a comma", "mount option", "INVOKE_ENGINE=podman")


def test_a_podman_without_a_socket(pod: Podman) -> None:
    path = pod.store / "gone-podman.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))  # and nobody listens
        env = {"DOCKER_HOST": f"unix://{path}", "INVOKE_ENGINE": "auto"}
        done = pod.invoke("build", "--project", "tiny", env=env)
    words = (
        "the docker engine does not answer",
        str(path),
        "podman system service",
        "podman.socket",
    )
    refused(done, UNAVAILABLE, *words, "INVOKE_ENGINE=podman")


# -- what its words mean


def test_limits_that_may_not_be_set(pod: Podman) -> None:
    env = pod.configured("default.conf", '[engine]\nruntime = "runc"\n')
    low = ["prlimit", "--nofile=1024:2048"]
    less = ["setpriv", "--bounding-set=-sys_resource", "--inh-caps=-sys_resource"]
    done = pod.typed(*less, *low, *pod.command("build", "--project", "tiny"), env=env)
    words = ("podman could not set the limits of a container", "setting rlimit", "default_ulimits")
    refused(done, UNAVAILABLE, *words)


def test_a_podman_without_what_starts_a_container(pod: Podman) -> None:
    env = pod.configured("init.conf", own_limits('init_path = "/nonexistent/catatonit"'))
    done = pod.invoke("build", "--project", "tiny", env=env)
    refused(done, UNAVAILABLE, "nothing to start containers with", "apt-get install catatonit")


def test_a_podman_that_is_not_there(pod: Podman, tmp_path: Path) -> None:
    (tmp_path / "git").symlink_to(str(shutil.which("git")))
    done = pod.invoke("build", env={"PATH": str(tmp_path)})
    refused(done, UNAVAILABLE, "no podman program", "./go invoke setup")


# -- without root


@dataclass(frozen=True)
class Rootless(Podman):
    """A clone of somebody whose Podman runs as that user, by an /etc that only this one sees."""

    etc: Path = field(default=Path())

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        runtime = {"XDG_RUNTIME_DIR": str(self.store / "runtime"), "USER": "slipway-ann"}
        return super().environment({**runtime, **(more or {})})

    def popen(self, *argv: str, **more: Any) -> subprocess.Popen[str]:
        assert self.user
        who = ["--reuid", str(self.user.uid), "--regid", str(self.user.uid), "--clear-groups"]
        own = [
            "unshare",
            "--mount",
            "sh",
            "-c",
            'mount --bind "$0" /etc && exec "$@"',
            str(self.etc),
        ]
        more = {**more, "env": self.environment(more.get("env"))}
        root = Checkout(self.root, None, self.python)
        return root.popen(*own, "setpriv", *who, *argv, **more)


@pytest.mark.full
def test_podman_without_root(pod: Podman, area: Path) -> None:
    uid, home = 54321, area / "home of ann"
    etc, store = area / "etc", home / "podman"
    (store / "tmp").mkdir(parents=True)
    (store / "runtime").mkdir(mode=0o700)
    shutil.copytree("/etc", etc, symlinks=True)
    lines = {
        "passwd": f"slipway-ann:x:{uid}:{uid}::{home}:/bin/sh\n",
        "group": f"slipway-ann:x:{uid}:\n",
        "subuid": "slipway-ann:200000:65536\n",
        "subgid": "slipway-ann:200000:65536\n",
    }
    for name, line in lines.items():
        with (etc / name).open("a") as file:
            file.write(line)
    storage = STORAGE.format(store).replace("graphroot", "rootless_storage_path")
    (store / "storage.conf").write_text(storage)
    # The host's network: not every machine has what a network of one's own takes.
    manager = 'cgroup_manager = "cgroupfs"\nevents_logger = "file"'
    (store / "containers.conf").write_text(own_limits('netns = "host"', manager))
    base = store / "base.tar"
    reference = "localhost/slipway-base:debian-trixie-slim"
    pod.asked("save", "--output", str(base), reference)
    root = area / "ann" / "slipway"
    clone_working_tree(pod.root, root)
    tree(root / "tiny")
    give_to(home, uid)
    give_to(root.parent, uid)
    python = root / ".venv" / "bin" / "python"
    ann = Rootless(root, User(uid, home), python, store=store, etc=etc)
    succeed(ann.typed("/usr/bin/python3", "go", "invoke", "--list"))
    try:
        ann.asked("load", "--input", str(base))
        succeed(ann.invoke("dev", timeout=900))
        said = succeed(ann.invoke("test", "--project", "tiny"))
        assert "--userns keep-id --user 54321:54321" in said
        succeed(ann.invoke("deb", "--project", "tiny"))
        assert strangers(ann.out, uid) == []
        assert strangers(root / "dist", uid) == []
    finally:
        ann.typed("podman", "system", "reset", "--force")

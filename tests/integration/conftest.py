"""The checkouts that the integration tests share, and the end of all that they made."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import uuid
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.integration.workbench import (
    ROOT,
    Checkout,
    Done,
    User,
    clone,
    clone_working_tree,
    commit,
    containers,
    give_to,
    rows_of,
    snapshot,
    socket_path,
    succeed,
    tree,
)

# A path as people have them: whatever a task quotes wrongly falls apart at one of these.
ODD = "Größe, a b:c"


@pytest.fixture(scope="session", autouse=True)
def signals_as_in_a_person_s_shell() -> None:
    """nohup, and a shell's background jobs, ignore signals that our tests send: not in them."""
    for signum in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(signum) is signal.SIG_IGN:
            signal.signal(signum, signal.SIG_DFL)


@pytest.fixture(scope="session")
def client() -> Iterator[Any]:
    sdk = docker.from_env(timeout=60)
    yield sdk
    sdk.close()


@pytest.fixture(scope="session")
def area() -> Iterator[Path]:
    """A directory that every user of this machine may enter, unlike pytest's own."""
    directory = Path(tempfile.mkdtemp(prefix="slipway-tests-")).resolve()
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def checkouts(area: Path, client: Any) -> Iterator[list[Checkout]]:
    """Every clone that was made; at the end none of their containers and images is left."""
    made: list[Checkout] = []
    yield made
    for checkout in made:
        mine = Checkout(checkout.root)
        if containers(client, mine):
            succeed(mine.invoke("stop"))
        if client.images.list(filters=mine.label):
            succeed(mine.invoke("clean", "--images"))
        assert containers(client, mine) == []
        # The dev and base images stay: they are what the next run finds.
        left = {image.labels["slipway.kind"] for image in client.images.list(filters=mine.label)}
        assert left <= {"base", "dev"}


@dataclass(frozen=True)
class Built:
    """A clone in which ``invoke all`` has run."""

    checkout: Checkout
    first: Done
    before: dict[str, tuple[int, int, int]]
    """The source tree as it was cloned."""


def keep_record(checkout: Checkout, said: str) -> None:
    """Leave for .ci/run the names of the images that were made, and copies of the packages."""
    directory = os.environ.get("SLIPWAY_CI_RECORD")
    if not directory:
        return
    rows = rows_of(said)
    for deb in (row[2] for key, row in rows.items() if key[0] == "deb"):
        shutil.copy(checkout.root / deb, directory)
    with (Path(directory) / "images").open("a") as images:
        images.writelines(f"{row[2]}\n" for key, row in rows.items() if key[0] == "image")


@pytest.fixture(scope="session")
def built(area: Path, checkouts: list[Checkout]) -> Built:
    checkout = Checkout(area / ODD / "slipway")
    checkouts.append(checkout)
    clone_working_tree(ROOT, checkout.root)
    before = snapshot(checkout.root / "examples" / "oar")
    first = checkout.invoke("all", timeout=1200)
    succeed(first)
    keep_record(checkout, first.stdout)
    return Built(checkout, first, before)


@pytest.fixture(scope="session")
def rehearsal(cloned: Callable[[str], Checkout]) -> tuple[Checkout, Path]:
    """A clone in which Oar was rehearsed in two of its variants, and the release."""
    checkout = cloned("rehearsed")
    project = checkout.root / "examples" / "oar" / "project.yaml"
    text, count = re.subn(r"(?m)^  gpu(-noavx)?: .*\n", "", project.read_text())
    assert count == 2
    project.write_text(text)
    commit(checkout.root, "the variants without CUDA")
    succeed(checkout.invoke("release", "--rehearse", timeout=1800))
    (made,) = (checkout.root / "dist").glob("oar-*.rehearsal")
    return checkout, made


@pytest.fixture(scope="session")
def qemu(built: Built, area: Path) -> Iterator[Path]:
    """The static emulator of the dev image, which runs in any image."""
    tag = rows_of(built.first.stdout)["dev image", "all"][2]
    file = area / "qemu"
    cat = ["docker", "run", "--rm", "--network", "none", tag, "cat", "/usr/bin/qemu-x86_64"]
    with file.open("wb") as stream:
        subprocess.run(cat, stdout=stream, check=True)
    file.chmod(0o755)
    yield file
    file.unlink()


@pytest.fixture(scope="session")
def cloned(area: Path, built: Built, checkouts: list[Checkout]) -> Callable[[str], Checkout]:
    """Make another clone of the same commit; nothing has been built in it."""

    def make(name: str) -> Checkout:
        checkout = Checkout(area / name / "slipway")
        clone(built.checkout.root, checkout.root)
        checkouts.append(checkout)
        return checkout

    return make


@pytest.fixture(scope="session")
def other(cloned: Callable[[str], Checkout]) -> Checkout:
    """A second checkout of the same commit, with caches of its own."""
    return cloned("other")


def directory_name(request: pytest.FixtureRequest) -> str:
    """A name for a directory that no other test has, short enough for every path below it."""
    plain = "".join(c if c.isalnum() else "-" for c in str(request.node.name))
    return f"{plain[:40]}-{zlib.crc32(request.node.nodeid.encode()):08x}"


@pytest.fixture
def scratch(cloned: Callable[[str], Checkout], request: pytest.FixtureRequest) -> Checkout:
    """A clone for one test alone, which may edit it."""
    return cloned(directory_name(request))


@pytest.fixture(scope="session")
def ordinary(area: Path, cloned: Callable[[str], Checkout]) -> Checkout:
    """A clone of a user who is not root but may use the engine; `./go` made its environment."""
    root = cloned("somebody").root
    home = area / "home-1000"
    home.mkdir()
    give_to(home, 1000)
    give_to(root.parent, 1000)
    user = User(1000, home, (socket_path().stat().st_gid,))
    succeed(Checkout(root, user).typed("./go", "invoke", "--list"))
    return Checkout(root, user, root / ".venv" / "bin" / "python")


@pytest.fixture(scope="session")
def nameless(area: Path, ordinary: Checkout, cloned: Callable[[str], Checkout]) -> Checkout:
    """A clone of a user without an entry in passwd, as on many CI machines."""
    root = cloned("nameless").root
    home = area / "home-12345"
    home.mkdir()
    give_to(home, 12345)
    give_to(root.parent, 12345)
    return Checkout(root, User(12345, home, (socket_path().stat().st_gid,)), ordinary.python)


@pytest.fixture
def tiny(area: Path, request: pytest.FixtureRequest) -> Path:
    """A small source tree that lies outside any checkout; readable by all."""
    return tree(area / "trees" / directory_name(request))


@pytest.fixture(scope="session")
def later(cloned: Callable[[str], Checkout]) -> Checkout:
    """A clone that is one commit further."""
    checkout = cloned("later")
    # Another one in each run: what is made of it is in no cache.
    commit(checkout.root, f"one more, {uuid.uuid4()}")
    return checkout

"""An apt repository of releases, as a company's machines use it."""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from slipway import aptrepo, base
from slipway.engine import LABEL
from slipway.settings import Settings, Workshop
from tests.integration.conftest import Built
from tests.integration.releases import (
    command,
    debs_of,
    gpg_home,
    nothing_half_made,
    release,
    type_,
)
from tests.integration.workbench import (
    Checkout,
    bridge_address,
    end,
    refused,
    succeed,
    tmpfs,
    wait_for,
)
from tests.unit.fakes import EPOCH

OWNER = "Releases <releases@example.org>"

# What is printed for a machine with sudo and curl is typed in one that has neither.
BARE = """
set -eu
export DEBIAN_FRONTEND=noninteractive
sudo() { "$@"; }
curl() { /usr/lib/apt/apt-helper download-file "$3" "$2"; }
apt-get() { command apt-get --quiet --yes --no-install-recommends -o Dpkg::Use-Pty=0 "$@"; }
"""


@pytest.fixture(scope="module")
def keys(area: Path) -> Iterator[dict[str, str]]:
    with gpg_home(area / "gnupg", OWNER) as env:
        yield env


@pytest.fixture
def dist(built: Built, tmp_path: Path) -> Path:
    """A directory with one release."""
    directory = tmp_path / "dist"
    release(directory / "oar-1.1.0", debs_of(built.checkout))
    return directory


@pytest.fixture
def served(tmp_path: Path, client: Any, bare: str) -> Iterator[tuple[Path, str]]:
    """A directory that a web server has, and its address for containers."""
    directory = tmp_path / "web"
    directory.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(directory))
    host = bridge_address(client, bare)
    with http.server.ThreadingHTTPServer((host, 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield directory, f"http://{host}:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def bare(built: Built) -> str:
    return base.ensure_base(Workshop(built.checkout.root, Settings())).reference


@pytest.fixture
def machine(built: Built, client: Any, bare: str) -> Iterator[Any]:
    """A bare machine with a network."""
    container = client.containers.run(
        bare,
        ["sleep", "600"],
        detach=True,
        init=True,
        labels={LABEL: built.checkout.name},
    )
    yield container
    container.remove(force=True)


def typed(machine: Any, text: str) -> str:
    status, said = machine.exec_run(["bash", "-c", BARE + text])
    assert status == 0, said.decode()
    return str(said.decode())


def version(machine: Any) -> str:
    return typed(machine, "dpkg-query -Wf '${Version}' oar")


def test_a_machine_installs_upgrades_and_removes_what_the_repository_has(
    built: Built,
    later: Checkout,
    dist: Path,
    served: tuple[Path, str],
    machine: Any,
    keys: dict[str, str],
) -> None:
    directory, url = served
    target = directory / "debian"
    said = succeed(type_(built.checkout, "aptrepo", dist, target, OWNER, env=keys))
    printed = (
        said[said.index("sudo install -d") :].strip().replace(aptrepo.EXAMPLE, f"{url}/debian")
    )
    typed(machine, printed)
    first = version(machine)
    (old,) = (f for f, variant in debs_of(built.checkout).items() if variant == "cpu")
    assert first in old.name.replace("%3a", ":")
    succeed(later.invoke("deb"))
    release(dist / "oar-1.2.0", debs_of(later), epoch=EPOCH + 86400)
    said = succeed(type_(built.checkout, "aptrepo", dist, target, OWNER, env=keys))
    assert "of oar 1.1.0, 1.2.0, signed by" in said
    typed(machine, "apt-get update && apt-get upgrade")
    second = version(machine)
    assert second != first
    subprocess.run(["dpkg", "--compare-versions", second, "gt", first], check=True)
    typed(machine, "apt-get install oar-noavx && python3 -c 'import oar'")
    typed(machine, f"apt-get install oar={first} && apt-get purge oar")
    typed(
        machine, "if dpkg -s oar || dpkg -s oar-noavx || python3 -c 'import oar'; then exit 9; fi"
    )
    # Nothing but the key's signature is what apt trusts.
    inrelease = target / "dists" / "stable" / "InRelease"
    inrelease.write_text(inrelease.read_text().replace("Suite: stable", "Suite: stab1e"))
    status, words = machine.exec_run(
        ["bash", "-c", BARE + "apt-get -o APT::Update::Error-Mode=any update"]
    )
    assert status != 0, words.decode()


def test_the_same_releases_make_the_same_repository_and_a_second_run_changes_nothing(
    built: Built, dist: Path, tmp_path: Path, keys: dict[str, str]
) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for target in (one, other):
        succeed(type_(built.checkout, "aptrepo", dist, target, OWNER, env=keys))
    names = {p.relative_to(one) for p in one.rglob("*") if p.is_file()}
    assert names == {p.relative_to(other) for p in other.rglob("*") if p.is_file()}
    signed = Path("dists/stable/InRelease")  # has the time at which it was signed
    for name in names - {signed}:
        assert (one / name).read_bytes() == (other / name).read_bytes()
    text = (one / "dists" / "stable" / "Release").read_text()
    assert "Date: Tue, 14 Nov 2023 22:13:20 UTC" in text
    assert "main/binary-amd64/Packages.xz" in text
    before = (one / signed).stat().st_mtime_ns
    said = succeed(type_(built.checkout, "aptrepo", dist, one, OWNER, env=keys))
    assert "is unchanged" in said
    assert (one / signed).stat().st_mtime_ns == before


def test_without_a_key_nothing_is_made(
    built: Built, dist: Path, tmp_path: Path, keys: dict[str, str]
) -> None:
    (tmp_path / "out").mkdir()
    target = tmp_path / "out" / "apt"
    empty = tmp_path / "gnupg"
    empty.mkdir(mode=0o700)
    none = type_(built.checkout, "aptrepo", dist, target, OWNER, env={"GNUPGHOME": str(empty)})
    refused(none, 66, "no secret gpg key", OWNER)
    other = type_(built.checkout, "aptrepo", dist, target, "nobody@example.org", env=keys)
    refused(other, 64, "no secret gpg key", OWNER)
    nothing_half_made(target)


def test_a_package_that_was_tampered_with_is_not_published(
    built: Built, dist: Path, tmp_path: Path, keys: dict[str, str]
) -> None:
    (tmp_path / "out").mkdir()
    deb = next((dist / "oar-1.1.0").glob("oar_*.deb"))
    raw = bytearray(deb.read_bytes())
    raw[len(raw) // 2] ^= 1
    deb.write_bytes(raw)
    done = type_(built.checkout, "aptrepo", dist, tmp_path / "out" / "apt", OWNER, env=keys)
    refused(done, 65, deb.name, "not as it was made")
    nothing_half_made(tmp_path / "out" / "apt")


def test_a_directory_without_releases_is_told_so(
    built: Built, tmp_path: Path, keys: dict[str, str]
) -> None:
    (tmp_path / "dist" / "oar-1.1.0").mkdir(parents=True)
    done = type_(built.checkout, "aptrepo", tmp_path / "dist", tmp_path / "apt", OWNER, env=keys)
    refused(done, 66, "no release with a Debian package", "manifest.json")


def test_on_a_full_disk_the_repository_of_before_stays(
    built: Built, dist: Path, tmp_path: Path, keys: dict[str, str]
) -> None:
    disk = tmp_path / "disk"
    with tmpfs(disk, "1m"):
        succeed(type_(built.checkout, "aptrepo", dist, disk / "apt", OWNER, env=keys))
        before = (disk / "apt" / "dists" / "stable" / "InRelease").read_bytes()
        for number in range(2, 8):
            files = {}
            for deb, variant in debs_of(built.checkout).items():
                files[Path(shutil.copy(deb, tmp_path / f"{number}-{deb.name}"))] = variant
            release(dist / f"oar-1.{number}.0", files)
        done = type_(built.checkout, "aptrepo", dist, disk / "apt", OWNER, env=keys)
        refused(done, 74, "disk is full")
        assert (disk / "apt" / "dists" / "stable" / "InRelease").read_bytes() == before
        assert len(list((disk / "apt" / "pool" / "oar").iterdir())) == 2


def test_killed_in_the_middle_nothing_half_made_is_found_and_the_next_run_makes_it(
    built: Built, dist: Path, tmp_path: Path, keys: dict[str, str]
) -> None:
    (tmp_path / "out").mkdir()
    target = tmp_path / "out" / "apt"
    argv = command(built.checkout, "aptrepo", dist, target, OWNER)
    with built.checkout.popen(*argv, env=keys) as process:
        work = target.parent / ".work" / "apt"
        wait_for(lambda: list(work.glob("partial-*/*/pool/*/*.deb")), "packages are copied")
        end(process)
        process.wait()
    assert process.returncode == -signal.SIGKILL
    nothing_half_made(target)
    succeed(type_(built.checkout, "aptrepo", dist, target, OWNER, env=keys))
    assert os.listdir(target.parent) == ["apt"]

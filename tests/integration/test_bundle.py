"""An archive of a release, at a site without a network."""

from __future__ import annotations

import io
import signal
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from slipway import base, images
from slipway.engine import mount_argument
from slipway.manifest import ReleasedImage
from slipway.settings import Settings, Workshop
from tests.integration.conftest import Built
from tests.integration.releases import (
    command,
    debs_of,
    described,
    nothing_half_made,
    release,
    type_,
)
from tests.integration.workbench import end, refused, succeed, tmpfs, wait_for

ALIAS = "oar:9.9.9-bundled"
TOP = "oar-9.9.9-bundle"

DEBIAN = f"""
set -eu
tar -C /tmp -xf /bundle.tar
cd /tmp
if command -v python3; then exit 9; fi
{TOP}/install --deb nowhere && exit 1 || echo "status $?"
{TOP}/install --deb noavx
python3 -c 'import oar, numpy; print("imported", oar.build_info()["variant"])'
"""

PIP = f"""
set -eu
tar -C /tmp -xf /bundle.tar
PYTHON=/nowhere /tmp/{TOP}/install --wheel cpu && exit 1 || echo "status $?"
python3 -m venv /tmp/environment
PYTHON=/tmp/environment/bin/python /tmp/{TOP}/install --wheel cpu
/tmp/environment/bin/python -c 'import oar, numpy; print("imported", oar.build_info()["variant"])'
"""


@pytest.fixture(scope="module")
def workshop(built: Built) -> Workshop:
    return Workshop(built.checkout.root, Settings())


def remove(client: Any, name: str) -> None:
    if client.images.list(filters={"reference": ALIAS}):
        client.images.remove(ALIAS, force=True)
    if name in {image.id for image in client.images.list(all=True)}:
        client.images.remove(name, force=True)


@pytest.fixture(scope="module")
def image(built: Built, client: Any) -> Iterator[str]:
    """The id of an image that nothing else needs, so that it can be away."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        info = tarfile.TarInfo("hello")
        info.size = 5
        tar.addfile(info, io.BytesIO(b"hello"))
    change = ["--change", f"LABEL {built.checkout.label['label']} slipway.kind=prod"]
    done = subprocess.run(
        ["docker", "import", *change, "-", ALIAS],
        input=content.getvalue(),
        capture_output=True,
        check=True,
    )
    identity = done.stdout.decode().strip()
    yield identity
    remove(client, identity)


@pytest.fixture
def away(client: Any, image: str) -> Iterator[str]:
    """The same image, which is not in the engine now, and is again afterwards."""
    saved = b"".join(client.images.get(image).save())
    remove(client, image)
    assert image not in ids(client)
    yield image
    remove(client, image)
    client.images.load(saved)
    client.images.get(image).tag(ALIAS)


@pytest.fixture(scope="module")
def released(built: Built, client: Any, image: str, area: Path) -> Path:
    """A release with two packages, a wheel, and an image."""
    succeed(built.checkout.invoke("wheel", "--variant", "cpu"))
    files = debs_of(built.checkout)
    files |= dict.fromkeys((built.checkout.root / "dist").glob("oar-*/oar-*.whl"), "cpu")
    directory = area / "released" / "oar-9.9.9"
    release(directory, files, (described(ALIAS, "cpu"),))
    (directory / "docs").mkdir()
    (directory / "docs" / "index.html").write_text("<p>documentation</p>\n")
    return directory


@pytest.fixture(scope="module")
def bundled(built: Built, released: Path, area: Path) -> Path:
    target = area / "bundle" / "oar-9.9.9-bundle.tar"
    said = succeed(type_(built.checkout, "bundle", released, target))
    assert "bundled" in said
    assert [p.name for p in target.parent.iterdir()] == [target.name]
    return target


def offline(built: Built, reference: str, bundle: Path, script: str) -> str:
    """What a script says in a container without a network."""
    argv = ["docker", "run", "--rm", "--network", "none"]
    argv += ["--label", f"slipway.checkout={built.checkout.name}"]
    argv += ["--mount", mount_argument(str(bundle), "/bundle.tar", True), reference]
    done = subprocess.run(
        [*argv, "sh", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    assert done.returncode == 0, done.stdout.decode()
    return done.stdout.decode()


@pytest.fixture
def unpacked(bundled: Path, tmp_path: Path) -> Path:
    subprocess.run(["tar", "-C", str(tmp_path), "-xf", str(bundled)], check=True)
    return tmp_path / TOP


def install(unpacked: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(unpacked / "install"), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def ids(client: Any) -> set[str]:
    return {image.id for image in client.images.list()}


def test_on_a_bare_debian_without_a_network_the_package_is_installed_with_all_it_needs(
    built: Built, workshop: Workshop, bundled: Path
) -> None:
    said = offline(built, base.ensure_base(workshop).reference, bundled, DEBIAN)
    assert "no deb of a variant 'nowhere' in here" in said
    assert "status 64" in said
    assert "imported noavx" in said


def test_with_python_alone_and_no_network_the_wheel_is_installed(
    built: Built, workshop: Workshop, bundled: Path
) -> None:
    said = offline(built, images.ensure_bare(workshop), bundled, PIP)
    assert "no pip for /nowhere" in said
    assert "status 69" in said
    assert "imported cpu" in said


def test_images_are_loaded_by_id_and_then_named(client: Any, away: str, unpacked: Path) -> None:
    done = install(unpacked)
    assert done.returncode == 0, done.stdout
    assert f"installed image {ALIAS}" in done.stdout
    assert client.images.get(ALIAS).id == away


@pytest.mark.parametrize("name", ["images.tar.gz", "release/manifest.json", "bundle.list"])
@pytest.mark.parametrize("arguments", [[], ["--deb", "cpu"], ["--wheel", "cpu"]])
def test_a_file_that_was_tampered_with_stops_everything(
    client: Any, away: str, unpacked: Path, name: str, arguments: list[str]
) -> None:
    file = unpacked / name
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(raw)
    done = install(unpacked, *arguments)
    assert done.returncode == 65, done.stdout
    assert f"{name}: FAILED" in done.stdout
    assert "nothing has been done" in done.stdout
    assert away not in ids(client)


def test_a_file_that_is_gone_stops_everything(unpacked: Path) -> None:
    next((unpacked / "needed").glob("*.deb")).unlink()
    assert install(unpacked, "--check").returncode == 65


def test_the_script_says_what_it_can_do_and_what_is_there(unpacked: Path) -> None:
    done = install(unpacked, "--help")
    assert done.returncode == 0
    assert "./install --deb VARIANT" in done.stdout
    assert "deb noavx oar-noavx_" in install(unpacked, "--list").stdout
    assert "everything is as it was packed" in install(unpacked, "--check").stdout
    wrong = install(unpacked, "--everything")
    assert wrong.returncode == 64
    assert "usage: ./install" in wrong.stdout
    sums = (unpacked / "release" / "SHA256SUMS").read_text()
    checked = subprocess.run(
        ["sha256sum", "--check", "--quiet"],
        input=sums,
        text=True,
        cwd=unpacked / "release",
        check=False,
    )
    assert checked.returncode == 0  # the release in it is the one that was published
    assert (unpacked / "release" / "docs" / "index.html").is_file()


def test_a_release_whose_image_is_not_here_is_not_bundled(built: Built, tmp_path: Path) -> None:
    gone = ReleasedImage(ALIAS, "prod", "cpu", f"sha256:{'0' * 64}", 1, ())
    release(tmp_path / "oar-1.0.0", debs_of(built.checkout), (gone,))
    target = tmp_path / "out" / "x.tar"
    done = type_(built.checkout, "bundle", tmp_path / "oar-1.0.0", target)
    refused(done, 66, "not in this engine", ALIAS, "0000")
    assert not target.exists()


def test_on_a_full_disk_no_archive_is_left(built: Built, released: Path, tmp_path: Path) -> None:
    with tmpfs(tmp_path / "disk", "4m"):
        target = tmp_path / "disk" / "x.tar"
        done = type_(built.checkout, "bundle", released, target)
        refused(done, 74, "disk is full")
        nothing_half_made(target)


def test_killed_in_the_middle_no_archive_is_found_and_the_next_run_makes_it(
    built: Built, released: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out" / "x.tar"
    with built.checkout.popen(*command(built.checkout, "bundle", released, target)) as process:
        work = target.parent / ".work" / target.name
        wait_for(lambda: list(work.glob("partial-*/needed/*.deb")), "packages are being fetched")
        end(process)
        process.wait()
    assert process.returncode == -signal.SIGKILL
    nothing_half_made(target)
    succeed(type_(built.checkout, "bundle", released, target))
    assert [p.name for p in target.parent.iterdir()] == [target.name]

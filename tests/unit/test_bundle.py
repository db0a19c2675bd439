"""An archive for a site without a network: what is in it, and what its script reads."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from slipway import bundle, manifest
from slipway.errors import BAD_DATA, NO_INPUT, SlipwayError
from slipway.fetched import replace_whole, sha256
from slipway.manifest import File
from tests.unit.fakes import EPOCH, make_manifest, make_workshop


def test_the_list_names_images_by_id_and_packages_by_variant() -> None:
    release = make_manifest()
    wheels = {release.files[2].name: "oar==1.2.0"}
    lines = bundle.listing(release, "trixie", wheels).splitlines()
    assert lines[0] == "suite trixie"
    assert f"image oar:1.2.0 {release.images[0].id}" in lines
    assert "deb noavx oar-noavx_1.2.0+deb13_amd64.deb" in lines
    assert lines[-1] == "wheel cpu oar==1.2.0"


def test_wheels_of_two_pythons_are_asked_for_by_one_name() -> None:
    release = make_manifest()
    other = replace(release.files[2], name="oar-1.2.0-cp311-cp311-linux_x86_64.whl")
    release = replace(release, files=(*release.files, other))
    names = dict.fromkeys((f.name for f in release.files), "oar==1.2.0")
    assert bundle.listing(release, "trixie", names).count("wheel cpu oar==1.2.0\n") == 1


@pytest.mark.parametrize(
    ("count", "bases"),
    [(0, []), (1, ["debian:trixie-slim"]), (2, ["debian:bookworm-slim", "debian:trixie-slim"])],
)
def test_several_wheels_of_a_variant_are_of_several_bases(
    tmp_path: Path, count: int, bases: list[str]
) -> None:
    found = [File(f"{n}.whl", "wheel", "cpu", 1, "") for n in range(count)]
    assert bundle.wheel_bases(make_workshop(tmp_path), found) == bases


def test_the_archive_says_nothing_of_who_packed_it_and_when(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("plain")
    (tmp_path / "program").write_text("program")
    (tmp_path / "plain").chmod(0o600)
    (tmp_path / "program").chmod(0o755)
    contents = {"install": tmp_path / "program", "release/oar.deb": tmp_path / "plain"}
    bundle.pack(tmp_path / "one.tar", "oar-1.2.0-bundle", contents, EPOCH)
    (tmp_path / "plain").touch()
    bundle.pack(tmp_path / "other.tar", "oar-1.2.0-bundle", contents, EPOCH)
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "other.tar").read_bytes()
    with tarfile.open(tmp_path / "one.tar") as tar:
        rows = [(m.name, m.mode, m.mtime, m.uid, m.uname) for m in tar]
    assert rows == [
        ("oar-1.2.0-bundle/install", 0o755, EPOCH, 0, ""),
        ("oar-1.2.0-bundle/release/oar.deb", 0o644, EPOCH, 0, ""),
    ]


@pytest.mark.parametrize("fault", ["tampered", "gone"])
def test_a_release_that_is_not_as_it_was_made_is_refused(tmp_path: Path, fault: str) -> None:
    file = tmp_path / "oar.deb"
    file.write_text("package")
    row = File("oar.deb", "deb", "cpu", 7, sha256(file))
    release = make_manifest(files=(row,))
    manifest.write(tmp_path, release)
    assert manifest.read(tmp_path) == release
    manifest.write_sums(tmp_path)
    manifest.check_whole(tmp_path)
    if fault == "gone":
        file.unlink()
    else:
        file.write_text("Package")
    with pytest.raises(SlipwayError, match="is not as it was made") as caught:
        bundle.make(make_workshop(tmp_path / "w"), tmp_path, tmp_path / "x.tar")
    assert caught.value.code == BAD_DATA
    assert not (tmp_path / "x.tar").exists()


def test_a_directory_without_a_manifest_is_no_release(tmp_path: Path) -> None:
    with pytest.raises(SlipwayError, match="no release in") as caught:
        bundle.make(make_workshop(tmp_path / "w"), tmp_path, tmp_path / "x.tar")
    assert caught.value.code == NO_INPUT


def fill_with(text: str, *, fail: bool = False) -> Callable[[Path], Path]:
    def fill(work: Path) -> Path:
        (work / "new").mkdir()
        (work / "new" / "file").write_text(text)
        if fail:
            raise RuntimeError
        return work / "new"

    return fill


def test_what_was_there_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    final = tmp_path / "final"
    replace_whole(final, fill_with("one"))
    with pytest.raises(RuntimeError):
        replace_whole(final, fill_with("two", fail=True))
    assert (final / "file").read_text() == "one"
    replace_whole(final, fill_with("three"))
    assert (final / "file").read_text() == "three"
    assert list(tmp_path.iterdir()) == [final]


def test_what_was_moved_away_when_a_process_was_killed_comes_back(tmp_path: Path) -> None:
    final, before = tmp_path / "final", tmp_path / ".work" / "final" / "before"
    before.mkdir(parents=True)
    (before / "file").write_text("one")
    with pytest.raises(RuntimeError):
        replace_whole(final, fill_with("two", fail=True))
    assert (final / "file").read_text() == "one"

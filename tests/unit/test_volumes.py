from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path, PurePosixPath

import pytest

from slipway import volumes
from slipway.engine import Mount
from tests.unit.fakes import make_workshop


def test_only_what_changed_is_different(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("a")
    (tmp_path / "gone").write_text("a")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "grows").write_text("a")
    before = volumes.listing(tmp_path, [])
    assert set(before) == {".", "kept", "gone", "sub", "sub/grows"}
    assert volumes.difference({}, before) == ([*before], [])
    (tmp_path / "gone").unlink()
    (tmp_path / "sub" / "grows").write_text("ab")
    (tmp_path / "link").symlink_to("kept")
    now = volumes.listing(tmp_path, [])
    changed, gone = volumes.difference(before, now)
    assert (sorted(changed), gone) == (["link", "sub/grows"], ["gone"])


def test_of_what_is_gone_the_deepest_is_first() -> None:
    file = (0o100644, 0, 0, "")
    known = {"a": file, "a/b": file, "a/b/c": file}
    assert volumes.difference(known, {})[1] == ["a/b/c", "a/b", "a"]


def test_what_has_a_volume_of_its_own_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "out" / "deep").mkdir(parents=True)
    (tmp_path / "src").mkdir()
    assert set(volumes.listing(tmp_path, [tmp_path / "out"])) == {".", "src"}


def test_what_is_no_file_does_not_travel(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert set(volumes.listing(tmp_path, [])) == {"."}


def test_directories_are_volumes_and_what_a_job_reads_is_not_fetched(tmp_path: Path) -> None:
    workshop = make_workshop(tmp_path)
    source, out, cache = (tmp_path / name for name in ("source", "out", "cache"))
    file = tmp_path / "passwd"
    file.write_text("")
    places = volumes.places_of(
        [
            Mount(source, readonly=True),
            Mount(out),
            Mount(cache, target="/run/ccache", stays_there=True),
            Mount(file, target="/etc/passwd", readonly=True),
        ],
        workshop,
    )
    assert [(p.target, p.travels, p.comes_back) for p in places] == [
        (str(source), True, False),
        (str(out), True, True),
        ("/run/ccache", False, False),
    ]
    assert len({p.volume for p in places}) == 3


@pytest.mark.parametrize("name", ["../outside", "a/../../outside"])
def test_nothing_is_written_outside_its_place(tmp_path: Path, name: str) -> None:
    top = tmp_path / "top"
    top.mkdir()
    assert not arrive(top, name, "text")
    assert not (tmp_path / "outside").exists()


def arrive(top: Path, name: str, text: str) -> bool:
    """A file comes to a place."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        volumes.add_text(tar, "x", text)
    archive.seek(0)
    with tarfile.open(fileobj=archive) as tar:
        return volumes.extract(tar, tar.getmembers()[0], top, PurePosixPath(name))


def test_a_link_that_leads_out_of_a_place_is_not_followed(tmp_path: Path) -> None:
    outside, top = tmp_path / "outside", tmp_path / "top"
    outside.mkdir()
    top.mkdir()
    (top / "sub").symlink_to(outside)
    assert arrive(top, "sub/file", "text")
    assert not list(outside.iterdir())
    assert (top / "sub" / "file").read_text() == "text"


def test_a_directory_that_has_become_a_file_and_the_other_way_round(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert arrive(tmp_path, "a", "a file")
    assert (tmp_path / "a").read_text() == "a file"
    assert arrive(tmp_path, "a/b/c", "deep")
    assert (tmp_path / "a" / "b" / "c").read_text() == "deep"


def test_a_file_travels_with_mode_time_and_link(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "run").write_text("x")
    (source / "run").chmod(0o750)
    os.utime(source / "run", ns=(10**18, 10**18))
    os.link(source / "run", source / "second")
    (source / "link").symlink_to("run")
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in (".", "run", "second", "link"):
            volumes.add(tar, source / name, f"/there/{name}")
    archive.seek(0)
    target = tmp_path / "target"
    with tarfile.open(fileobj=archive, mode="r|") as tar:
        for member in tar:
            relative = PurePosixPath(member.name).relative_to("there")
            volumes.extract(tar, member, target, relative)
    assert (target / "run").stat().st_mode & 0o777 == 0o750
    assert (target / "run").stat().st_mtime_ns == 10**18
    assert (target / "second").read_text() == "x"
    assert os.readlink(target / "link") == "run"

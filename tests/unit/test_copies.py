"""The copy of a source tree: what is brought up to date, and what is left alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from slipway.copies import remove, sync


@pytest.fixture
def source(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    (tree / "src").mkdir(parents=True)
    (tree / ".git").mkdir()
    (tree / ".git" / "HEAD").touch()
    (tree / "src" / "a.c").write_text("a\n")
    (tree / "configure").write_text("#!/bin/sh\n")
    (tree / "configure").chmod(0o555)
    return tree


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return tmp_path / "out" / "copy"


def files(directory: Path) -> set[str]:
    return {str(p.relative_to(directory)) for p in directory.rglob("*") if not p.is_dir()}


def test_everything_but_git_s_own_files_is_copied_with_its_time(source: Path, copy: Path) -> None:
    os.utime(source / "src" / "a.c", (1, 1))
    assert len(sync(source, copy)) == 2
    assert files(copy) == {"src/a.c", "configure"}
    assert (copy / "src" / "a.c").stat().st_mtime == 1


def test_a_copy_can_be_written_to_and_stays_executable(source: Path, copy: Path) -> None:
    sync(source, copy)
    assert (copy / "configure").stat().st_mode & 0o777 == 0o755


def test_nothing_is_copied_twice(source: Path, copy: Path) -> None:
    sync(source, copy)
    assert len(sync(source, copy)) == 0


def test_what_was_built_in_it_stays_and_what_changed_is_copied(source: Path, copy: Path) -> None:
    sync(source, copy)
    (copy / "src" / "a.o").touch()
    (source / "src" / "a.c").write_text("longer\n")
    assert len(sync(source, copy)) == 1
    assert (copy / "src" / "a.c").read_text() == "longer\n"
    assert (copy / "src" / "a.o").exists()


def test_what_the_build_itself_changed_in_it_stays_until_the_source_changes(
    source: Path, copy: Path
) -> None:
    sync(source, copy)
    (copy / "src" / "a.c").write_text("generated\n")
    assert len(sync(source, copy)) == 0
    (source / "src" / "a.c").write_text("new\n")
    sync(source, copy)
    assert (copy / "src" / "a.c").read_text() == "new\n"


def test_what_is_gone_from_the_source_goes_and_what_was_lost_comes_back(
    source: Path, copy: Path
) -> None:
    sync(source, copy)
    (source / "configure").unlink()
    (copy / "src" / "a.c").unlink()
    assert len(sync(source, copy)) == 2
    assert files(copy) == {"src/a.c"}


def test_a_file_may_become_a_directory_and_back(source: Path, copy: Path) -> None:
    (source / "x").write_text("file")
    sync(source, copy)
    (source / "x").unlink()
    (source / "x").mkdir()
    (source / "x" / "y").write_text("deep")
    sync(source, copy)
    assert (copy / "x" / "y").read_text() == "deep"
    (source / "x" / "y").unlink()
    (source / "x").rmdir()
    (source / "x").write_text("file")
    sync(source, copy)
    assert (copy / "x").read_text() == "file"


def test_links_stay_links_and_lead_where_they_led(source: Path, copy: Path, tmp_path: Path) -> None:
    (source / "inside").symlink_to("src/a.c")
    (source / "outside").symlink_to("../far.h")
    sync(source, copy)
    assert os.readlink(copy / "inside") == "src/a.c"
    assert os.readlink(copy / "outside") == str(tmp_path / "far.h")


def test_a_copy_that_was_broken_off_is_taken_up_again(source: Path, copy: Path) -> None:
    sync(source, copy)
    copy.with_name("copy.json").write_text('{"src/a.c": ')
    (copy / "src" / "a.c").write_text("half")
    sync(source, copy)
    assert (copy / "src" / "a.c").read_text() == "a\n"


def test_directories_that_are_ours_are_left_out(source: Path, copy: Path) -> None:
    (source / "slipway").mkdir()
    (source / "slipway" / "tasks.py").touch()
    sync(source, copy, (source / "slipway",))
    assert files(copy) == {"src/a.c", "configure"}


def test_a_copy_is_removed_with_its_memory(source: Path, copy: Path) -> None:
    sync(source, copy)
    remove(copy)
    assert files(copy.parent) == set()
    remove(copy)
    assert len(sync(source, copy)) == 2

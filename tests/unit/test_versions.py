"""How a version follows from what git and the files say, and how it is spelled."""

from __future__ import annotations

from pathlib import Path

import pytest
from packaging.version import Version as Pep440

from slipway.errors import BAD_CONFIG, SlipwayError
from slipway.versions import (
    MAX_TAG,
    Commit,
    debian_spelling,
    declared_version,
    parse_release,
    tag_spelling,
    version_at,
    version_of,
)


def at(tag: str | None, distance: int, *, dirty: bool = False, coming: str = "0.1.0") -> str:
    release = parse_release(tag) if tag else None
    commit = Commit("1a2b3c4d" * 5, 1_700_000_000, release, distance, dirty)
    return str(version_at(commit, Pep440(coming)))


def test_a_clean_tag_is_the_release() -> None:
    assert at("v1.2.3", 0) == at("1.2.3", 0) == "1.2.3"


@pytest.mark.parametrize(
    ("tag", "version"),
    [
        ("v1.2.3", "1.2.4.dev5+g1a2b3c4"),
        ("v1.2.9", "1.2.10.dev5+g1a2b3c4"),
        ("v1.2", "1.2.1.dev5+g1a2b3c4"),
        ("v1.2.3.4", "1.2.3.5.dev5+g1a2b3c4"),
        ("v1.2.3rc1", "1.2.3rc2.dev5+g1a2b3c4"),
        ("v1.2rc1", "1.2rc2.dev5+g1a2b3c4"),
        ("v1.2.3-rc.1", "1.2.3rc2.dev5+g1a2b3c4"),
        ("v1.2.3.post1", "1.2.3.post2.dev5+g1a2b3c4"),
        ("1!2.0.0", "1!2.0.1.dev5+g1a2b3c4"),
    ],
)
def test_commits_after_a_tag_count_towards_the_next_release(tag: str, version: str) -> None:
    assert at(tag, 5) == version


def test_changes_at_a_tag_come_after_it() -> None:
    assert at("v1.2.3", 0, dirty=True) == "1.2.4.dev0+g1a2b3c4.dirty"


@pytest.mark.parametrize("coming", ["0.1.0", "0.1.0.dev0", "0.1.0+cpu"])
def test_without_a_tag_the_declared_version_is_what_comes(coming: str) -> None:
    assert at(None, 7, coming=coming) == "0.1.0.dev7+g1a2b3c4"


@pytest.mark.parametrize("tag", ["nightly", "v1", "20240131", "v1.0.dev1", "v1.0+cpu", "release-x"])
def test_a_tag_that_names_no_release_is_skipped(tag: str) -> None:
    assert parse_release(tag) is None


@pytest.mark.parametrize(
    ("pep440", "debian", "tag"),
    [
        ("1.2.3", "1.2.3", "1.2.3"),
        ("1.2.3rc1", "1.2.3~rc1", "1.2.3rc1"),
        ("1.2.3.post1", "1.2.3++post1", "1.2.3.post1"),
        ("1!2.0.0", "1:2.0.0", "1-2.0.0"),
        ("1.2.4.dev5+g1a2b3c4.dirty", "1.2.4~~dev5+g1a2b3c4.dirty", "1.2.4.dev5-g1a2b3c4.dirty"),
        ("1.2.3rc2.dev5+g1a2b3c4", "1.2.3~rc2~~dev5+g1a2b3c4", "1.2.3rc2.dev5-g1a2b3c4"),
    ],
)
def test_spellings(pep440: str, debian: str, tag: str) -> None:
    assert debian_spelling(Pep440(pep440)) == debian
    assert tag_spelling(Pep440(pep440)) == tag


def test_a_long_version_still_fits_in_a_tag() -> None:
    assert len(tag_spelling(Pep440("1.0+" + "x" * 200))) == MAX_TAG


@pytest.mark.parametrize(
    ("name", "text", "version"),
    [
        (
            "CMakeLists.txt",
            "cmake_minimum_required(VERSION 3.25)\nproject(oar VERSION 0.1.0)",
            "0.1.0",
        ),
        (
            "CMakeLists.txt",
            'PROJECT (\n  oar # a (VERSION 9)\n  VERSION "1.2"\n  LANGUAGES CXX)',
            "1.2",
        ),
        ("CMakeLists.txt", "project(oar VERSION ${V})\nproject(sub VERSION 2.0)", None),
        ("CMakeLists.txt", "cmake_minimum_required(VERSION 3.25)\nproject(oar)", None),
        ("pyproject.toml", '[project]\nname = "oar"\nversion = "1.2.3rc1"', "1.2.3rc1"),
        ("pyproject.toml", '[project]\ndynamic = ["version"]\n[tool.x]\nversion = "9"', None),
        ("meson.build", "project('oar', 'cpp',\n  meson_version: '>=1.0', version: '2.1')", "2.1"),
        ("meson.build", "project('oar', 'cpp', meson_version: '>=1.0')", None),
        ("VERSION.txt", "4.6.0.99\n", "4.6.0.99"),
        ("VERSION", "v1.2.3\n", "v1.2.3"),
        ("VERSION", "#ifndef VERSION\n", None),
    ],
)
def test_the_declared_version(tmp_path: Path, name: str, text: str, version: str | None) -> None:
    (tmp_path / name).write_text(text)
    assert declared_version(tmp_path) == version


def test_the_build_files_come_before_a_version_file(tmp_path: Path) -> None:
    (tmp_path / "VERSION").write_text("9.9.9")
    assert declared_version(tmp_path) == "9.9.9"
    (tmp_path / "CMakeLists.txt").write_text("project(oar)")
    assert declared_version(tmp_path) == "9.9.9"
    (tmp_path / "CMakeLists.txt").write_text("project(oar VERSION 0.1.0)")
    assert declared_version(tmp_path) == "0.1.0"


def test_nothing_declared(tmp_path: Path) -> None:
    assert declared_version(tmp_path) is None


def test_a_broken_pyproject_is_an_error_of_one_line(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[project")
    with pytest.raises(SlipwayError, match=r"no TOML") as caught:
        declared_version(tmp_path)
    assert caught.value.code == BAD_CONFIG


def test_a_declared_version_that_is_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SlipwayError, match="'best' is no version") as caught:
        version_of(tmp_path, "best")
    assert caught.value.code == BAD_CONFIG

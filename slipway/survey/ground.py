"""A source tree as it lies there: which build system it has, and what its files tell.

Files are read, nothing of the tree is run and no process is started.
"""

from __future__ import annotations

import itertools
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from slipway.errors import BAD_CONFIG, NO_INPUT, SlipwayError
from slipway.project import System
from slipway.records import Record
from slipway.survey import manifests
from slipway.survey.manifests import Call, Facts

MOST_FILES = 300  # of one kind in a tree; a survey takes a second at most
MOST_BYTES = 1_000_000  # of a file that people write

# Directories of other people's code, or that no build starts from.
FOREIGN = re.compile(
    r"[._].*|(cmake-)?build.*|(third|3rd)[-_]?party|ext|extern.*|vendor.*|deps|subprojects|node_modules"
    r"|out|dist|examples?|samples?|demos?|docs?|bench.*|debian|slipway",
    re.IGNORECASE,
)
TESTS = ("tests", "test", "python/tests", "python/test")


class Seen(Record, frozen=True):
    """A value, and where it was seen."""

    value: str
    where: str


class Mark(Record, frozen=True):
    """A build system, told apart by one file."""

    system: System
    kind: str
    """What it is called: a backend of Python's, or Meson, autotools, ..."""
    file: str


# -- the build system


def locate(tree: Path) -> tuple[Mark, str]:
    """The build system of a tree, and its directory: the top, or the only one below with one."""
    if mark := mark_of(tree):
        return mark, ""
    below = [p for p in sorted(tree.iterdir()) if p.is_dir() and is_ours(p.name)]
    found = {p.name: mark for p in below if p.name not in TESTS and (mark := mark_of(p))}
    if len(found) == 1:
        ((name, mark),) = found.items()
        return mark, name
    looked = "pyproject.toml, setup.py, CMakeLists.txt, meson.build, configure, Makefile"
    if found:
        cause = f"several directories below it have one: {', '.join(found)}"
    else:
        cause = f"looked for, in it and one level below: {looked}"
    here = [shlex.join(["invoke", "init", "--source", str(tree / name)]) for name in [*found][:3]]
    raise SlipwayError(
        f"{tree} has no build system at its top",
        cause=cause,
        fix=[
            *(here or ["invoke init --source DIR, with the directory that holds it"]),
            "write a project.yaml by hand, with build: {system: script, commands: [...]}",
        ],
        code=NO_INPUT,
    )


def mark_of(top: Path) -> Mark | None:
    """The build system that a directory itself has."""
    python = load_toml(top / "pyproject.toml")
    # A pyproject.toml of neither part only configures tools.
    if "build-system" in python or "project" in python:
        backend = python.get("build-system", {}).get("build-backend", "setuptools")
        return Mark("pep517", str(backend), "pyproject.toml")
    for file, system, kind in SYSTEMS:
        if (top / file).is_file():
            return Mark(system, kind, file)
    return None


SYSTEMS: tuple[tuple[str, System, str], ...] = (
    ("setup.py", "pep517", "setuptools"),
    ("CMakeLists.txt", "cmake", "CMake"),
    ("meson.build", "script", "Meson"),
    ("configure", "script", "configure"),
    ("configure.ac", "script", "autotools"),
    ("Makefile", "make", "make"),
    ("makefile", "make", "make"),
    ("GNUmakefile", "make", "make"),
)


def is_ours(name: str) -> bool:
    """Whether a directory of that name may hold what the project itself builds or tests."""
    return not FOREIGN.fullmatch(name)


# -- reading


def read(path: Path) -> str:
    """A text file's beginning; empty where there is no such file."""
    if not path.is_file():
        return ""
    with path.open(encoding="utf-8", errors="replace") as stream:
        return stream.read(MOST_BYTES)


def load_toml(path: Path) -> dict[str, Any]:
    """A TOML file; empty where there is none."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    try:
        data = tomllib.loads(read(path))
    except tomllib.TOMLDecodeError as error:
        raise wrong(path, f"is no TOML: {error}") from None
    for key in ("build-system", "project"):
        if not isinstance(data.get(key, {}), dict):
            raise wrong(path, f"{key} is no table")
    return data


def wrong(path: Path, why: str) -> SlipwayError:
    """The error for a file that cannot be understood."""
    return SlipwayError(
        f"{path} cannot be understood",
        cause=why,
        fix=["mend it: https://packaging.python.org/specifications/pyproject-toml"],
        code=BAD_CONFIG,
    )


def walk(top: Path, is_wanted: Callable[[str], bool]) -> Iterator[Path]:
    """The files below a directory that are the project's own, nearest first."""
    rows = []
    for folder, folders, files in os.walk(top):
        depth = len(Path(folder).relative_to(top).parts)
        kept = (f for f in folders if is_ours(f) and not Path(folder, f, ".git").exists())
        folders[:] = sorted(kept) if depth < 5 else []
        rows += [(depth, Path(folder, name)) for name in sorted(files) if is_wanted(name)]
    yield from (path for _, path in itertools.islice(sorted(rows), MOST_FILES))


class Ground:
    """The files of one tree, each read once."""

    def __init__(self, tree: Path) -> None:
        self.tree = tree
        self.mark, self.directory = locate(tree)
        self.top = tree / self.directory

    def shown(self, path: Path) -> str:
        """A path as a person in the tree writes it."""
        return path.relative_to(self.tree).as_posix()

    @cached_property
    def pyproject(self) -> dict[str, Any]:
        """pyproject.toml of the directory that is built."""
        return load_toml(self.top / "pyproject.toml")

    @cached_property
    def facts(self) -> list[Facts]:
        """What each file tells, those that say most about it first."""
        found = []
        for top in dict.fromkeys([self.top, self.tree]):
            file = top / "pyproject.toml"
            try:
                found.append(manifests.of_pyproject(load_toml(file), self.shown(file)))
            except (AttributeError, TypeError) as error:
                raise wrong(file, f"[project] is not what PEP 621 has: {error}") from None
            for name, reader in manifests.READERS.items():
                if text := read(top / name):
                    found.append(reader(text, self.shown(top / name)))
        return found

    @cached_property
    def cmake(self) -> dict[str, list[Call]]:
        """The calls of each CMakeLists.txt that is the project's own."""
        files = walk(self.top, lambda name: name == "CMakeLists.txt")
        return {self.shown(path): manifests.cmake_calls(read(path)) for path in files}

    @cached_property
    def meson(self) -> dict[str, str]:
        """Each meson.build that is the project's own."""
        files = walk(self.top, lambda name: name == "meson.build")
        return {self.shown(path): read(path) for path in files}

    @cached_property
    def makefiles(self) -> dict[str, str]:
        """The Makefile of the top, or what configure makes it from."""
        names = ("Makefile", "makefile", "GNUmakefile", "Makefile.in", "Makefile.am")
        return {self.shown(self.top / name): read(self.top / name) for name in names}

    def first(self, key: str, clean: Callable[[str], str] = str.strip) -> Seen | None:
        """The first that a file tells of ``key``."""
        told = ((clean(getattr(facts, key)), facts.where) for facts in self.facts)
        return next((Seen(value, where) for value, where in told if value), None)

    def calls(self, *names: str) -> Iterator[tuple[Call, str]]:
        """The calls of CMake of those names, and the files they are in."""
        for where, calls in self.cmake.items():
            yield from ((call, where) for call in calls if call.name in names)

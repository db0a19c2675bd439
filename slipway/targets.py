"""What there is to debug: programs that were built, CTest's tests, Python scripts."""

from __future__ import annotations

import os
import shlex
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from slipway import testing
from slipway.builds import Site
from slipway.engine import Mount
from slipway.errors import NO_INPUT, USAGE, SlipwayError
from slipway.records import Record


class Program(Record, frozen=True):
    """What is debugged: paths are those inside."""

    command: tuple[str, ...]
    directory: str = ""
    env: Mapping[str, str] = msgspec.field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    """What a job does not see by itself."""


def is_program(head: bytes) -> bool:
    """Whether a file that begins so is an ELF program, not a library: it names its loader."""
    if head[:6] != b"\x7fELF\2\1" or len(head) < 64:
        return False
    kind, table, size, count = (
        *struct.unpack_from("<H", head, 16),
        *struct.unpack_from("<Q", head, 32),
        *struct.unpack_from("<HH", head, 54),
    )
    starts = range(table, min(table + size * count, len(head) - 3), max(size, 1))
    return kind == 2 or any(head[at : at + 4] == b"\3\0\0\0" for at in starts)


def programs(directories: Mapping[Path, str]) -> dict[str, str]:
    """The programs below directories: name relative to theirs, to path inside.

    :param directories: each with where it stands inside.
    """
    found: dict[str, str] = {}
    for top, inside in directories.items():
        for name, folders, files in os.walk(top):
            folders[:] = sorted(f for f in folders if f not in ("CMakeFiles", ".git"))
            for file in sorted(files):
                path = Path(name, file)
                if path.is_symlink() or not path.is_file() or not os.access(path, os.X_OK):
                    continue
                with path.open("rb") as stream:
                    head = stream.read(4096)
                if is_program(head):
                    relative = path.relative_to(top).as_posix()
                    found.setdefault(relative, f"{inside}/{relative}")
    return found


def tests(listing: Mapping[str, Any]) -> dict[str, Program]:
    """The tests of ``ctest --show-only=json-v1``, by name; one that is not built is left out."""
    found = {}
    for test in listing.get("tests", []):
        values = {p["name"]: p["value"] for p in test.get("properties", [])}
        given = values.get("ENVIRONMENT") or []
        variables = (line.partition("=") for line in ([given] if isinstance(given, str) else given))
        if test.get("command"):
            found[str(test["name"])] = Program(
                tuple(test["command"]),
                str(values.get("WORKING_DIRECTORY", "")),
                {name: value for name, _, value in variables},
            )
    return found


def among(name: str, known: Mapping[str, str]) -> str:
    """The path of the program that ``name`` means: all of its path, or the end that tells it."""
    if name in known:
        return known[name]
    ends = [path for path in known if path.endswith(f"/{name}")]
    if len(ends) > 1:
        raise SlipwayError(
            f"several programs are called '{name}'",
            cause="\n".join(ends),
            fix=[f"invoke debug --target {ends[0]}"],
            code=USAGE,
        )
    return known[ends[0]] if ends else ""


def unknown(name: str, known: Mapping[str, str], others: Mapping[str, Program]) -> SlipwayError:
    """No program and no test has that name: the nearest, and all programs."""
    import difflib  # only an error needs it

    short = [path.rpartition("/")[2] for path in known]
    names = list(dict.fromkeys([*short, *others]))
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    lines = [f"did you mean {' or '.join(repr(n) for n in near)}?"] if near else []
    lines.append(f"programs that were built: {', '.join(sorted(short)) or 'none'}")
    if others:
        lines.append(f"and {len(others)} tests of CTest's, by their names")
    example = (near or sorted(short) or ["NAME"])[0]
    return SlipwayError(
        f"nothing to debug is called '{name}'",
        cause="\n".join(lines),
        fix=[f"invoke debug --target {shlex.quote(example)}", "or a Python script: --target x.py"],
        code=USAGE,
    )


def directories(s: Site) -> dict[Path, str]:
    """Where a site's programs are, and where that is inside."""
    found = {s.build: s.place.inside(s.build)}
    return {**found, s.copy: s.source_inside} if s.copied else found


def python_script(s: Site, name: str, arguments: Sequence[str]) -> Program:
    """A Python script, from here or from the source; what was built can be imported in it."""
    places = [Path.cwd() / name, s.tree.source / name]
    path = next((p.resolve() for p in places if p.is_file()), None)
    if path is None:
        raise SlipwayError(
            f"no script {name} in {Path.cwd()} or {s.tree.source}",
            cause=_scripts_like(name, s.tree.source),
            fix=["invoke debug --target x.py, where x.py is"],
            code=NO_INPUT,
        )
    mounts = [] if path.is_relative_to(s.tree.source) else [Mount(path.parent, readonly=True)]
    paths = []
    for number, directory in enumerate(testing.python_paths(s)):
        inside = s.place.inside(directory)
        if ":" in inside and s.image:  # which PYTHONPATH has no way to say
            inside = f"/run/slipway/python/{number}"
            mounts.append(Mount(directory, target=inside, readonly=True))
        paths.append(inside)
    env = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": ":".join(paths)}
    return Program(("python3", s.place.inside(path), *arguments), "", env, tuple(mounts))


def _scripts_like(name: str, source: Path) -> str:
    import difflib

    scripts = {p.name: p.relative_to(source).as_posix() for p in source.rglob("*.py")}
    near = difflib.get_close_matches(Path(name).name, scripts, n=1, cutoff=0.5)
    return f"did you mean {scripts[near[0]]}?" if near else ""


def find_program(s: Site, name: str, arguments: Sequence[str]) -> Program:
    """What ``--target`` means in a site that has been built."""
    if name.endswith(".py"):
        return python_script(s, name, arguments)
    known = programs(directories(s))
    path = among(name, known)
    if path:
        return Program((path, *arguments))
    others = tests(testing.list_ctest(s)) if testing.has_ctest(s.tree) else {}
    if name not in others:
        raise unknown(name, known, others)
    test = others[name]
    return replace(test, command=(*test.command, *arguments))

"""Cores: what they say of their program, how one is opened, and those of tests that have died."""

from __future__ import annotations

import mmap
import os
import re
import shlex
import struct
from collections.abc import Iterator
from pathlib import Path

from msgspec.structs import replace

from slipway import console, engine, gdb, targets, testing
from slipway.builds import DEBUG, RELEASE, Site
from slipway.engine import Mount
from slipway.errors import BAD_DATA, NO_INPUT, SlipwayError
from slipway.project import find
from slipway.targets import Program

CORES = "cores"  # below out/PROJECT/VARIANT
SHOWN_CRASHES = 3  # a library that is broken kills every test: three backtraces say as much
_CORE, _NOTE = 4, 4  # e_type of a core; p_type of a segment with notes
_AUXV, _FILES = 6, 0x46494C45  # types of notes, include/uapi/linux/elf.h
_ENTRY = 9  # AT_ENTRY, where the program begins


def executable_of(core: Path) -> str:
    """The program that a core is of: the file that was mapped where the program begins.

    Empty where the core does not say.
    """
    try:
        with core.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as m:
            notes = dict(_notes(m))
    except (ValueError, struct.error) as error:
        raise SlipwayError(
            f"{core} is no core of a program for x86-64",
            cause=str(error),
            fix=["invoke test, which keeps a core of a C++ test that dies"],
            code=BAD_DATA,
        ) from error
    vector = notes.get(_AUXV, b"")
    entry = dict(struct.iter_unpack("<QQ", vector[: len(vector) // 16 * 16])).get(_ENTRY, 0)
    for start, end, name in _mapped(notes.get(_FILES, b"")):
        if start <= entry < end:
            return name
    return ""


def _notes(data: mmap.mmap) -> Iterator[tuple[int, bytes]]:
    """Type and content of each note of a core."""
    if data[:6] != b"\x7fELF\2\1" or struct.unpack_from("<H", data, 16)[0] != _CORE:
        raise ValueError("it is another kind of file")
    (table,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    for number in range(count):
        kind, _, offset, _, _, length = struct.unpack_from("<IIQQQQ", data, table + number * size)
        at = offset
        while kind == _NOTE and at + 12 <= offset + length:
            name, content, what = struct.unpack_from("<III", data, at)
            start = at + 12 + (name + 3) // 4 * 4
            yield what, data[start : start + content]
            at = start + (content + 3) // 4 * 4


def _mapped(note: bytes) -> Iterator[tuple[int, int, str]]:
    """Start, end and file of each mapping in an NT_FILE note."""
    if len(note) < 16:
        return
    (count,) = struct.unpack_from("<Q", note, 0)
    names = note[16 + count * 24 :].split(b"\0")
    for number, name in zip(range(count), names, strict=False):
        start, end, _ = struct.unpack_from("<QQQ", note, 16 + number * 24)
        yield start, end, os.fsdecode(name)


def on_host(program: str, root: Path) -> str:
    """Where a program stands on this machine that a core names as it was inside.

    :param root: the checkout, which may have been moved inside; see ``engine.path_inside``.
    """
    moved = f"{engine.path_inside(root, root)}/"
    return str(root / program.removeprefix(moved)) if program.startswith(moved) else program


def home_of(program: str, out: Path) -> tuple[str, str, str]:
    """Project, variant and build type of a program in ``out/``; empty where it is elsewhere."""
    path = Path(program)
    parts = path.relative_to(out).parts if path.is_relative_to(out) else ()
    if len(parts) < 3:
        return "", "", ""
    variant, _, mark = parts[1].partition(".")
    return parts[0], variant, DEBUG if mark.rpartition(".")[2] == DEBUG else RELEASE


def check_core(s: Site, core: Path, program: str) -> None:
    """Refuse a core whose program is not here, and say so when it was made again since.

    :param program: as the core names it; one of the image's own cannot be looked at from here.
    """
    shown = shlex.quote(s.shown(core))
    if not program:
        raise SlipwayError(
            f"{s.shown(core)} does not say which program it is of",
            fix=[f"invoke debug --core {shown} --target NAME"],
            code=BAD_DATA,
        )
    path = Path(program)
    if s.image and engine.hides_image(program) and not path.is_relative_to(s.out):
        return
    if not path.is_file():
        raise SlipwayError(
            f"the program that {s.shown(core)} is of is not there: {program}",
            cause="it has been removed since, or the core comes from another machine",
            fix=[
                f"invoke build {s.flags}, if it was made from this source",
                f"invoke debug --core {shown} --target NAME, if it is called otherwise now",
            ],
            code=NO_INPUT,
        )
    if path.stat().st_mtime > core.stat().st_mtime:
        console.say(f"{s.shown(path)} was made again after this core: lines may be wrong")


def of_core(s: Site, core: Path, program: str) -> tuple[list[str], list[Mount]]:
    """The command line that opens a core, and what has to be mounted for it."""
    if s.image and engine.hides_image(program) and not Path(program).is_relative_to(s.out):
        files, inside = [core], program  # the image's own
    else:
        files, inside = [core, Path(program)], s.place.inside(Path(program))
    mounts = [Mount(p, readonly=True) for p in files if not _is_seen(s, p)]
    return gdb.gdb(s, inside, s.place.inside(core)), mounts


def _is_seen(s: Site, path: Path) -> bool:
    return not s.image or any(path.is_relative_to(m.instead_of or m.source) for m in s.mounts())


# -- tests that have died

_DIED = re.compile(
    r"^\s+\d+ - (.+) \((?:SEGFAULT|ILLEGAL|NUMERICAL|OTHER_FAULT|(?:Child|Subprocess) aborted)\)",
    re.MULTILINE,
)


def crashed(log: str) -> list[str]:
    """The tests that CTest's closing list calls dead by a signal; not those that were killed."""
    return list(dict.fromkeys(_DIED.findall(log)))


def core_name(test: str) -> str:
    """The file that a test's core goes to."""
    return f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', test).strip('-')}.core"


def keep_cores(s: Site) -> list[str]:
    """Run again, under gdb, the C++ tests that have just died; the commands that open their cores.

    Their backtraces are shown. Cores of the run before are removed first.
    """
    log = s.reports / "ctest.log"
    names = crashed(log.read_text(encoding="utf-8", errors="replace")) if log.is_file() else []
    if not names:
        return []
    lacking = gdb.lacks(s, "gdb")
    if lacking:
        console.say(f"{len(names)} tests have died; {lacking.what}, so none is run again")
        return list(lacking.fix)
    cores = s.out / CORES
    cores.mkdir(exist_ok=True)
    for file in cores.glob("*.core"):
        file.unlink()
    known = targets.tests(testing.list_ctest(s))
    commands = []
    for name in names[:SHOWN_CRASHES]:
        console.say(f"{console.bold('died')} {name}: once more, under gdb")
        file = cores / core_name(name)
        if name in known and _run_again(s, known[name], file):
            commands.append(shlex.join(["invoke", "debug", "--core", s.shown(file), *naming(s)]))
        else:
            console.say(f"no core of {name}: it did not die again")
    if names[SHOWN_CRASHES:]:
        console.say(f"{len(names) - SHOWN_CRASHES} more have died, and were not run again")
    return commands


def naming(s: Site) -> list[str]:
    """The flags that mean this tree again, where it is not the one that is meant without any."""
    words = [] if s.tree.file == find(s.workshop, "") else ["--project", s.shown(s.tree.file)]
    if s.tree.project.source.kind == "here" and s.tree.source != s.tree.file.parent:
        words += ["--source", s.shown(s.tree.source)]
    return words


def _run_again(s: Site, program: Program, core: Path) -> bool:
    """Whether there is a core now."""
    job = s.job("debug", [], {})
    job = replace(
        job,
        command=gdb.again(s, s.place.inside(core), program.command),
        env={**job.env, **program.env},
        workdir=program.directory or s.place.inside(s.build),
        capabilities=gdb.CAPABILITIES,
    )
    s.place.run(s.given_gpu(job), s.image)
    return core.is_file()

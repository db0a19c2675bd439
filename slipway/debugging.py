"""A debugger on what was built: gdb on a program, a Python script or a core; and after a crash.

gdb runs where the tools are, as the caller. It traces only what it starts itself, so it needs one
capability and no ``--privileged``; the address space stays as random as it is, since the engine's
seccomp profile does not let a process ask for another.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import re
import select
import shlex
import shutil
import signal
import socket
import struct
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from invoke.exceptions import Exit
from msgspec.structs import replace

from slipway import builds, console, engine, testing
from slipway.builds import DEBUG, RELEASE, Site
from slipway.engine import Mount
from slipway.errors import BAD_DATA, NO_INPUT, TEMPORARY, UNAVAILABLE, USAGE, SlipwayError
from slipway.project import find
from slipway.reading import LOOPBACK
from slipway.records import Record
from slipway.settings import Workshop

CAPABILITIES = ("SYS_PTRACE",)
CORES = "cores"  # below out/PROJECT/VARIANT
SHOWN_CRASHES = 3  # a library that is broken kills every test: three backtraces say as much
PATIENCE_S = 120  # for a test that died, when it runs again
FRAMES = 40


class Program(Record, frozen=True):
    """What is debugged: paths are those inside."""

    command: tuple[str, ...]
    directory: str = ""
    env: Mapping[str, str] = msgspec.field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    """What a job does not see by itself."""


def lacks(s: Site, tool: str) -> SlipwayError | None:
    """What is wrong where ``tool`` is not on this machine and jobs run in place."""
    if s.image or shutil.which(tool, path=engine.path_in_place(s.workshop)):
        return None
    return SlipwayError(
        f"no {tool} on this machine", fix=[f"sudo apt-get install {tool}"], code=UNAVAILABLE
    )


# -- gdb's command line


def quoted(text: str) -> str:
    """``text`` as one word of a gdb command."""
    return re.sub(r"([\s'\"\\])", r"\\\1", text)


def substitutions(s: Site) -> list[str]:
    """gdb commands that say what the paths in the debug symbols of a release build stand for.

    See ``builds.prefix_maps``. The longest comes first, since the first that fits counts.
    """
    maps = sorted(builds.prefix_maps(s).items(), key=lambda pair: len(pair[1]), reverse=True)
    return [f"set substitute-path {name} {quoted(path)}" for path, name in maps]


def gdb(s: Site, *arguments: str) -> list[str]:
    """The command line of gdb."""
    commands = [
        "set disable-randomization off",
        "set breakpoint pending on",
        "set filename-display absolute",  # as an editor opens them
        *substitutions(s),
    ]
    options = [word for command in commands for word in ("-iex", command)]
    return ["gdb", "-q", *options, *arguments]


def again(s: Site, core: str, program: Program) -> list[str]:
    """The command line that runs a test that died, to show where, and keep a core.

    gdb writes the core: the kernel's own go where the host's core_pattern says.

    :param core: where it goes, inside.
    """
    commands = ["run", f"backtrace {FRAMES}", f"generate-core-file {core}"]
    limit = [
        "timeout",
        "--foreground",
        "--kill-after=10",
        str(PATIENCE_S),
    ]  # gdb needs the terminal
    executed = [word for command in commands for word in ("-ex", command)]
    return [*limit, *gdb(s, "-nx", "-batch", *executed, "--args", *program.command)]


# -- what there is to debug


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


# -- cores

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
    return gdb(s, inside, s.place.inside(core)), mounts


def _is_seen(s: Site, path: Path) -> bool:
    return not s.image or any(path.is_relative_to(m.instead_of or m.source) for m in s.mounts())


# -- gdbserver


def listen(port: int) -> socket.socket:
    """A listening socket at the port of 127.0.0.1 that ``--port`` names, or at a free one."""
    if not 0 <= port < 65536:
        raise SlipwayError(
            f"{port} is no port", fix=["invoke debug --server, at a free one"], code=USAGE
        )
    try:
        return socket.create_server((LOOPBACK, port), backlog=1)
    except OSError as error:
        in_use = error.errno == errno.EADDRINUSE
        raise SlipwayError(
            f"port {port} of {LOOPBACK} {'is in use' if in_use else 'cannot be listened at'}",
            cause="another program listens there, maybe another invoke debug --server"
            if in_use
            else str(error),
            fix=["invoke debug --server without --port, at a free one"],
            code=TEMPORARY,
        ) from error


def attach(s: Site, port: int, program: Program) -> list[str]:
    """What to type, or to write into an editor's configuration, to be connected."""
    command = [word for line in substitutions(s) for word in ("-ex", line)]
    command += ["-ex", f"target remote {LOOPBACK}:{port}"]
    file = program.command[0]
    own = [file] if file.startswith("/") else []
    return [
        f"waiting for one debugger at {LOOPBACK}:{port}; type elsewhere:",
        f"  {shlex.join(['gdb', *command, *own])}",
        f'  or, in launch.json: "miDebuggerServerAddress": "{LOOPBACK}:{port}"',
    ]


def relay(server: socket.socket, near: socket.socket) -> None:
    """Let one debugger in, and hand on what it and gdbserver say, until one of them hangs up."""
    with contextlib.suppress(OSError):  # one of the three was closed: it is over
        far, _ = server.accept()
        server.close()
        with far, near:
            other = {far: near, near: far}
            while True:
                for end in select.select([far, near], [], [])[0]:
                    block = end.recv(1 << 16)
                    if not block:
                        return
                    other[end].sendall(block)


def serve(s: Site, program: Program, server: socket.socket) -> None:
    """gdbserver, for the first who connects; it listens nowhere itself.

    gdbserver's own socket would answer at every address that it has, to whoever comes, and needs a
    network. Here it speaks on standard input and output, and the port is ours.
    """
    near, wire = socket.socketpair()
    thread = threading.Thread(target=relay, args=(server, near), daemon=True)
    with server, wire:  # what is left of the wire is closed by then, which ends the relay
        thread.start()
        options = ["--once", "--no-disable-randomization", "-"]
        start(s, ["gdbserver", *options, *program.command], program, wire.fileno())
    thread.join(timeout=1)


# -- what is typed


class Wish(Record, frozen=True):
    """What is to be debugged, and how, as it was typed."""

    target: str = ""
    core: str = ""
    server: bool = False
    port: int = 0
    arguments: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        """Its target or core, for a command to type."""
        name, value = ("--core", self.core) if self.core else ("--target", self.target or "NAME")
        return f"invoke debug {name} {shlex.quote(value)}"


def check(wish: Wish) -> None:
    """Refuse what does not go together, before anything is done."""
    if not (wish.target or wish.core):
        raise SlipwayError(
            "nothing to debug is named",
            fix=["invoke debug --target NAME", "invoke debug --core FILE"],
            code=USAGE,
        )
    if wish.core and (wish.arguments or wish.server):
        raise SlipwayError(
            "--core opens what has ended: it takes no arguments and no --server",
            fix=[wish.shown],
            code=USAGE,
        )
    if wish.port and not wish.server:
        raise SlipwayError(
            "--port goes with --server",
            fix=[f"{wish.shown} --server --port {wish.port}"],
            code=USAGE,
        )
    if wish.core and not Path(wish.core).is_file():
        raise SlipwayError(
            f"no core {wish.core}",
            cause="invoke test keeps one of each C++ test that dies, in out/PROJECT/VARIANT/cores",
            fix=["invoke test"],
            code=NO_INPUT,
        )


def debug(
    workshop: Workshop,
    wish: Wish,
    variant: str,
    project: str,
    source: str,
    wanted: str,
    gpu: str,
    build_type: str,
) -> None:
    """gdb, or gdbserver, on what a site has built; its exit status is ours.

    The others say what the flags of these names say, ``wanted`` what ``--engine`` does.
    """
    check(wish)
    program = ""
    if wish.core:
        program = on_host(executable_of(Path(wish.core)), workshop.root)
        name, made_as, made_for = home_of(program, workshop.out)
        variant, build_type = variant or made_as, build_type or made_for
    else:
        name, build_type = "", build_type or DEBUG
    server = listen(wish.port) if wish.server else None
    mode = None if wish.core else gpu  # what has ended needs none
    s = next(iter(builds.sites(workshop, variant, project, source, wanted, mode, build_type)))
    if name and name != s.tree.project.name:
        raise SlipwayError(
            f"{wish.core} is of a program of {name}, not of {s.tree.project.name}",
            fix=[f"{wish.shown} --project {name}"],
            code=USAGE,
        )
    if wish.core:
        return open_core(s, wish, program)
    with s.locked("debug"):
        builds.build(s)
        found = Program((wish.target, *wish.arguments))
        if not workshop.dry:
            found = find_program(s, wish.target, wish.arguments)
    if not server:
        return start(s, gdb(s, "--args", *found.command), found)
    for line in attach(s, server.getsockname()[1], found):
        console.say(line)
    return serve(s, found, server)


def open_core(s: Site, wish: Wish, program: str) -> None:
    """gdb on a core, with the program as it is: if it were built now, it would be another.

    :param program: what the core says that it is of.
    """
    core = Path(wish.core).resolve()
    if wish.target:
        known = programs(directories(s))
        program = among(wish.target, known)
        if not program:
            raise unknown(wish.target, known, {})
    check_core(s, core, program)
    command, mounts = of_core(s, core, program)
    start(s, command, Program((), mounts=tuple(mounts)))


def start(s: Site, command: Sequence[str], program: Program, wire: int = -1) -> None:
    """Run a debugger for a person, or for what they pipe into it.

    :param wire: what it reads and writes instead.
    """
    lacking = lacks(s, command[0])
    if lacking:
        raise lacking
    if not s.workshop.dry:
        s.prepare()
    job = s.job("debug", [], {})
    job = replace(
        job,
        command=list(command),
        mounts=[*job.mounts, *program.mounts],
        env={**job.env, **program.env},
        workdir=program.directory or s.place.inside(s.build),
        wire=wire,
        interactive=True,
        alone=False,
        capabilities=CAPABILITIES,
    )
    with contextlib.nullcontext() if wire >= 0 else gdb_s_own_interrupts(s):
        status = s.place.run(s.given_gpu(job), s.image)
    if status:
        raise Exit(code=status)


@contextlib.contextmanager
def gdb_s_own_interrupts(s: Site) -> Iterator[None]:
    """Leave Ctrl-C to gdb where it shares our terminal without a container between."""
    if s.image or not engine.on_terminal():
        yield
        return
    before = signal.signal(signal.SIGINT, lambda *_: None)  # not ignored: the child would be too
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


# -- tests that died

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
    lacking = lacks(s, "gdb")
    if lacking:
        console.say(f"{len(names)} tests have died; {lacking.what}, so none is run again")
        return list(lacking.fix)
    cores = s.out / CORES
    cores.mkdir(exist_ok=True)
    for file in cores.glob("*.core"):
        file.unlink()
    known = tests(testing.list_ctest(s))
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
        command=again(s, s.place.inside(core), program),
        env={**job.env, **program.env},
        workdir=program.directory or s.place.inside(s.build),
        capabilities=CAPABILITIES,
    )
    s.place.run(s.given_gpu(job), s.image)
    return core.is_file()

"""A debugger on what was built: gdb on a program, a Python script or a core; or gdbserver.

gdb runs where the tools are, as the caller. It traces only what it starts itself, so it needs one
capability and no ``--privileged``; the address space stays as random as it is, since the engine's
seccomp profile does not let a process ask for another.
"""

from __future__ import annotations

import contextlib
import errno
import select
import shlex
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from invoke.exceptions import Exit
from msgspec.structs import replace

from slipway import builds, console, cores, engine, gdb, targets
from slipway.builds import DEBUG, Site
from slipway.errors import NO_INPUT, TEMPORARY, USAGE, SlipwayError
from slipway.reading import LOOPBACK
from slipway.records import Record
from slipway.settings import Workshop
from slipway.targets import Program


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
    command = [word for line in gdb.substitutions(s) for word in ("-ex", line)]
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
        program = cores.on_host(cores.executable_of(Path(wish.core)), workshop.root)
        name, made_as, made_for = cores.home_of(program, workshop.out)
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
            found = targets.find_program(s, wish.target, wish.arguments)
    if not server:
        return start(s, gdb.gdb(s, "--args", *found.command), found)
    for line in attach(s, server.getsockname()[1], found):
        console.say(line)
    return serve(s, found, server)


def open_core(s: Site, wish: Wish, program: str) -> None:
    """gdb on a core, with the program as it is: if it were built now, it would be another.

    :param program: what the core says that it is of.
    """
    core = Path(wish.core).resolve()
    if wish.target:
        known = targets.programs(targets.directories(s))
        program = targets.among(wish.target, known)
        if not program:
            raise targets.unknown(wish.target, known, {})
    cores.check_core(s, core, program)
    command, mounts = cores.of_core(s, core, program)
    start(s, command, Program((), mounts=tuple(mounts)))


def start(s: Site, command: Sequence[str], program: Program, wire: int = -1) -> None:
    """Run a debugger for a person, or for what they pipe into it.

    :param wire: what it reads and writes instead.
    """
    lacking = gdb.lacks(s, command[0])
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
        capabilities=gdb.CAPABILITIES,
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

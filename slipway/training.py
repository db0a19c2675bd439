"""A job of several nodes on this machine: containers of one image, on a network of their own.

Their names, ranks and environment are those that the job has on a cluster (``slipway.ranks``), and
in each runs the same ``scripts/launch``, which waits for the others and ends with them.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import re
import shlex
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from slipway import applications, console, engine, outputs, processes, ranks
from slipway.applications import Application
from slipway.engine import Job, Mount
from slipway.errors import TEMPORARY, UNAVAILABLE, USAGE, SlipwayError
from slipway.records import Record
from slipway.settings import Workshop

RUNS = "train"  # below out/: what jobs write; `clean` spares it
LEAST = 400_000_000  # bytes of a process: importing a framework takes most of that
WAIT_S = 5  # so long a container may take to end after its last word
NOTICE_S = 8  # nodes that have not ended so long after the first that failed are killed
STOP_S = 8  # and those that are asked to end
LAST_LINES = 12
OWN_FAILURE = re.compile(r"launch: process \d+ \(rank \d+\) ")  # what scripts/launch says of it
KILLED = 128 + 9  # SIGKILL, which is no name on every system
# The last line of scripts/launch.
SUMMARY = re.compile(r"launch: node \d+ .* after ([\d.]+ s): CPU ([\d.]+ s), memory (\d+ MB)$")


class Wanted(Record, frozen=True):
    """What the command line says."""

    directory: str = ""
    nodes: int = 2
    procs: int = 1
    restarts: int = 0
    memory: str = ""
    variant: str = ""
    project: str = ""
    source: str = ""
    arguments: tuple[str, ...] = ()

    def typed(self, **changes: Any) -> str:
        """The same command with other flags, to be pasted."""
        wanted = replace(self, **changes)
        words = ["invoke", "train", "--dir", wanted.directory, "--nodes", str(wanted.nodes)]
        for name in ("procs", "restarts", "memory", "variant", "project", "source"):
            value = getattr(wanted, name)
            if value != getattr(Wanted(), name):
                words += [f"--{name}", str(value)]
        return shlex.join([*words, *(["--", *wanted.arguments] if wanted.arguments else [])])


class Run(Record, frozen=True):
    """A job, through all its restarts."""

    workshop: Workshop
    wanted: Wanted
    application: str
    name: str
    """``digits-20261125-020455``."""
    image: str
    memory: int
    """Bytes that a node may take."""

    @property
    def nodes(self) -> int:
        """How many."""
        return self.wanted.nodes

    @property
    def out(self) -> Path:
        """What the job writes."""
        return self.workshop.out / RUNS / self.name

    @property
    def hosts(self) -> list[str]:
        """The nodes' names."""
        return ranks.names(self.application, self.nodes, self.application)

    @property
    def network(self) -> str:
        """The network's name."""
        return f"slipway-{self.workshop.checkout}-train-{self.name}"

    @property
    def containers(self) -> list[str]:
        """The containers' names, in rank order."""
        checkout = self.workshop.checkout
        return [engine.container_name(self.job(rank), checkout) for rank in range(self.nodes)]

    def title(self, rank: int) -> str:
        """How a node is spoken of."""
        return f"node {rank} ({ranks.names(self.application, self.nodes)[rank]})"

    def job(self, rank: int) -> Job:
        """One node."""
        return Job(
            name=f"train-{self.name}-{rank}",
            command=applications.command(self.wanted.arguments),
            mounts=[
                Mount(self.out, target=ranks.OUT),
                # An image by a Dockerfile of its own need not have it.
                Mount(self.workshop.scripts / "launch", target=ranks.LAUNCH, readonly=True),
            ],
            env=ranks.environment(
                str(rank), self.hosts, port=ranks.PORT, procs=self.wanted.procs, wait_s=ranks.WAIT_S
            ),
            workdir=ranks.OUT,
            private=self.network,
            host=self.hosts[rank],
            memory=self.memory,
            shm_size=self.workshop.settings.shm_size,
            stays=True,
        )


class End(Record, frozen=True):
    """How a node ended."""

    rank: int
    status: int
    out_of_memory: bool = False
    by_us: bool = False
    """It did not end with the others, and was killed."""
    said: tuple[str, ...] = ()
    """The last of it."""

    @property
    def failed_itself(self) -> bool:
        """Whether its launcher says so: a program may have a status that is the launcher's too."""
        return any(OWN_FAILURE.match(line) for line in self.said)


# -- deciding


def check(wanted: Wanted) -> None:
    """Refuse numbers that make no job."""
    for flag, value, least in (
        ("nodes", wanted.nodes, 1),
        ("procs", wanted.procs, 1),
        ("restarts", wanted.restarts, 0),
    ):
        if value < least:
            raise SlipwayError(
                f"--{flag} {value}: it has to be {least} at least",
                fix=[wanted.typed(**{flag: least})],
                code=USAGE,
            )


def counted(number: int, one: str, several: str = "") -> str:
    """``1 node``, ``2 nodes``."""
    return f"{number} {one if number == 1 else several or one + 's'}"


def memory_of(available: int, wanted: Wanted) -> int:
    """Bytes that each node may take: what is asked for, else an equal share of nine tenths of all.

    :param available: bytes that there are.
    """
    asked = console.parse_size(wanted.memory, wanted.typed(memory="2GB")) if wanted.memory else 0
    if wanted.memory and not asked:
        raise SlipwayError(
            f"--memory {wanted.memory}: no program runs in that",
            fix=[wanted.typed(memory="2GB")],
            code=USAGE,
        )
    usable = available * 9 // 10
    least = asked or LEAST * wanted.procs
    if wanted.nodes * least <= usable:
        return asked or usable // wanted.nodes
    fit = usable // least
    source = "--memory says so" if asked else "what its processes need at the least"
    raise SlipwayError(
        f"{counted(wanted.nodes, 'node')} would need more memory than there is: "
        f"{console.megabytes(wanted.nodes * least)} of {console.megabytes(usable)}",
        cause=f"{console.megabytes(least)} for each node: {source}",
        fix=[wanted.typed(nodes=fit) if fit else smallest(usable, wanted)],
        code=UNAVAILABLE,
    )


def smallest(usable: int, wanted: Wanted) -> str:
    """The command of a job that fits, where not even one node as it was wanted does."""
    procs = min(wanted.procs, max(1, usable // LEAST))
    return wanted.typed(nodes=1, procs=procs, memory="")


def guilty(ends: Sequence[End]) -> End | None:
    """The node that made the others end, of those that ended in this order; None: all is well.

    What is killed says nothing, while a neighbour that loses its connection may fail of that with a
    status of its own, and be gone first.
    """

    def rank(end: End) -> int:
        if end.by_us or (end.status == UNAVAILABLE and not end.failed_itself):
            return 3  # with the others
        if end.out_of_memory:
            return 0
        return 1 if end.status == KILLED else 2

    return min((end for end in ends if end.status), key=rank, default=None)


def how(end: End) -> str:
    """How a node ended, after its name."""
    if end.out_of_memory:
        return "ran out of memory"
    known = [s for s in signal.Signals if s == end.status - 128]
    if known:
        return f"was ended by {known[0].name}"
    return f"ended with status {end.status}"


def verdict(run: Run, end: End) -> SlipwayError:
    """The error of a job that a node has ended."""
    again = run.wanted.typed(restarts=run.wanted.restarts + 1)
    what = how(end)
    if end.out_of_memory:
        what += f": it may take {console.megabytes(run.memory)}"
        again = run.wanted.typed(memory=f"{2 * run.memory // 10**6}MB")
    elif end.failed_itself:
        pass
    elif end.status == TEMPORARY:
        what += ": the nodes did not all come together"
    elif end.status == UNAVAILABLE:
        what += ": it lost another node, of which none has failed by itself"
    shown = console.shown(run.out, run.workshop.root)
    said = [line for line in end.said if not SUMMARY.search(line)]
    return SlipwayError(
        f"{run.title(end.rank)} {what}",
        cause="\n".join(["it said at last:", *said] if said else ["it said nothing"]),
        fix=[again, f"ls {shlex.quote(shown)}, which has what was written"],
        code=end.status,
    )


def rows(run: Run, ends: Sequence[End]) -> list[list[str]]:
    """The summary: what each node took, as its launcher says in its last line."""
    table = [["NODE", "STATUS", "TOOK", "CPU", "LARGEST PROCESS"]]
    for end in sorted(ends, key=lambda end: end.rank):
        found = [SUMMARY.search(line) for line in end.said]
        took = next(([*match.groups()] for match in found if match), ["-", "-", "-"])
        table.append([run.title(end.rank), str(end.status), *took])
    return table


def end_of(rank: int, state: Mapping[str, Any], said: Sequence[str], *, by_us: bool) -> End:
    """How a container ended, from the engine's words.

    :param by_us: we had killed what had not ended.
    """
    status, memory = int(state["ExitCode"]), bool(state.get("OOMKilled"))
    return End(rank, status, memory, by_us and status == KILLED, tuple(said))


# -- acting


def prepare(workshop: Workshop, wanted: Wanted, application: Application, memory: int) -> Run:
    """The run, with its image made and its directory there."""
    image = applications.ensure_app(
        workshop, application, wanted.variant, wanted.project, wanted.source
    )
    stamp = f"{application.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    name = stamp if workshop.dry else claim(outputs.make(workshop.out / RUNS, workshop.out), stamp)
    return Run(
        workshop=workshop,
        wanted=wanted,
        application=application.name,
        name=name,
        image=image.tag,
        memory=memory,
    )


def claim(top: Path, name: str) -> str:
    """Make a directory of this name, or of the next that nobody has."""
    for number in itertools.count(1):
        found = name if number == 1 else f"{name}-{number}"
        with contextlib.suppress(FileExistsError):
            (top / found).mkdir()
            return found
    raise AssertionError("numbers have no end")


def connect(run: Run) -> None:
    """Make the network, which has no way out."""
    label = f"{engine.LABEL}={run.workshop.checkout}"
    argv = ["network", "create", "--internal", "--label", label, run.network]
    console.show_command([engine.client(), *argv])
    if not run.workshop.dry:
        engine.ask(argv, "make a network for the nodes")


def disconnect(run: Run) -> None:
    """Take the network away."""
    if not run.workshop.dry:
        engine.remove_network(run.network)


def stop(run: Run) -> None:
    """Ask all nodes to end, and make those that do not."""
    if not run.workshop.dry:
        processes.look([engine.client(), "stop", "-t", str(STOP_S), *run.containers])


def remove(run: Run) -> None:
    """Take the containers away."""
    if not run.workshop.dry:
        engine.remove_container(*run.containers)


def attempt(run: Run) -> list[End]:
    """Start all nodes and show what they say, until all have ended; how they did, in that order."""
    docker = engine.Docker(run.workshop)
    with processes.at_the_end(lambda: remove(run)), processes.undone(lambda: stop(run)):
        for rank in range(run.nodes):
            said = docker.start(run.job(rank), run.image)
            if said:
                raise engine.failure(said, f"start {run.title(rank)}")
        ends = [] if run.workshop.dry else follow(run)
        if ends:
            docker.bring_back(run.containers[0])  # the nodes write to one place
        return ends


def state_of(container: str) -> Mapping[str, Any]:
    """How a container has ended, which may be a moment after it has said its last."""
    processes.look([engine.client(), "wait", container], timeout=WAIT_S)
    found = engine.inspect_container(container)
    if not found:  # removed by somebody
        return {"ExitCode": UNAVAILABLE}
    if found["State"].get("Running"):  # somebody has ended its log, and nobody would hear of it
        processes.look([engine.client(), "kill", container])
        return {"ExitCode": UNAVAILABLE}
    return dict(found["State"])


def follow(run: Run) -> list[End]:
    """Show what the nodes say, each line with its node, until all have ended."""
    names = ranks.names(run.application, run.nodes)
    width = max(map(len, names))
    ends: list[End] = []
    said = [collections.deque[str](maxlen=LAST_LINES) for _ in names]
    commands = [[engine.client(), "logs", "--follow", name] for name in run.containers]
    deadline, killed = float("inf"), False
    with processes.Voices(commands) as voices:
        while len(ends) < run.nodes:
            left = deadline - time.monotonic()
            if left <= 0:  # a launcher that hangs, or was stopped
                processes.look([engine.client(), "kill", *run.containers])
                deadline, killed = float("inf"), True
                continue
            heard = voices.next(None if left == float("inf") else left)
            if heard is None:
                continue
            rank, line = heard
            if line is not None:
                said[rank].append(line)
                console.say(f"{console.coloured(f'{names[rank]:{width}} |', rank)} {line}")
                continue
            state = state_of(run.containers[rank])
            ends.append(end_of(rank, state, said[rank], by_us=killed))
            if ends[-1].status and not killed:
                deadline = min(deadline, time.monotonic() + NOTICE_S)
    return ends


def train(workshop: Workshop, wanted: Wanted) -> None:
    """What ``invoke train`` does."""
    check(wanted)
    application = applications.find(wanted.directory)
    memory = memory_of(engine.memory(), wanted)
    run = prepare(workshop, wanted, application, memory)
    shown = console.shown(run.out, workshop.root)
    console.say(
        f"{application.name} on {counted(wanted.nodes, 'node')}, each of "
        f"{counted(wanted.procs, 'process', 'processes')} and {console.megabytes(memory)}; "
        f"{ranks.OUT} inside is {shown}"
    )
    start = time.monotonic()
    with processes.at_the_end(lambda: disconnect(run)):
        connect(run)
        ends = attempt(run)
        for restart in range(1, wanted.restarts + 1):
            culprit = guilty(ends)
            if not culprit:
                break
            console.say(
                f"{run.title(culprit.rank)} {how(culprit)}: restart {restart} of {wanted.restarts}"
            )
            ends = attempt(run)
    if workshop.dry:
        return
    console.table(rows(run, ends))
    culprit = guilty(ends)
    if culprit:
        raise verdict(run, culprit)
    console.say(
        f"{console.bold('trained')} {application.name} on {counted(run.nodes, 'node')} in {shown}, "
        f"{console.seconds(time.monotonic() - start)}"
    )

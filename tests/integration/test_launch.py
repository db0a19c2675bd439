"""Launchers as real processes, each a node at a loopback address of its own."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from slipway import ranks
from slipway.errors import BAD_CONFIG, CANNOT_CREATE, TEMPORARY, UNAVAILABLE, USAGE
from tests.integration.workbench import ROOT, wait_for

NOTICED_S = 5.0  # a dead node is noticed within
SLEEP = ("sleep", "60")


@dataclass
class Nodes:
    """The launchers of one job."""

    directory: Path
    number: int = 3
    procs: int = 1
    wait_s: int = 20
    running: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)
    port: int = field(default_factory=lambda: free_ports(8))

    @property
    def hosts(self) -> list[str]:
        return [f"127.0.0.{rank + 1}" for rank in range(self.number)]

    def start(self, rank: int, *command: str, **env: str) -> subprocess.Popen[bytes]:
        place = ranks.environment(
            str(rank), self.hosts, port=self.port, procs=self.procs, wait_s=self.wait_s
        )
        with self.log(rank).open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, str(ROOT / "scripts" / "launch"), *command],
                env={**os.environ, **place, **env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.running[rank] = process
        return process

    def start_all(self, *command: str) -> None:
        for rank in range(self.number):
            self.start(rank, *command)

    def log(self, rank: int) -> Path:
        return self.directory / f"{rank}.log"

    def said(self, rank: int) -> str:
        return self.log(rank).read_text()

    def wait_until(self, rank: int, words: str) -> None:
        wait_for(lambda: words in self.said(rank), f"'{words}' of node {rank}")

    def statuses(self, seconds: float = 30) -> list[int]:
        """All of them, in rank order, once they have ended."""
        end = time.monotonic() + seconds
        return [
            process.wait(timeout=max(0.1, end - time.monotonic()))
            for _, process in sorted(self.running.items())
        ]


def free_ports(number: int) -> int:
    """The first of so many ports in a row that nobody listens at; below those that clients get."""
    for _ in range(100):
        first = random.randrange(20000, 30000)  # noqa: S311  # of no importance
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(first, first + number):
                stack.enter_context(socket.create_server(("", port)))
            return first
    raise AssertionError("no ports are free")


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    made = Nodes(tmp_path)
    yield made
    for process in made.running.values():
        with contextlib.suppress(ProcessLookupError):
            process.terminate()  # what it has started is its own to end
    for process in made.running.values():
        process.wait(timeout=20)


def is_alive(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


# -- coming together


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_nodes_start_in_any_order_and_each_is_told_its_place(
    nodes: Nodes, order: tuple[int, ...]
) -> None:
    nodes.procs = 2
    for rank in order:
        nodes.start(rank, "sh", "-c", "echo I am $RANK of $WORLD_SIZE, $LOCAL_RANK here")
    assert nodes.statuses() == [0, 0, 0]
    for rank in range(3):
        found = set(re.findall(r"I am (\d) of 6, (\d) here", nodes.said(rank)))
        assert found == {(str(2 * rank), "0"), (str(2 * rank + 1), "1")}


def test_several_processes_of_a_node_do_not_mix_their_lines(nodes: Nodes) -> None:
    nodes.number, nodes.procs = 1, 4
    program = "import os\nfor n in range(200):\n    print('line', n, 'of', os.environ['RANK'])"
    nodes.start(0, sys.executable, "-c", program)
    assert nodes.statuses() == [0]
    lines = [line for line in nodes.said(0).splitlines() if not line.startswith("launch: ")]
    assert sorted(lines) == sorted(f"line {n} of {rank}" for n in range(200) for rank in range(4))


def test_a_node_may_be_late(nodes: Nodes) -> None:
    nodes.start(1, "true")
    nodes.start(0, "true")
    time.sleep(3)
    assert all(process.poll() is None for process in nodes.running.values())
    nodes.start(2, "true")
    assert nodes.statuses() == [0, 0, 0]


def test_a_node_that_went_away_before_all_were_there_may_come_again(nodes: Nodes) -> None:
    nodes.start(0, "true")
    first = nodes.start(1, "true")
    time.sleep(1)
    first.kill()
    first.wait()
    nodes.start(1, "true")
    nodes.start(2, "true")
    assert nodes.statuses() == [0, 0, 0]


def test_who_only_knocks_does_not_disturb(nodes: Nodes) -> None:
    nodes.start(0, "true")
    connect = ("127.0.0.1", nodes.port)

    def knock() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(connect, timeout=1) as client:
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            return True
        return False

    wait_for(knock, "node 0 listens")
    knock()
    nodes.start(1, "true")
    nodes.start(2, "true")
    assert nodes.statuses() == [0, 0, 0]


def test_one_node_alone_waits_for_nobody(nodes: Nodes) -> None:
    nodes.number, nodes.procs = 1, 2
    nodes.start(0, "sh", "-c", "echo $PADDLE_TRAINER_ID $PADDLE_MASTER")
    assert nodes.statuses() == [0]
    assert f"1 127.0.0.1:{nodes.port + 1}" in nodes.said(0)


# -- not coming together


def test_a_first_node_that_never_comes_is_named_and_why(nodes: Nodes) -> None:
    nodes.wait_s = 2
    nodes.start(1, *SLEEP)
    assert nodes.statuses() == [TEMPORARY]
    said = nodes.said(1)
    assert f"node 0 (127.0.0.1) did not answer at port {nodes.port} within 2 s" in said
    assert "nobody listens" in said


def test_a_name_that_nobody_knows_is_said_to_be_unknown(nodes: Nodes) -> None:
    nodes.wait_s = 1
    nodes.start(1, *SLEEP, SLIPWAY_HOSTS="digits-0.invalid,127.0.0.2,127.0.0.3")
    assert nodes.statuses() == [TEMPORARY]
    assert "node 0 (digits-0.invalid)" in nodes.said(1)
    assert "its name is not known" in nodes.said(1)


def test_all_are_told_who_is_missing(nodes: Nodes) -> None:
    nodes.wait_s = 2
    nodes.number = 4
    nodes.start(0, *SLEEP)
    nodes.start(2, *SLEEP)
    assert nodes.statuses() == [TEMPORARY, TEMPORARY]
    for rank in (0, 2):
        assert "not there within 2 s: node 1 (127.0.0.2), node 3 (127.0.0.4)" in nodes.said(rank)


@pytest.mark.parametrize("offset", [0, 1, 2])
def test_a_port_that_is_taken_is_named_before_anything_runs(nodes: Nodes, offset: int) -> None:
    with socket.create_server(("127.0.0.1", nodes.port + offset)):
        nodes.start(0, "sh", "-c", "echo ran")
        assert nodes.statuses() == [CANNOT_CREATE]
    said = nodes.said(0)
    assert f"port {nodes.port + offset} of node 0 (127.0.0.1) cannot be used" in said
    assert "Address already in use" in said
    assert "ran" not in said


def test_a_second_node_of_one_number_is_refused(nodes: Nodes) -> None:
    nodes.start(0, *SLEEP)
    first = nodes.start(1, *SLEEP)
    time.sleep(1)
    second = nodes.start(1, *SLEEP)
    assert second.wait(timeout=10) == BAD_CONFIG
    assert "there is a node 1 (127.0.0.2) already" in nodes.said(1)
    assert first.poll() is None
    first.terminate()
    assert first.wait(timeout=10) == 128 + signal.SIGTERM


def test_variables_that_are_missing_and_a_command_that_is_are_said(nodes: Nodes) -> None:
    nodes.number = 1
    nodes.start(0, "true", SLIPWAY_RANK="")
    assert nodes.statuses() == [BAD_CONFIG]
    assert "SLIPWAY_RANK is not set" in nodes.said(0)
    nodes.start(0)
    assert nodes.statuses() == [USAGE]
    nodes.start(0, "no-such-program")
    assert nodes.statuses() == [127]
    assert "cannot run no-such-program: No such file or directory" in nodes.said(0)


# -- ending together


def test_a_process_that_fails_ends_all_nodes_and_its_status_is_its_node_s(nodes: Nodes) -> None:
    nodes.procs = 2
    start = time.monotonic()
    nodes.start(0, *SLEEP)
    nodes.start(1, "sh", "-c", "sleep 1; test $LOCAL_RANK = 0 || exit 7; sleep 60")
    nodes.start(2, *SLEEP)
    assert nodes.statuses() == [UNAVAILABLE, 7, UNAVAILABLE]
    assert time.monotonic() - start < 1 + NOTICED_S
    assert "process 1 (rank 3) ended with status 7" in nodes.said(1)
    for rank in (0, 2):
        assert "node 1 (127.0.0.2): process 1 (rank 3) ended with status 7" in nodes.said(rank)


@pytest.mark.parametrize("guilty", [0, 1])
def test_a_process_that_is_killed_is_told_from_one_that_fails(nodes: Nodes, guilty: int) -> None:
    nodes.number = 2
    nodes.start(guilty, "sh", "-c", "sleep 1; kill -9 $$")
    nodes.start(1 - guilty, *SLEEP)
    assert nodes.statuses()[guilty] == 128 + signal.SIGKILL
    assert f"process 0 (rank {guilty}) was killed by SIGKILL" in nodes.said(1 - guilty)


@pytest.mark.parametrize("guilty", [0, 1])
def test_a_node_whose_launcher_is_killed_is_noticed_by_all_others(
    nodes: Nodes, guilty: int
) -> None:
    for rank in range(3):
        nodes.start(rank, "sh", "-c", "echo running $$; exec sleep 60")
    for rank in range(3):
        nodes.wait_until(rank, "running")
    start = time.monotonic()
    nodes.running[guilty].kill()
    statuses = nodes.statuses()
    assert time.monotonic() - start < NOTICED_S
    assert statuses[guilty] == -signal.SIGKILL
    others = [rank for rank in range(3) if rank != guilty]
    assert [statuses[rank] for rank in others] == [UNAVAILABLE, UNAVAILABLE]
    for rank in others:
        assert f"node {guilty} (127.0.0.{guilty + 1}) is gone" in nodes.said(rank)
        (pid,) = re.findall(r"running (\d+)", nodes.said(rank))
        assert not is_alive(int(pid))
    (orphan,) = re.findall(r"running (\d+)", nodes.said(guilty))
    os.kill(int(orphan), signal.SIGKILL)  # in a container it would go with it


def test_a_process_that_does_not_listen_is_killed_and_what_it_started_too(nodes: Nodes) -> None:
    nodes.number = 2
    nodes.start(0, "sh", "-c", "trap '' TERM; sleep 60 & echo child $!; sleep 60; sleep 60")
    nodes.start(1, "sh", "-c", "sleep 1; exit 3")
    start = time.monotonic()
    assert nodes.statuses() == [UNAVAILABLE, 3]
    assert time.monotonic() - start < 1 + NOTICED_S
    (pid,) = re.findall(r"child (\d+)", nodes.said(0))
    wait_for(lambda: not is_alive(int(pid)), "what it started is gone")


SAVES = """\
import signal, sys, time
def save(*_):
    print("asked to end", flush=True)
    time.sleep(1)
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
print("ready", flush=True)
time.sleep(60)
"""


def test_a_program_that_saves_is_asked_to_end_once(nodes: Nodes) -> None:
    for rank in (0, 1):
        nodes.start(rank, sys.executable, "-c", SAVES)
    nodes.start(2, "sh", "-c", "sleep 2; exit 3")
    assert nodes.statuses() == [UNAVAILABLE, UNAVAILABLE, 3]
    assert [nodes.said(rank).count("asked to end") for rank in (0, 1)] == [1, 1]


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_one_node_is_passed_on_and_ends_the_job(
    nodes: Nodes, signum: signal.Signals
) -> None:
    script = "trap 'echo heard; exit 0' TERM INT HUP; echo ready; while :; do sleep 0.1; done"
    nodes.start_all("sh", "-c", script)
    for rank in range(3):
        nodes.wait_until(rank, "ready")
    nodes.running[1].send_signal(signum)
    assert nodes.statuses() == [UNAVAILABLE, 128 + signum, UNAVAILABLE]
    for rank in range(3):
        assert "heard" in nodes.said(rank)
    assert f"node 1 (127.0.0.2) was stopped by {signum.name}" in nodes.said(2)


def test_other_signals_are_passed_on_and_nothing_ends(nodes: Nodes) -> None:
    nodes.number = 1
    script = "trap 'echo heard; exit 0' USR1; echo ready; while :; do sleep 0.1; done"
    nodes.start(0, "sh", "-c", script)
    nodes.wait_until(0, "ready")
    nodes.running[0].send_signal(signal.SIGUSR1)
    assert nodes.statuses() == [0]
    assert "heard" in nodes.said(0)


def test_a_signal_ends_a_node_that_still_waits(nodes: Nodes) -> None:
    nodes.start(1, *SLEEP)
    nodes.start(0, *SLEEP)
    time.sleep(1)
    for process in nodes.running.values():
        process.terminate()
    assert nodes.statuses(10) == [143, 143]


def test_the_first_node_may_be_done_before_the_others_and_still_tells_of_a_failure(
    nodes: Nodes,
) -> None:
    nodes.start(0, "true")
    nodes.start(1, *SLEEP)
    nodes.start(2, "sh", "-c", "sleep 2; exit 5")
    assert nodes.statuses() == [UNAVAILABLE, UNAVAILABLE, 5]
    assert "node 2 (127.0.0.3): process 0 (rank 2) ended with status 5" in nodes.said(1)


def test_a_node_that_is_done_stays_for_the_others_and_fails_with_them(nodes: Nodes) -> None:
    """On a cluster it would be one that has succeeded, and does not start again with the rest."""
    nodes.number = 2
    nodes.start(0, "sh", "-c", "sleep 2; exit 5")
    nodes.start(1, "true")
    assert nodes.statuses() == [5, UNAVAILABLE]


def test_the_last_line_says_what_it_took(nodes: Nodes) -> None:
    nodes.number = 1
    nodes.start(0, sys.executable, "-c", "b = bytearray(80_000_000); [i for i in range(10**7)]")
    assert nodes.statuses() == [0]
    last = nodes.said(0).splitlines()[-1]
    found = re.search(r"ends with status 0 after [\d.]+ s: CPU ([\d.]+) s, memory (\d+) MB", last)
    assert found, last
    assert float(found[1]) > 0.1
    assert 80 < int(found[2]) < 1000


def test_nothing_listens_any_more_once_all_are_there(nodes: Nodes) -> None:
    nodes.number = 2
    nodes.start_all(*SLEEP)
    nodes.wait_until(0, "all 2 nodes are there")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", nodes.port), timeout=2)

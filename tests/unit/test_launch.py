"""The launcher of a node, as far as it decides: its place, what is told and said."""

from __future__ import annotations

import re
import runpy
import socket
from typing import Any

import pytest

from slipway import errors, ranks
from slipway.settings import ROOT

LAUNCH: dict[str, Any] = runpy.run_path(str(ROOT / "scripts" / "launch"))
HOSTS = ["digits-0.digits", "digits-1.digits", "digits-2.digits"]


def seat(rank: int = 1, *, procs: int = 2, changes: dict[str, str] | None = None) -> Any:
    environ = ranks.environment(str(rank), HOSTS, port=7000, procs=procs, wait_s=9)
    return LAUNCH["seat_of"]({**environ, **(changes or {})})


def test_nodes_are_named_as_on_a_cluster() -> None:
    assert ranks.names("digits", 2) == ["digits-0", "digits-1"]
    assert ranks.names("digits", 3, "digits") == HOSTS


def test_the_launcher_reads_what_the_table_says() -> None:
    found = seat()
    assert (found.rank, list(found.hosts), found.port) == (1, HOSTS, 7000)
    assert (found.procs, found.wait_s, found.world) == (2, 9, 6)


def test_a_cluster_and_this_machine_differ_in_the_rank_alone() -> None:
    local = ranks.environment("2", HOSTS, port=1, procs=1, wait_s=1)
    cluster = ranks.environment("$(JOB_COMPLETION_INDEX)", HOSTS, port=1, procs=1, wait_s=1)
    differing = {name for name in local if local[name] != cluster[name]}
    assert differing == {"SLIPWAY_RANK"}


def told(rank: int, local: int, *, procs: int = 2, gpus: int = 0) -> dict[str, str]:
    return dict(LAUNCH["variables"](seat(rank, procs=procs), local, gpus=gpus))


def test_a_process_is_told_its_place_in_the_words_of_paddle_and_of_the_others() -> None:
    found = told(2, 1)
    assert found["RANK"] == found["PADDLE_TRAINER_ID"] == "5"
    assert found["WORLD_SIZE"] == found["PADDLE_TRAINERS_NUM"] == "6"
    assert found["LOCAL_RANK"] == "1"
    assert (found["MASTER_ADDR"], found["MASTER_PORT"]) == ("digits-0.digits", "7001")
    assert found["PADDLE_MASTER"] == "digits-0.digits:7001"
    assert found["PADDLE_DISTRI_BACKEND"] == "gloo"
    assert "FLAGS_selected_gpus" not in found


def test_every_process_of_the_job_has_an_endpoint_of_its_own_and_all_know_all() -> None:
    every = [told(rank, local) for rank in range(3) for local in range(2)]
    endpoints = [found["PADDLE_CURRENT_ENDPOINT"] for found in every]
    assert endpoints[:3] == ["digits-0.digits:7002", "digits-0.digits:7003", "digits-1.digits:7002"]
    assert {found["PADDLE_TRAINER_ENDPOINTS"] for found in every} == {",".join(endpoints)}
    assert [found["PADDLE_TRAINER_ID"] for found in every] == [str(n) for n in range(6)]
    # Neither the launcher's port nor that of the store.
    assert not {f"{HOSTS[0]}:{port}" for port in (7000, 7001)} & set(endpoints)


def test_with_gpus_processes_take_one_each_in_turn() -> None:
    found = [told(0, local, procs=3, gpus=2) for local in range(3)]
    assert [one["FLAGS_selected_gpus"] for one in found] == ["0", "1", "0"]
    assert {one["PADDLE_DISTRI_BACKEND"] for one in found} == {"nccl"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"SLIPWAY_RANK": ""}, "SLIPWAY_RANK is not set"),
        ({"SLIPWAY_RANK": "$(INDEX)"}, "SLIPWAY_RANK is '$(INDEX)', which is no number"),
        ({"SLIPWAY_RANK": "3"}, "SLIPWAY_RANK is 3, and the last of 3 is node 2"),
        ({"SLIPWAY_RANK": "-1"}, "SLIPWAY_RANK is '-1', which is no number"),
        ({"SLIPWAY_NODES": "4"}, "SLIPWAY_HOSTS names 3 nodes, SLIPWAY_NODES says 4"),
        ({"SLIPWAY_HOSTS": "", "SLIPWAY_NODES": "0"}, "SLIPWAY_HOSTS names 0 nodes"),
        ({"SLIPWAY_PROCS": "0"}, "SLIPWAY_PROCS is 0"),
        ({"SLIPWAY_PORT": "65534"}, "SLIPWAY_PORT is 65534: no such ports follow"),
        ({"SLIPWAY_PORT": "0"}, "SLIPWAY_PORT is 0: no such ports follow"),
    ],
)
def test_variables_that_make_no_sense_are_refused(changes: dict[str, str], words: str) -> None:
    with pytest.raises(LAUNCH["Problem"]) as caught:
        seat(changes=changes)
    assert words in str(caught.value)
    assert caught.value.status == errors.BAD_CONFIG


def test_the_last_ports_of_a_machine_may_be_used() -> None:
    assert seat(changes={"SLIPWAY_PORT": "65532"}).port == 65532  # and two, and that of the store


def test_who_is_missing_is_named() -> None:
    assert LAUNCH["absent"](seat(), [0, 2]) == "node 1 (digits-1.digits)"
    assert LAUNCH["absent"](seat(), [1]) == "node 0 (digits-0.digits), node 2 (digits-2.digits)"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (socket.gaierror(-2, "Name or service not known"), "its name is not known"),
        (ConnectionRefusedError(111, "refused"), "nobody listens"),
        (TimeoutError("timed out"), "no answer"),
        (OSError(113, "No route to host"), "No route to host"),
    ],
)
def test_why_the_first_node_does_not_answer_is_said(error: OSError, words: str) -> None:
    assert words in LAUNCH["reason"](error)


def test_how_a_process_ended_is_said_with_its_rank() -> None:
    assert LAUNCH["ending"](seat(2), 1, -9) == "process 1 (rank 5) was killed by SIGKILL"
    assert LAUNCH["ending"](seat(2), 0, 3) == "process 0 (rank 4) ended with status 3"
    assert (LAUNCH["shell_status"](-9), LAUNCH["shell_status"](3)) == (137, 3)


def test_the_launcher_s_statuses_are_ours() -> None:
    for name in ("USAGE", "UNAVAILABLE", "CANNOT_CREATE", "TEMPORARY", "BAD_CONFIG"):
        assert LAUNCH[name] == getattr(errors, name)
        assert re.search(rf"\b{LAUNCH[name]}\b", LAUNCH["__doc__"]), name


# -- what launchers say to each other


class Sent:
    """A connection that is only listened to."""

    def __init__(self, *blocks: bytes) -> None:
        self.blocks = list(blocks)
        self.sent = b""
        self.closed = False

    def settimeout(self, _: float) -> None: ...
    def setsockopt(self, *_: int) -> None: ...
    def sendall(self, block: bytes) -> None:
        self.sent += block

    def recv(self, _: int) -> bytes:
        return self.blocks.pop(0)

    def close(self) -> None:
        self.closed = True


def test_messages_may_arrive_in_pieces_and_together() -> None:
    wire = LAUNCH["Wire"](Sent(b'{"go"', b': true}\n{"failed": "x"}\n', b""))
    assert wire.receive() == []
    assert wire.receive() == [{"go": True}, {"failed": "x"}]
    assert wire.receive() is None


@pytest.mark.parametrize("block", [b"GET / HTTP/1.1\r\n\r\n", b"[1]\n", b"x" * (1 << 16)])
def test_who_speaks_otherwise_is_no_launcher(block: bytes) -> None:
    assert LAUNCH["Wire"](Sent(block)).receive() is None


@pytest.mark.parametrize(
    ("hello", "words"),
    [
        ({"rank": 1, "nodes": 4}, b"node 0 is one of 3, this is node 1 of 4"),
        ({"rank": 0, "nodes": 3}, b"this is node 0 of 3"),
        ({"rank": 3, "nodes": 3}, b"this is node 3 of 3"),
        ({"rank": "1", "nodes": 3}, b"this is node 1 of 3"),
        ({}, b"this is node None of None"),
    ],
)
def test_who_does_not_belong_to_the_job_gets_no_place(hello: dict[str, Any], words: bytes) -> None:
    connection = Sent()
    here: dict[int, Any] = {}
    LAUNCH["seated"](seat(0), LAUNCH["Wire"](connection), hello, here)
    assert words in connection.sent
    assert connection.closed
    assert here == {}


def test_a_place_is_given_once() -> None:
    first, second = LAUNCH["Wire"](Sent()), LAUNCH["Wire"](Sent())
    here: dict[int, Any] = {}
    LAUNCH["seated"](seat(0), first, {"rank": 1, "nodes": 3}, here)
    LAUNCH["seated"](seat(0), second, {"rank": 1, "nodes": 3}, here)
    assert here == {1: first}
    assert b"there is a node 1 (digits-1.digits) already" in second.connection.sent

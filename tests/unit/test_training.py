"""A job of several nodes: which containers, how much memory, who is guilty, and what is said."""

from __future__ import annotations

import runpy
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from slipway import applications, engine, housekeeping, ranks, training
from slipway.engine import Caller, run_arguments
from slipway.errors import TEMPORARY, UNAVAILABLE, USAGE, SlipwayError
from slipway.settings import ROOT
from slipway.training import End, Run, Wanted
from tests.unit.fakes import make_workshop

GB = 10**9
LAUNCH: dict[str, Any] = runpy.run_path(str(ROOT / "scripts" / "launch"))


def make_run(root: Path, **changes: Any) -> Run:
    values: dict[str, Any] = {
        "workshop": make_workshop(root),
        "application": "digits",
        "name": "digits-20261125-020455",
        "image": "slipway-c-digits-app:1",
        "wanted": Wanted("digits", 4, 2, arguments=("--epochs", "3", "a b")),
        "memory": 2 * GB,
    }
    return Run(**{**values, **changes})


def arguments(run: Run, rank: int) -> list[str]:
    return run_arguments(
        run.job(rank),
        run.image,
        checkout="c",
        root=run.workshop.root,
        user=Caller(1000, 1000, "ann"),
        identity=run.workshop.root,
        terminal=False,
    )


# -- the containers


def test_a_node_runs_the_launcher_in_the_application_s_image(tmp_path: Path) -> None:
    argv = arguments(make_run(tmp_path), 1)
    command = [ranks.LAUNCH, "python", "/app/train.py", "--epochs", "3", "a b"]
    assert argv[argv.index("slipway-c-digits-app:1") + 1 :] == command
    assert applications.derived(["train.py"]).count(f"/launch {ranks.LAUNCH}\n") == 1


def test_a_node_is_called_as_on_a_cluster_and_reaches_the_others_only(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    argv = arguments(run, 3)
    for words in (
        ("--network", run.network),
        ("--network-alias", "digits-3.digits"),
        ("--hostname", "digits-3"),
        ("--env", "SLIPWAY_RANK=3"),
        ("--env", "SLIPWAY_NODES=4"),
        ("--env", "SLIPWAY_PROCS=2"),
        (
            "--env",
            "SLIPWAY_HOSTS=digits-0.digits,digits-1.digits,digits-2.digits,digits-3.digits",
        ),
    ):
        assert words in list(pairwise(argv)), words
    assert argv.count("--network") == 1
    assert "--publish" not in argv


def test_what_a_node_writes_belongs_to_the_caller_and_lies_in_out(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    argv = arguments(run, 0)
    source = tmp_path / "out" / "train" / "digits-20261125-020455"
    for words in (
        ("--mount", f"type=bind,source={source},target=/work"),
        ("--workdir", "/work"),
        ("--user", "1000:1000"),
    ):
        assert words in list(pairwise(argv)), words


def test_memory_is_limited_and_swap_is_no_way_around_it(tmp_path: Path) -> None:
    argv = arguments(make_run(tmp_path), 0)
    for words in (("--memory", str(2 * GB)), ("--memory-swap", str(2 * GB))):
        assert words in list(pairwise(argv)), words
    assert ("--shm-size", "1g") in list(pairwise(argv))


def test_containers_can_be_looked_at_when_they_have_ended_and_have_names_of_their_own(
    tmp_path: Path,
) -> None:
    run = make_run(tmp_path)
    assert "--rm" not in arguments(run, 0)
    names = [engine.container_name(run.job(rank), run.workshop.checkout) for rank in range(4)]
    assert run.containers == names
    assert len(set(names)) == 4


# -- what is asked for


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"nodes": 0}, "--nodes 0: it has to be 1 at least"),
        ({"nodes": -3}, "--nodes -3"),
        ({"procs": 0}, "--procs 0"),
        ({"restarts": -1}, "--restarts -1: it has to be 0 at least"),
    ],
)
def test_numbers_that_make_no_job_are_refused(changes: dict[str, int], words: str) -> None:
    with pytest.raises(SlipwayError) as caught:
        training.check(Wanted(**changes))  # type: ignore[arg-type]
    assert words in caught.value.what
    assert caught.value.code == USAGE


def test_one_node_and_no_restarts_are_a_job() -> None:
    training.check(Wanted(nodes=1, procs=1, restarts=0))


def test_nodes_share_what_memory_there_is_unless_more_or_less_is_asked_for() -> None:
    assert training.memory_of(10 * GB, Wanted(nodes=3)) == 3 * GB
    assert training.memory_of(10 * GB, Wanted(nodes=3, memory="1GB")) == GB
    assert training.memory_of(10 * GB, Wanted(nodes=9, memory="1GB")) == GB
    assert training.memory_of(10 * GB, Wanted(nodes=1)) == 9 * GB


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (Wanted("d", 10, memory="1GB"), ["10 nodes", "10000.0 MB of 9000.0 MB", "--nodes 9"]),
        (Wanted("d", 23), ["23 nodes", "400.0 MB for each node", "at the least", "--nodes 22"]),
        (Wanted("d", 12, 2), ["800.0 MB for each node", "--nodes 11 --procs 2"]),
        (Wanted("d", 1, 64), ["25600.0 MB for each node", "--nodes 1 --procs 22"]),
        (Wanted("d", 1, memory="20GB"), ["1 node would", "--memory says so", "--nodes 1'"]),
    ],
)
def test_more_nodes_than_the_memory_allows_are_refused_and_how_many_fit_is_said(
    wanted: Wanted, words: list[str]
) -> None:
    with pytest.raises(SlipwayError) as caught:
        training.memory_of(10 * GB, wanted)
    said = f"{caught.value.what} {caught.value.cause} {caught.value.fix}"
    assert [word for word in words if word not in said] == []
    assert caught.value.code == UNAVAILABLE


def test_no_memory_at_all_is_no_wish_for_the_default() -> None:
    with pytest.raises(SlipwayError, match="--memory 0"):
        training.memory_of(10 * GB, Wanted("d", memory="0"))


def test_a_program_s_own_status_is_not_explained_as_the_launcher_s(tmp_path: Path) -> None:
    error = training.verdict(make_run(tmp_path), End(1, 75, said=(OWN.replace("69", "75"),)))
    assert "ended with status 75" in error.what
    assert "come together" not in error.what


def test_a_command_to_paste_has_what_was_typed_and_what_is_to_be_changed() -> None:
    wanted = Wanted("a b", 3, procs=2, memory="1GB", arguments=("--epochs", "it's"))
    assert wanted.typed(memory="2GB", restarts=1) == (
        "invoke train --dir 'a b' --nodes 3 --procs 2 --restarts 1 --memory 2GB "
        "-- --epochs 'it'\"'\"'s'"
    )
    assert Wanted("d").typed() == "invoke train --dir d --nodes 2"


# -- how it ended


def test_a_job_whose_nodes_all_end_well_has_no_guilty_one() -> None:
    assert training.guilty([End(0, 0), End(1, 0)]) is None


OWN = "launch: process 0 (rank 1) ended with status 69"


@pytest.mark.parametrize(
    ("ends", "rank"),
    [
        ([End(2, 137), End(0, 69), End(1, 69)], 2),
        ([End(0, 69), End(2, 7), End(1, 69)], 2),  # it waited for its own other processes
        ([End(1, 75), End(0, 75)], 1),
        ([End(1, 0), End(0, 69)], 0),
        ([End(1, 3), End(0, 137, by_us=True)], 1),  # it did not listen
        ([End(0, 69), End(1, 137, by_us=True)], 0),
        ([End(0, 69), End(1, 69, said=(OWN,))], 1),  # a program's own status
        ([End(0, 1), End(2, 137)], 2),  # it lost its connection to what was killed
        ([End(0, 134), End(2, 137), End(1, 137, out_of_memory=True)], 1),
    ],
)
def test_the_guilty_one_is_the_first_that_ended_by_itself(ends: list[End], rank: int) -> None:
    found = training.guilty(ends)
    assert found
    assert found.rank == rank


def test_the_status_of_nodes_that_end_with_others_is_the_launcher_s() -> None:
    assert LAUNCH["UNAVAILABLE"] == UNAVAILABLE
    assert LAUNCH["TEMPORARY"] == TEMPORARY


def ended(status: int = 137, *, out_of_memory: bool, by_us: bool = False) -> End:
    state = {"ExitCode": status, "OOMKilled": out_of_memory}
    return training.end_of(1, state, [], by_us=by_us)


def test_a_node_that_ended_by_itself_after_all_was_not_killed_by_us() -> None:
    assert ended(out_of_memory=False, by_us=True).by_us
    assert not ended(69, out_of_memory=False, by_us=True).by_us


def test_two_jobs_of_one_second_have_directories_of_their_own(tmp_path: Path) -> None:
    found = [training.claim(tmp_path, "digits-1") for _ in range(3)]
    assert found == ["digits-1", "digits-1-2", "digits-1-3"]
    assert sorted(path.name for path in tmp_path.iterdir()) == found


def test_being_killed_and_running_out_of_memory_are_told_apart(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    killed = training.verdict(run, ended(out_of_memory=False))
    assert killed.what == "node 1 (digits-1) was ended by SIGKILL"
    memory = training.verdict(run, ended(out_of_memory=True))
    assert memory.what == "node 1 (digits-1) ran out of memory: it may take 2000.0 MB"
    assert "--memory 4000MB" in memory.fix[0]
    assert "--restarts 1" in killed.fix[0]
    assert killed.code == memory.code == 137


def test_the_last_lines_of_the_guilty_node_are_the_cause(tmp_path: Path) -> None:
    seat = LAUNCH["Seat"](2, ("a", "b", "digits-2"), 1, 1, 1)
    last = "launch: " + LAUNCH["summary"](seat, 3, 1.5, 0.5, 10**8)
    error = training.verdict(make_run(tmp_path), End(2, 3, said=("Traceback", "no data", last)))
    assert error.what == "node 2 (digits-2) ended with status 3"
    assert error.cause == "it said at last:\nTraceback\nno data"
    assert "ls out/train/digits-20261125-020455" in error.fix[-1]
    assert training.verdict(make_run(tmp_path), End(2, 3)).cause == "it said nothing"


def test_nodes_that_did_not_find_each_other_are_said_to(tmp_path: Path) -> None:
    error = training.verdict(make_run(tmp_path), End(0, TEMPORARY, said=("launch: error: x",)))
    assert "did not all come together" in error.what


def test_nodes_that_lost_each_other_without_one_that_failed_are_said_to(tmp_path: Path) -> None:
    error = training.verdict(make_run(tmp_path), End(0, UNAVAILABLE))
    assert "lost another node" in error.what


def test_the_summary_has_every_node_in_order_and_what_its_launcher_says(tmp_path: Path) -> None:
    seat = LAUNCH["Seat"](1, ("digits-0.digits", "digits-1.digits"), 1, 1, 1)
    last = "launch: " + LAUNCH["summary"](seat, 0, 12.34, 9.8, 512_000_000)
    ends = [End(1, 0, said=("epoch 1", last)), End(0, 137)]
    assert training.rows(make_run(tmp_path), ends)[1:] == [
        ["node 0 (digits-0)", "137", "-", "-", "-"],
        ["node 1 (digits-1)", "0", "12.3 s", "9.8 s", "512 MB"],
    ]


def test_clean_spares_what_jobs_have_written() -> None:
    assert housekeeping.RUNS == training.RUNS

"""``invoke train``: real jobs of several containers, and all that can become of them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import socket
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from slipway.errors import NO_INPUT, TEMPORARY, UNAVAILABLE, USAGE
from tests.integration.conftest import Built
from tests.integration.workbench import (
    Checkout,
    Done,
    containers,
    refused,
    shown_commands,
    strangers,
    succeed,
    tree,
    wait_for,
)

NOTICED_S = 5.0  # a dead node is noticed within
STOPPED_S = 15.0  # after a signal nothing of ours is left
# Long enough that nothing ends by itself while a test looks.
WAITS = "print('waiting', flush=True)\nimport time\ntime.sleep(120)\n"
# And that takes its time to end, in which more signals arrive.
SAVES = (
    "import signal, sys, time\n"
    "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(2), sys.exit(0)))\n" + WAITS
)
RANK = "import os, sys, time\nrank = int(os.environ['RANK'])\n"


@dataclass(frozen=True)
class Gym:
    """A checkout, a small library, and applications that use it."""

    checkout: Checkout
    library: Path
    folder: Path
    client: Any

    def app(self, name: str, program: str) -> Path:
        """A folder with a train.py."""
        directory = self.folder / name
        directory.mkdir(exist_ok=True)
        (directory / "train.py").write_text(textwrap.dedent(program))
        return directory

    def flags(self, app: Path, *arguments: str) -> list[str]:
        """The words of the command line."""
        return ["train", "--project", str(self.library), "--dir", str(app), *arguments]

    def train(self, app: Path, *arguments: str) -> Done:
        """Type ``invoke train``."""
        return self.checkout.invoke(*self.flags(app, *arguments), timeout=280)

    def runs(self, app: Path) -> list[Path]:
        """The directories of an application's jobs, in order."""
        return sorted((self.checkout.out / "train").glob(f"{app.name}-*"))

    def left(self) -> list[str]:
        """Containers and networks of this checkout."""
        networks = self.client.networks.list(filters=self.checkout.label)
        return [thing.name for thing in (*containers(self.client, self.checkout), *networks)]

    def nodes(self) -> dict[str, Any]:
        """The containers that run, by their host's name."""
        found = containers(self.client, self.checkout)
        return {c.attrs["Config"]["Hostname"]: c for c in found if c.status == "running"}


@pytest.fixture(scope="module")
def gym(area: Path, cloned: Callable[[str], Checkout], client: Any) -> Gym:
    folder = area / "applications"
    folder.mkdir()
    made = Gym(cloned("gym"), tree(area / "trees" / "gym"), folder, client)
    # What the others need not wait for.
    done = made.train(made.app("first", "print('works')\n"), "--nodes", "1")
    assert "first-0 | works" in succeed(done)
    return made


@pytest.fixture(autouse=True)
def nothing_is_left(gym: Gym) -> Any:
    yield
    assert gym.left() == []


# -- a job


def test_nodes_talk_by_the_names_of_a_cluster_and_each_line_says_whose_it_is(gym: Gym) -> None:
    program = """\
        import os, socket, sys
        rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        where = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
        print("I am", rank, "on", socket.gethostname(), sys.argv[1:])
        if rank == 0:
            heard = set()
            with socket.create_server(("", where[1])) as server:
                print("listening")
                while len(heard) < world - 1:
                    heard.add(server.accept()[0].recv(100).decode())
            print("heard", sorted(heard))
        else:
            while True:
                try:
                    with socket.create_connection(where) as client:
                        client.sendall(f"{rank}".encode())
                    break
                except ConnectionRefusedError:
                    pass
        with open(f"{rank}.txt", "w") as file:
            file.write(os.getcwd())
    """
    app = gym.app("talking", program)
    said = succeed(gym.train(app, "--nodes", "3", "--procs", "2", "--", "--a b", "it's"))
    for rank in range(6):
        line = f"talking-{rank // 2} | I am {rank} on talking-{rank // 2} ['--a b', \"it's\"]"
        assert line in said.splitlines()
    assert "talking-0 | heard ['1', '2', '3', '4', '5']" in said
    (run,) = gym.runs(app)
    assert {file.name: file.read_text() for file in run.iterdir()} == {
        f"{rank}.txt": "/work" for rank in range(6)
    }
    table = said[said.index("NODE ") :]
    for rank in range(3):
        assert re.search(
            rf"^node {rank} \(talking-{rank}\) +0 +[\d.]+ s +[\d.]+ s +\d+ MB$", table, re.M
        )
    assert "trained talking on 3 nodes" in table


def test_a_job_reaches_no_container_but_its_own_nodes(gym: Gym) -> None:
    receipt = json.loads((gym.checkout.out / "apps" / "first" / "cpu.json").read_text())
    server = gym.client.containers.run(
        receipt["facts"]["tag"], ["python", "-m", "http.server", "8000"], detach=True, init=True
    )
    try:
        server.reload()
        address = server.attrs["NetworkSettings"]["IPAddress"]

        def reached() -> bool:
            with contextlib.suppress(OSError), socket.create_connection((address, 8000), 1):
                return True
            return False

        wait_for(reached, "the other container answers")
        program = f"""\
            import socket
            try:
                socket.create_connection(("{address}", 8000), timeout=3)
                print("reached")
            except OSError as error:
                print("not reached:", error)
        """
        said = succeed(gym.train(gym.app("alone", program), "--nodes", "1"))
        assert "alone-0 | not reached: timed out" in said
    finally:
        server.remove(force=True)


def test_what_a_job_writes_belongs_to_the_caller(
    gym: Gym, ordinary: Checkout, tmp_path_factory: pytest.TempPathFactory
) -> None:
    somebody = Gym(ordinary, gym.library, gym.folder, gym.client)
    app = gym.app(
        "owned", "import os\nos.makedirs('deep/er', exist_ok=True)\nopen('deep/er/file', 'w')\n"
    )
    succeed(somebody.train(app, "--nodes", "2"))
    assert somebody.left() == []
    (run,) = somebody.runs(app)
    assert (run / "deep" / "er" / "file").is_file()
    assert strangers(run, 1000) == []


def test_two_jobs_of_one_application_run_at_once(gym: Gym) -> None:
    app = gym.app("twice", "import time\ntime.sleep(9)\nprint('done')\n")
    with gym.checkout.start(*gym.flags(app)) as process:
        wait_for(lambda: len(gym.nodes()) == 2, "the first one's nodes run")
        assert succeed(gym.train(app)).count("| done") == 2
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert said.count("| done") == 2
    assert len(gym.runs(app)) == 2


# -- nodes that fail


def test_a_process_that_fails_stops_all_and_its_node_and_words_are_told(gym: Gym) -> None:
    program = f"""{RANK}
print("at", time.time(), flush=True)
if rank == 1:
    time.sleep(1)
    sys.exit("no data here")
time.sleep(120)
"""
    start = time.monotonic()
    done = gym.train(gym.app("failing", program), "--nodes", "3")
    took = time.monotonic() - start
    error = refused(done, 1, "node 1 (failing-1) ended with status 1", "no data here")
    assert "rank 1" in error
    begun = max(float(text) for text in re.findall(r"\| at ([\d.]+)", done.stdout))
    assert time.time() - begun < 1 + NOTICED_S + 3  # with what is tidied up
    assert took < 60
    assert gym.left() == []


def test_a_process_that_is_killed_is_told_from_one_that_ran_out_of_memory(gym: Gym) -> None:
    killed = f"{RANK}\nif rank == 1:\n    os.kill(os.getpid(), 9)\n{WAITS}"
    done = gym.train(gym.app("killed", killed), "--nodes", "2", "--memory", "200MB")
    error = refused(done, 137, "node 1 (killed-1) was ended by SIGKILL")
    assert "memory" not in error.splitlines()[0]
    hungry = f"{RANK}\nif rank == 1:\n    b'x' * 10**9\n{WAITS}"
    done = gym.train(gym.app("hungry", hungry), "--nodes", "2", "--memory", "200MB")
    error = refused(done, 137, "node 1 (hungry-1) ran out of memory: it may take 200.0 MB")
    assert "--memory 400MB" in error


@pytest.mark.parametrize("victim", [0, 2])
def test_a_node_that_is_killed_is_noticed_within_seconds(gym: Gym, victim: int) -> None:
    app = gym.app("dying", WAITS)
    with gym.checkout.start(*gym.flags(app, "--nodes", "3")) as process:
        wait_for(lambda: len(gym.nodes()) == 3, "all nodes run")
        time.sleep(2)
        start = time.monotonic()
        gym.nodes()[f"dying-{victim}"].kill()
        said, _ = process.communicate(timeout=60)
        took = time.monotonic() - start
    assert process.returncode == 137, said
    assert f"error: node {victim} (dying-{victim}) was ended by SIGKILL" in said
    for rank in {0, 1, 2} - {victim}:
        assert re.search(rf"dying-{rank} \| launch: node {victim} .* is gone", said)
    assert took < NOTICED_S + 2, said  # containers and network are gone too


def test_a_node_that_is_cut_off_from_the_network_is_noticed_within_seconds(gym: Gym) -> None:
    app = gym.app("severed", WAITS)
    with gym.checkout.start(*gym.flags(app, "--nodes", "3")) as process:
        wait_for(lambda: len(gym.nodes()) == 3, "all nodes run")
        time.sleep(2)
        (network,) = gym.client.networks.list(filters=gym.checkout.label)
        start = time.monotonic()
        network.disconnect(gym.nodes()["severed-2"])
        said, _ = process.communicate(timeout=60)
        took = time.monotonic() - start
    assert process.returncode == UNAVAILABLE, said
    for rank in (0, 1):
        assert re.search(rf"severed-{rank} \| launch: node 2 .* is gone", said)
    assert "it lost another node" in said
    assert took < NOTICED_S + 2, said


def test_a_node_that_hangs_when_it_should_end_is_killed(gym: Gym) -> None:
    program = f"""{RANK}
import signal
if rank == 1:
    time.sleep(2)
    sys.exit(3)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.kill(os.getppid(), signal.SIGSTOP)  # the launcher itself
{WAITS}"""
    start = time.monotonic()
    done = gym.train(gym.app("hanging", program), "--nodes", "2")
    refused(done, 3, "node 1 (hanging-1) ended with status 3")
    assert time.monotonic() - start < 60


# -- starting again

UNLUCKY = f"""{RANK}
import pathlib
mark = pathlib.Path("tried")
if rank == 1:
    tries = int(mark.read_text()) if mark.exists() else 0
    mark.write_text(str(tries + 1))
    if tries < int(sys.argv[1]):
        os.kill(os.getpid(), 9)
    print("this time")
"""


def test_restarts_start_all_nodes_again_in_the_same_directory(gym: Gym) -> None:
    app = gym.app("unlucky", UNLUCKY)
    done = gym.train(app, "--restarts", "2", "--", "2")
    said = succeed(done)
    assert "node 1 (unlucky-1) was ended by SIGKILL: restart 1 of 2" in said
    assert "restart 2 of 2" in said
    assert said.count("unlucky-1 | this time") == 1
    (run,) = gym.runs(app)
    assert (run / "tried").read_text() == "3"


def test_when_no_restart_is_left_the_job_has_failed(gym: Gym) -> None:
    done = gym.train(gym.app("luckless", UNLUCKY), "--restarts", "1", "--", "9")
    refused(done, 137, "node 1 (luckless-1) was ended by SIGKILL")
    assert "restart 1 of 1" in done.stdout
    assert "restart 2" not in done.stdout


# -- being stopped


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_all_nodes_and_leaves_nothing(gym: Gym, signum: signal.Signals) -> None:
    app = gym.app("stopped", SAVES)
    with gym.checkout.start(*gym.flags(app, "--nodes", "3")) as process:
        wait_for(lambda: len(gym.nodes()) == 3, "all nodes run")
        time.sleep(1)
        start = time.monotonic()
        # To the whole group, as a terminal does; again, as an impatient person does.
        for _ in range(3):
            os.killpg(process.pid, signum)
            time.sleep(0.4)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signum, said
    assert time.monotonic() - start < STOPPED_S
    assert "Traceback" not in said
    assert gym.left() == []


def test_what_a_killed_train_has_left_is_removed_by_stop(gym: Gym) -> None:
    app = gym.app("left", WAITS)
    with gym.checkout.start(*gym.flags(app)) as process:
        wait_for(lambda: len(gym.nodes()) == 2, "all nodes run")
        process.kill()
        process.wait()
    said = succeed(gym.checkout.invoke("stop"))
    assert said.count("removing container") == 2
    assert said.count("removing network") == 1
    assert gym.left() == []
    assert "nothing of this checkout" in succeed(gym.checkout.invoke("stop"))


# -- the lines that are shown


def node_lines(gym: Gym, app: Path, *arguments: str) -> tuple[str, list[str], Path]:
    """The lines of ``--dry`` that make the network and start each node, and the run's directory."""
    time.sleep(1)  # runs are named by the second, and this one must not be called as the last was
    done = gym.checkout.invoke("--dry", *gym.flags(app, *arguments))
    lines = shown_commands(succeed(done))
    network = next(line for line in lines if " network create " in line)
    nodes = [line for line in lines if "-train-" in line and " run " in line]
    (source,) = re.findall(r"type=bind,source=([^,]+),target=/work", nodes[0])
    return network, nodes, Path(source)


def typed(line: str, *, wait_s: int) -> str:
    """A line with less patience, word for word as a shell would read it."""
    return re.sub(r"SLIPWAY_WAIT_S=\d+", f"SLIPWAY_WAIT_S={wait_s}", line)


def test_a_dry_run_starts_nothing_and_its_lines_work_in_any_order_and_late(gym: Gym) -> None:
    app = gym.app("typed", "import os\nprint('rank', os.environ['RANK'])\n")
    succeed(gym.train(app, "--nodes", "1"))  # the image is there
    network, nodes, directory = node_lines(gym, app, "--nodes", "3")
    assert not directory.exists()
    assert gym.left() == []
    directory.mkdir()
    try:
        succeed(gym.checkout.typed(*shlex.split(network)))
        for rank in (2, 0, 1):
            succeed(gym.checkout.typed(*shlex.split(nodes[rank])))
            time.sleep(1.5)
        found = containers(gym.client, gym.checkout)
        assert [container.wait()["StatusCode"] for container in found] == [0, 0, 0]
        assert {c.logs(stderr=False).decode() for c in found} == {f"rank {n}\n" for n in range(3)}
    finally:
        succeed(gym.checkout.invoke("stop"))


def test_a_first_node_that_never_comes_is_named(gym: Gym) -> None:
    app = gym.app("waiting", WAITS)
    succeed(gym.train(gym.app("waiting", "\n"), "--nodes", "1"))
    network, nodes, directory = node_lines(gym, app, "--nodes", "2")
    directory.mkdir()
    try:
        succeed(gym.checkout.typed(*shlex.split(network)))
        start = time.monotonic()
        succeed(gym.checkout.typed(*shlex.split(typed(nodes[1], wait_s=3))))
        (container,) = containers(gym.client, gym.checkout)
        assert container.wait()["StatusCode"] == TEMPORARY
        assert time.monotonic() - start < 20
        said = container.logs().decode()
        assert "node 0 (waiting-0.waiting) did not answer at port 29400 within 3 s" in said
        assert "its name is not known" in said
    finally:
        succeed(gym.checkout.invoke("stop"))


# -- what cannot be


def test_what_makes_no_job_is_refused_before_anything_starts(gym: Gym, tmp_path: Path) -> None:
    app = gym.app("plain", "print('ran')\n")
    empty = gym.folder / "empty"
    empty.mkdir(exist_ok=True)
    for arguments, code, words in (
        (("--dir", str(empty)), NO_INPUT, f"no train.py in {empty}"),
        ((), USAGE, "no --dir"),
        (("--dir", str(app), "--nodes", "0"), USAGE, "--nodes 0"),
        (("--dir", str(app), "--procs", "0"), USAGE, "--procs 0"),
        (("--dir", str(app), "--memory", "much"), USAGE, "'much' is no size"),
        (
            ("--dir", str(app), "--nodes", "1000000"),
            UNAVAILABLE,
            "1000000 nodes would need more memory",
        ),
        (("--dir", str(app), "--memory", "9TB"), UNAVAILABLE, "2 nodes would need more memory"),
    ):
        done = gym.checkout.invoke("train", "--project", str(gym.library), *arguments)
        refused(done, code, words)
        assert "| ran" not in done.stdout
        assert shown_commands(done.stdout) == []


# -- learning


@pytest.fixture(scope="module")
def one_node(built: Built) -> str:
    """What the digits' example says on one node."""
    flags = ("train", "--dir", "examples/digits", "--nodes", "1", "--", "--epochs", "5")
    return succeed(built.checkout.invoke(*flags, timeout=280))


def result_of(said: str) -> tuple[str, list[str]]:
    """Test accuracy at the end, and the lines of the epochs."""
    (accuracy,) = re.findall(r"\| test accuracy ([\d.]+), equal weights in \d processes", said)
    return str(accuracy), re.findall(r"\| (epoch .*)$", said, re.MULTILINE)


def numbers(result: tuple[str, list[str]]) -> list[float]:
    """All numbers in it, in order."""
    return [float(word) for word in re.findall(r"[\d.]+", " ".join([result[0], *result[1]]))]


@pytest.mark.parametrize("nodes", [2, 4])
def test_the_digits_are_learnt_by_several_nodes_as_by_one(
    nodes: int, built: Built, one_node: str
) -> None:
    flags = ["--dir", "examples/digits", "--nodes", str(nodes), "--", "--epochs", "5"]
    with built.checkout.start("train", *flags) as process:
        begun: dict[str, float] = {}
        lines = []
        assert process.stdout
        for line in process.stdout:
            lines.append(line)
            for mark in (" network create ", "| first step"):
                if mark in line:
                    begun[mark] = time.monotonic()
    said = "".join(lines)
    assert process.wait() == 0, said
    assert f"equal weights in {nodes} processes" in said
    # Sums are the same up to rounding, whose place differs between CPUs: seldom in the last digit.
    assert numbers(result_of(said)) == pytest.approx(numbers(result_of(one_node)), abs=0.003)
    (imported,) = re.findall(r"imported in ([\d.]+) s", said)
    took = begun["| first step"] - begun[" network create "]
    print(f"{nodes} nodes: first step after {took:.1f} s, {imported} s of them an import")
    if nodes == 4:
        assert took - float(imported) < 15, said


def test_a_job_that_is_killed_goes_on_and_its_losses_are_those_of_an_unbroken_one(
    built: Built, one_node: str, client: Any
) -> None:
    flags = ["--dir", "examples/digits", "--restarts", "1", "--", "--epochs", "5"]
    with built.checkout.start("train", *flags) as process:
        lines = []
        assert process.stdout
        for line in process.stdout:
            lines.append(line)
            if "| epoch  2" in line and not any("restart 1 of 1" in other for other in lines):
                found = containers(client, built.checkout)
                next(c for c in found if c.name.endswith("-1")).kill()
    said = "".join(lines)
    assert process.wait() == 0, said
    assert "restart 1 of 1" in said
    assert re.search(r"\| going on after epoch [23]", said)
    assert numbers(result_of(said))[0] == pytest.approx(numbers(result_of(one_node))[0], abs=0.003)
    files = sorted((built.checkout.out / "train").glob("digits-*/losses.csv"))
    whole, broken = (
        [float(row.split(",")[1]) for row in file.read_text().splitlines()[1:]]
        for file in (files[0], files[-1])
    )
    assert len(whole) == len(broken) == 5 * 45
    assert max(abs(a - b) for a, b in zip(whole, broken, strict=True)) < 1e-3

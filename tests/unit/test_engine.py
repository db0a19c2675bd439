"""The argument list of every container, and what docker's words mean."""

from __future__ import annotations

import csv
import os
import re
import subprocess
from itertools import pairwise
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any

import pytest

from slipway import engine, processes
from slipway.engine import (
    Caller,
    Docker,
    InPlace,
    Job,
    Mount,
    container_name,
    failure,
    hides_image,
    mount_argument,
    path_inside,
    place,
    run_arguments,
    write_identity,
)
from slipway.errors import NO_PERMISSION, UNAVAILABLE, SlipwayError
from tests.unit.fakes import make_workshop

ROOT = Path("/home/ann/slipway")
ANN = Caller(1000, 1000, "ann")
NOBODY_KNOWN = Caller(12345, 54321, "caller")
SUPERUSER = Caller(0, 0, "root")


def arguments(
    job: Job | None = None, *, user: Caller = ANN, terminal: bool = False, **parts: Any
) -> list[str]:
    parts = {"name": "build-oar-cpu", "command": ["/s/build", "a b"], **parts}
    return run_arguments(
        job or Job(**parts),
        "slipway-dev:1",
        checkout="0a1b2c3d",
        root=ROOT,
        user=user,
        identity=ROOT / "out" / ".run" / "uid",
        terminal=terminal,
    )


def values(argv: list[str], flag: str) -> list[str]:
    return [value for name, value in pairwise(argv) if name == flag]


def mounts(argv: list[str]) -> dict[str, dict[str, str]]:
    """Target to fields, read as docker reads them: one line of CSV for each mount."""
    found = {}
    for text in values(argv, "--mount"):
        (row,) = csv.reader([text])
        fields = {key: value for key, _, value in (field.partition("=") for field in row)}
        found[fields["target"]] = fields
    return found


# -- the argument list


def test_a_plain_job_is_written_out_in_full() -> None:
    assert arguments(user=SUPERUSER) == [
        *("run", "--rm", "--init", "--name", "slipway-0a1b2c3d-build-oar-cpu"),
        *("--label", "slipway.checkout=0a1b2c3d", "--network", "none"),
        *("--env", "HOME=/root", "--env", "LC_ALL=C.UTF-8"),
        *("slipway-dev:1", "/s/build", "a b"),
    ]


def test_there_is_no_network_unless_the_job_says_so() -> None:
    assert values(arguments(), "--network") == ["none"]
    assert "--network" not in arguments(network=True)


def test_ports_are_bound_to_loopback_only() -> None:
    argv = arguments(network=True, ports=["8888:8888", "2222:22"])
    assert values(argv, "--publish") == ["127.0.0.1:8888:8888", "127.0.0.1:2222:22"]


def test_only_a_job_that_says_so_is_reached_from_the_network() -> None:
    argv = arguments(network=True, lan=True, ports=["8888:8888"])
    assert values(argv, "--publish") == ["0.0.0.0:8888:8888"]


def test_a_job_on_a_network_of_its_own_is_found_there_by_its_name_and_nowhere_else() -> None:
    argv = arguments(private="slipway-n", host="digits-1.digits")
    assert values(argv, "--network") == ["slipway-n"]
    assert values(argv, "--network-alias") == ["digits-1.digits"]
    assert values(argv, "--hostname") == ["digits-1"]
    assert values(argv, "--dns-option") == ["timeout:1", "attempts:1"]
    assert "--publish" not in argv


def test_a_job_takes_what_memory_there_is_unless_it_says_how_much() -> None:
    assert "--memory" not in arguments()
    argv = arguments(memory=10**9)
    assert values(argv, "--memory") == values(argv, "--memory-swap") == ["1000000000"]


@pytest.mark.parametrize(
    ("host", "expected"),
    [("unix:///var/run/docker.sock", 3072 * 10**3), ("tcp://elsewhere:2375", 8 * 10**9)],
)
def test_free_memory_is_this_machine_s_only_where_the_engine_is(
    monkeypatch: pytest.MonkeyPatch, host: str, expected: int
) -> None:
    monkeypatch.setenv("DOCKER_HOST", host)
    monkeypatch.setattr(engine, "info", lambda: {"MemTotal": 8 * 10**9})
    text = "MemTotal:       9999 kB\nMemFree: 1 kB\nMemAvailable:    3000 kB\n"
    monkeypatch.setattr(Path, "is_file", lambda _: True)
    monkeypatch.setattr(Path, "read_text", lambda _: text)
    assert engine.memory() == expected


def test_a_job_that_stays_is_not_waited_for_and_comes_back_by_nobody_s_doing() -> None:
    argv = arguments(stays=True, labels={"a": "b c"})
    assert argv[:5] == ["run", "--detach", "--restart", "no", "--init"]
    assert "--rm" not in argv
    assert values(argv, "--label") == ["slipway.checkout=0a1b2c3d", "a=b c"]


def test_standard_input_is_passed_on_only_to_who_is_typed_to() -> None:
    assert "--interactive" not in arguments()
    assert "--interactive" in arguments(interactive=True)


def test_a_terminal_is_given_only_where_there_is_one() -> None:
    assert "--tty" not in arguments(interactive=True)
    assert "--tty" in arguments(terminal=True)


def test_shared_memory_working_directory_and_variables_are_handed_on() -> None:
    argv = arguments(shm_size="1g", workdir="/w", env={"A": "b c", "HOME": "/h"}, inherit=["TOKEN"])
    assert values(argv, "--shm-size") == ["1g"]
    assert values(argv, "--workdir") == ["/w"]
    assert values(argv, "--env") == ["HOME=/h", "LC_ALL=C.UTF-8", "A=b c", "TOKEN"]


def test_a_job_gets_a_gpu_only_where_that_was_decided() -> None:
    assert "--gpus" not in arguments()
    assert "--device" not in arguments()
    argv = arguments(gpu=("--device", "nvidia.com/gpu=all"))
    assert values(argv, "--device") == ["nvidia.com/gpu=all"]
    assert argv.index("--device") < argv.index("slipway-dev:1")


def test_a_look_that_hangs_or_is_stopped_leaves_no_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed: list[str] = []
    ends: list[Any] = [0, processes.NO_ANSWER, KeyboardInterrupt()]

    def look(argv: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        end = ends.pop(0)
        if isinstance(end, BaseException):
            raise end
        return subprocess.CompletedProcess(argv, end, "out", "")

    monkeypatch.setattr(engine, "client", lambda: "docker")
    monkeypatch.setattr(engine, "remove_container", removed.append)
    monkeypatch.setattr(processes, "look", look)
    job, docker = Job(name="j", command=["true"]), Docker(make_workshop(tmp_path))
    assert docker.look(job, "i", timeout=1).stdout == "out"
    assert removed == []
    assert docker.look(job, "i", timeout=1).returncode == processes.NO_ANSWER
    with pytest.raises(KeyboardInterrupt):
        docker.look(job, "i", timeout=1)
    assert removed == [container_name(job, docker.workshop.checkout)] * 2


def test_what_is_inherited_goes_by_name_so_that_no_value_is_printed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("https_proxy", "http://ann:secret@proxy")
    argv = arguments(inherit=["https_proxy"])
    assert values(argv, "--env")[-1] == "https_proxy"
    assert "secret" not in " ".join(argv)


def test_what_is_hidden_goes_by_name_too() -> None:
    argv = arguments(hidden={"TOKEN": "secret"})
    assert values(argv, "--env")[-1] == "TOKEN"
    assert "secret" not in " ".join(argv)


@pytest.mark.parametrize("user", [SUPERUSER, ANN, NOBODY_KNOWN], ids=lambda user: str(user.uid))
def test_no_container_is_privileged_and_none_gets_the_engine_s_socket(user: Caller) -> None:
    everything: dict[str, Any] = {
        "network": True,
        "ports": ["1:1"],
        "interactive": True,
        "shm_size": "1g",
        "workdir": "/w",
        "mounts": [Mount(ROOT)],
    }
    text = " ".join(arguments(user=user, terminal=True, **everything))
    for never in ("privileged", "docker.sock", "cap-add", "0.0.0.0", "host", "seccomp"):  # noqa: S104
        assert never not in text


def test_the_caller_owns_what_is_made_and_has_a_name_and_a_home() -> None:
    for user in (ANN, NOBODY_KNOWN):
        argv = arguments(user=user)
        assert values(argv, "--user") == [f"{user.uid}:{user.gid}"]
        assert f"HOME=/home/{user.name}" in values(argv, "--env")
        found = mounts(argv)
        assert found["/etc/passwd"]["source"] == str(ROOT / "out" / ".run" / "uid" / "passwd")
        assert "readonly" in found["/etc/passwd"]
        assert "readonly" in found["/etc/group"]
        assert found[f"/home/{user.name}"]["type"] == "tmpfs"


def test_root_needs_no_identity() -> None:
    argv = arguments(user=SUPERUSER)
    assert "--user" not in argv
    assert mounts(argv) == {}


def test_a_home_that_is_mounted_is_not_covered() -> None:
    home = Mount(Path("/data"), target="/home/ann")
    assert mounts(arguments(mounts=[Mount(ROOT)]))["/home/ann"]["type"] == "tmpfs"
    argv = arguments(mounts=[home, Mount(ROOT)])
    assert mounts(argv)["/home/ann"]["type"] == "bind"
    assert "tmpfs" not in " ".join(argv)


def test_mounts_are_at_their_own_path_or_where_they_are_told() -> None:
    argv = arguments(
        mounts=[Mount(ROOT / "src", readonly=True), Mount(Path("/data"), target="/run/ccache")]
    )
    found = mounts(argv)
    source = str(ROOT / "src")
    assert found[source] == {"type": "bind", "source": source, "target": source, "readonly": ""}
    assert found["/run/ccache"] == {"type": "bind", "source": "/data", "target": "/run/ccache"}


ODD = [
    "/home/ann/with space",
    "/home/ann/with,comma",
    "/home/ann/with:colon",
    '/home/ann/with"quote',
    "/home/ann/with'quote",
    "/home/ann/größe/日本",
    "/home/ann/=,readonly",
    "/home/ann/$(id)",
]


@pytest.mark.parametrize("path", ODD)
def test_a_path_may_hold_any_character(path: str) -> None:
    text = mount_argument(path, path, readonly=True)
    assert next(csv.reader([text])) == [
        "type=bind",
        f"source={path}",
        f"target={path}",
        "readonly",
    ]
    assert path in mounts(arguments(mounts=[Mount(Path(path))]))


def test_the_command_comes_last_and_word_for_word() -> None:
    words = ["python3", "--", "--privileged", "a b", "$HOME", ""]
    argv = arguments(command=words)
    assert argv[-len(words) - 1 :] == ["slipway-dev:1", *words]


# -- names


def test_a_container_s_name_holds_the_checkout_and_only_what_docker_takes() -> None:
    name = container_name(Job(name="build-c++ lib/größe", command=[]), "0a1b2c3d")
    assert name.startswith("slipway-0a1b2c3d-build-c")
    assert re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+", name)


def test_a_job_that_is_alone_keeps_its_name_and_another_gets_one_of_its_own() -> None:
    alone, beside = (Job(name="x", command=[], alone=alone) for alone in (True, False))
    assert container_name(alone, "c") == "slipway-c-x"
    assert container_name(beside, "c") == f"slipway-c-x-{os.getpid()}"


# -- paths


@pytest.mark.parametrize(
    ("path", "hidden"),
    [
        ("/", True),
        ("/usr", True),
        ("/usr/local/lib/x", True),
        ("/usr/src", True),
        ("/usr/src/x", False),
        ("/usr/local/src/x/y", False),
        ("/etc", True),
        ("/etc/x", True),
        ("/etcetera", False),
        ("/home", True),
        ("/home/ann", False),
        ("/opt", True),
        ("/opt/x", False),
        ("/opt/slipway", True),
        ("/opt/slipway-2", False),
        ("/root", True),
        ("/root/x", False),
        ("/tmp", True),
        ("/tmp/x", False),
        ("/var/lib", True),
        ("/var/lib/jenkins", False),
        ("/var/lib/dpkg/x", True),
        ("/run/x", True),
        ("/proc/1", True),
        ("/builds/lib", False),
        ("/data", False),
    ],
)
def test_which_mounts_would_hide_the_image(path: str, hidden: bool) -> None:
    assert hides_image(path) is hidden


POSIX = PurePosixPath("/home/ann/slipway")


@pytest.mark.parametrize("text", [*ODD, "/data", "/builds/lib", "/usr/src/lib", "/home/ann/.d."])
def test_a_posix_path_is_the_same_inside(text: str) -> None:
    assert path_inside(PurePosixPath(text), POSIX) == text


WINDOWS = PureWindowsPath("C:/ann/slipway")


@pytest.mark.parametrize(
    ("path", "root", "inside"),
    [
        (PurePosixPath("/usr/local/slipway"), PurePosixPath("/usr/local/slipway"), "/src/slipway"),
        (PurePosixPath("/usr/x/out/v1."), PurePosixPath("/usr/x"), "/src/slipway/out/v1."),
        (PurePosixPath("/tmp/a"), PurePosixPath("/tmp"), "/tmp/a"),
        (WINDOWS, WINDOWS, "/src/slipway"),
        (WINDOWS / "out" / "oar", WINDOWS, "/src/slipway/out/oar"),
        (PureWindowsPath("c:/ANN/Slipway/out"), WINDOWS, "/src/slipway/out"),
    ],
)
def test_a_path_that_cannot_be_the_same_keeps_its_place_in_the_checkout(
    path: PurePath, root: PurePath, inside: str
) -> None:
    assert path_inside(path, root) == inside


@pytest.mark.parametrize(
    ("path", "root"),
    [
        (PurePosixPath("/usr/lib/oar"), POSIX),
        (PureWindowsPath("D:/lib/oar"), WINDOWS),
        (PureWindowsPath("//server/share/oar"), WINDOWS),
    ],
)
def test_a_path_of_elsewhere_goes_below_src_under_its_name(path: PurePath, root: PurePath) -> None:
    inside = path_inside(path, root)
    assert inside.startswith("/src/oar")
    assert "\\" not in inside
    assert not hides_image(inside)


def test_two_paths_never_meet_inside() -> None:
    paths: list[PurePath] = [
        WINDOWS,
        WINDOWS / "oar",
        PureWindowsPath("D:/a/oar"),
        PureWindowsPath("D:/b/oar"),
        PureWindowsPath("D:/slipway"),
        PureWindowsPath("D:/"),
        PureWindowsPath("E:/"),
    ]
    assert len({path_inside(path, WINDOWS) for path in paths}) == len(paths)


# -- who


def test_the_identity_names_the_caller_root_and_nobody(tmp_path: Path) -> None:
    write_identity(NOBODY_KNOWN, tmp_path / "id")
    passwd = [line.split(":") for line in (tmp_path / "id" / "passwd").read_text().splitlines()]
    assert [(row[0], row[2], row[3]) for row in passwd] == [
        ("root", "0", "0"),
        ("nobody", "65534", "65534"),
        ("caller", "12345", "54321"),
    ]
    assert {len(row) for row in passwd} == {7}
    assert passwd[2][5] == NOBODY_KNOWN.home
    group = (tmp_path / "id" / "group").read_text()
    assert "caller:x:54321:" in group
    assert "\ntty:" not in group  # see the docstring: nobody could log in by ssh


def test_an_identity_that_is_right_is_not_written_again(tmp_path: Path) -> None:
    write_identity(ANN, tmp_path)
    before = (tmp_path / "passwd").stat().st_mtime_ns
    os.utime(tmp_path / "passwd", ns=(1, 1))
    write_identity(ANN, tmp_path)
    assert (tmp_path / "passwd").stat().st_mtime_ns == 1 != before
    write_identity(NOBODY_KNOWN, tmp_path)
    assert "caller" in (tmp_path / "passwd").read_text()


# -- where


@pytest.mark.parametrize(
    ("setting", "wanted", "in_image", "kind"),
    [
        ("auto", "", False, Docker),
        ("auto", "", True, InPlace),
        ("docker", "", True, Docker),
        ("host", "", False, InPlace),
        ("host", "docker", False, Docker),
        ("docker", "host", False, InPlace),
        ("auto", "docker", True, Docker),
    ],
)
def test_where_jobs_run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    setting: str,
    wanted: str,
    in_image: bool,
    kind: type,
) -> None:
    marker = tmp_path / "marker"
    if in_image:
        marker.touch()
    monkeypatch.setattr(engine, "MARKER", marker)
    assert type(place(make_workshop(tmp_path, engine=setting), wanted)) is kind


# -- what docker's words mean

DENIED = (NO_PERMISSION, "the docker engine's socket may not be used by this user")
AWAY = (UNAVAILABLE, "the docker engine does not answer")
REFUSED = (UNAVAILABLE, "docker failed: pull x")


@pytest.mark.parametrize(
    ("words", "meaning"),
    [
        (
            (
                "Got permission denied while trying to connect to the Docker daemon socket at "
                "unix:///var/run/docker.sock: "
                'Get "http://%2Fvar%2Frun%2Fdocker.sock/v1.24/version": '
                "dial unix /var/run/docker.sock: connect: permission denied"
            ),
            DENIED,
        ),
        (
            (
                "permission denied while trying to connect to the docker API at "
                "unix:///var/run/docker.sock"
            ),
            DENIED,
        ),
        (
            (
                "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. "
                "Is the docker daemon running?"
            ),
            AWAY,
        ),
        (
            (
                "failed to connect to the docker API at unix:///var/run/docker.sock; "
                "check if the path "
                "is correct and if the daemon is running: dial unix /var/run/docker.sock: connect: "
                "no such file or directory"
            ),
            AWAY,
        ),
        (
            (
                "error during connect: Get "
                '"http://%2F%2F.%2Fpipe%2Fdocker_engine/v1.40/containers/json": '
                "open //./pipe/docker_engine: The system cannot find the file specified."
            ),
            AWAY,
        ),
        (
            (
                'error during connect: Get "http://box:2375/v1.24/version": dial tcp: lookup box: '
                "no such host"
            ),
            AWAY,
        ),
        ("'docker' gave no answer within 60 s", AWAY),
        (
            (
                "Error response from daemon: Get https://registry.example/v2/: "
                "dial tcp 192.0.2.1:443: "
                "connect: connection refused"
            ),
            REFUSED,
        ),
        ("Error response from daemon: pull access denied for x", REFUSED),
        ("Error response from daemon: error while creating mount: permission denied", REFUSED),
    ],
)
def test_docker_s_words_are_understood(
    monkeypatch: pytest.MonkeyPatch, words: str, meaning: tuple[int, str]
) -> None:
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    error = failure(f"{words}\n", "pull x")
    assert (error.code, error.what) == meaning
    assert words in error.cause
    assert error.fix


@pytest.mark.parametrize("name", ["DOCKER_HOST", "DOCKER_CONTEXT"])
def test_an_engine_that_somebody_named_is_not_replaced(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "tcp://box:2375")
    error = failure("Cannot connect to the Docker daemon at tcp://box:2375.", "look")
    assert "tcp://box:2375" in error.cause.splitlines()[-1]
    assert not any("setup" in command for command in error.fix)


@pytest.mark.parametrize(
    ("words", "is_missing"),
    [
        ("Error: No such image: x", True),
        ("Error response from daemon: No such container: x", True),
        (
            "failed to connect to the docker API: dial unix /x.sock: no such file or directory",
            False,
        ),
    ],
)
def test_what_is_not_there_is_told_from_an_engine_that_is_not(
    monkeypatch: pytest.MonkeyPatch, words: str, is_missing: bool
) -> None:
    done = subprocess.CompletedProcess([], 1, "", words)
    monkeypatch.setattr(engine, "client", lambda: "docker")
    monkeypatch.setattr(processes, "look", lambda _argv: done)
    if is_missing:
        assert engine.ask(["image", "inspect", "x"], "look", missing_ok=True) == ""
        return
    with pytest.raises(SlipwayError, match="does not answer"):
        engine.ask(["image", "inspect", "x"], "look", missing_ok=True)

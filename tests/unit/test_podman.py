"""Which program is asked, and what differs from Docker."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from slipway import engine, podman
from slipway.engine import Caller, Docker, Job, Mount, rootless, run_arguments
from slipway.errors import UNAVAILABLE, SlipwayError
from slipway.settings import CONTAINER, ROOT
from tests.unit.fakes import make_workshop

ANN = Caller(1000, 1000, "ann")
STAND_IN = b"""#!/bin/sh
[ -e /etc/containers/nodocker ] || \\
echo "Emulate Docker CLI using podman. Create /etc/containers/nodocker to quiet msg." >&2
exec /usr/bin/podman "$@"
"""


@pytest.fixture(autouse=True)
def own_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(podman, "_chosen", ["auto"])
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with nothing on it yet."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def put(directory: Path, name: str, content: bytes = b"\x7fELF") -> str:
    file = directory / name
    file.write_bytes(content)
    file.chmod(0o755)
    return str(file)


# -- which program


@pytest.mark.parametrize(
    ("chosen", "docker", "podman_", "named", "expected"),
    [
        ("auto", "/d", "/p", "", ("docker", "/d")),
        ("auto", "", "/p", "", ("podman", "/p")),
        ("auto", "/d", "", "", ("docker", "/d")),
        ("auto", "", "", "", ("docker", "")),
        # Who names an engine is not given another one in silence.
        ("auto", "", "/p", "tcp://box:2375", ("docker", "")),
        ("docker", "", "/p", "", ("docker", "")),
        ("podman", "/d", "/p", "", ("podman", "/p")),
        ("podman", "/d", "", "", ("podman", "")),
        ("podman", "/d", "/p", "tcp://box:2375", ("podman", "/p")),
    ],
)
def test_which_program_is_the_client(
    chosen: str, docker: str, podman_: str, named: str, expected: tuple[str, str]
) -> None:
    assert podman.decided(chosen, docker, podman_, named) == expected


def test_podman_is_found_where_there_is_no_docker(programs: Path) -> None:
    path = put(programs, "podman")
    assert engine.client() == path
    docker = put(programs, "docker")
    assert engine.client() == docker


def test_podman_s_stand_in_for_docker_is_podman(programs: Path) -> None:
    put(programs, "docker", STAND_IN)
    path = put(programs, "podman")
    assert podman.client() == ("podman", path)


def test_a_chosen_podman_that_is_not_there_is_an_error(programs: Path) -> None:
    put(programs, "docker")
    podman.choose("podman")
    with pytest.raises(SlipwayError, match="no podman program") as error:
        engine.client()
    assert "./go invoke setup" in error.value.fix


def test_what_a_flag_says_counts_until_the_next_task(tmp_path: Path, programs: Path) -> None:
    put(programs, "docker")
    path = put(programs, "podman")
    workshop = make_workshop(tmp_path)
    assert type(engine.place(workshop, "podman")) is Docker
    assert engine.client() == path
    podman.choose("auto")
    assert not podman.is_client()


def test_a_task_in_place_looks_at_the_images_of_the_engine_before_it() -> None:
    podman.choose("podman")
    podman.choose("host")
    assert podman.client()[0] == "podman"


def test_a_task_that_needs_a_container_takes_whichever_engine_is_chosen(tmp_path: Path) -> None:
    podman.choose("podman")
    assert type(engine.place(make_workshop(tmp_path, engine="host"), CONTAINER)) is Docker
    assert podman.client()[0] == "podman"


# -- who


def arguments(rootless: str, user: Caller = ANN) -> list[str]:
    return run_arguments(
        Job(name="j", command=["true"], mounts=[Mount(ROOT)]),
        "i",
        checkout="0a1b2c3d",
        root=ROOT,
        user=user,
        identity=ROOT / "id",
        terminal=False,
        rootless=rootless,
    )


def values(argv: list[str], flag: str) -> list[str]:
    return [value for name, value in pairwise(argv) if name == flag]


def test_podman_without_root_keeps_the_caller_s_ids() -> None:
    argv = arguments("podman")
    assert values(argv, "--userns") == ["keep-id"]
    assert values(argv, "--user") == ["1000:1000"]
    assert any("/etc/passwd" in mount for mount in values(argv, "--mount"))


def test_in_docker_without_root_the_caller_is_root() -> None:
    argv = arguments("docker")
    assert "--user" not in argv
    assert "--userns" not in argv
    assert values(argv, "--mount") == [engine.mount_argument(str(ROOT), str(ROOT), False)]
    assert "HOME=/root" in values(argv, "--env")


def test_an_engine_with_root_needs_neither() -> None:
    for user in (ANN, Caller(0, 0, "root")):
        assert "--userns" not in arguments("", user)
        assert "--userns" not in arguments("podman", Caller(0, 0, "root"))


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("unix:///run/user/1000/docker.sock", "docker"),
        ("unix:///run/user/1000/podman/podman.sock", "docker"),  # by the same rule
        ("unix:///var/run/docker.sock", ""),
        ("tcp://box:2375", ""),
    ],
)
def test_an_engine_without_root_is_told_by_its_socket(
    monkeypatch: pytest.MonkeyPatch, programs: Path, host: str, expected: str
) -> None:
    put(programs, "docker")
    monkeypatch.setenv("DOCKER_HOST", host)
    assert rootless(ANN) == expected
    assert rootless(Caller(0, 0, "root")) == ""


def test_podman_s_own_program_runs_as_who_types(programs: Path) -> None:
    put(programs, "podman")
    assert rootless(ANN) == "podman"
    assert rootless(Caller(0, 0, "root")) == ""


def test_podman_has_a_socket_for_each_user(monkeypatch: pytest.MonkeyPatch, programs: Path) -> None:
    put(programs, "podman")
    monkeypatch.setattr(os, "getuid", lambda: 0)
    assert engine.address() == "unix:///run/podman/podman.sock"
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    assert engine.local_socket() == "/run/user/1000/podman/podman.sock"
    assert engine.ask_socket("/info") is None  # its program may have other images


# -- building


def test_podman_builds_by_itself(programs: Path) -> None:
    path = put(programs, "podman")
    assert engine.build_client() == ([path, "build", "--format", "docker"], {})


def test_a_podman_behind_a_socket_is_told_by_its_parts() -> None:
    answer = {"Components": [{"Name": "Podman Engine", "Version": "4.3.1"}]}
    assert podman.is_behind(answer)
    assert not podman.is_behind({"Components": [{"Name": "Engine", "Version": "20.10.24"}]})
    assert not podman.is_behind(None)
    command = podman.build_command("/usr/bin/podman", "unix:///p.sock")
    assert command[:4] == ["/usr/bin/podman", "--url", "unix:///p.sock", "build"]
    assert podman.is_builder(command)
    assert not podman.is_builder(["/usr/bin/docker", "build"])


def test_behind_a_socket_only_podman_builds(programs: Path) -> None:
    put(programs, "docker")
    with pytest.raises(SlipwayError, match="no podman program"):
        podman.builder()
    path = put(programs, "podman")
    assert podman.builder() == path


def test_a_step_is_known_by_the_content_that_it_mounts(tmp_path: Path) -> None:
    text = (
        "FROM x\n"
        "RUN --mount=type=bind,source=tools,target=/t --mount=type=bind,source=a.deb,target=/d"
        " --mount=type=bind,from=x,source=/y,target=/y /t/go\n"
        "COPY tools /tools\n"
    )
    made: list[str] = []
    for content in ("one", "one", "two"):
        context = tmp_path / str(len(made))
        (context / "tools").mkdir(parents=True)
        (context / "tools" / "go").write_text("go")
        (context / "a.deb").write_text(content)
        made.append(podman.by_content(text, context))
        names = {path.name for path in context.iterdir()}
        assert {"tools", "a.deb"} < names
        assert len(names) == 4
    assert made[0] == made[1] != made[2]
    assert "from=x,source=/y," in made[0]
    assert "\nCOPY tools /tools\n" in made[0]
    for line in made[0].splitlines():
        assert "source=tools," not in line


@pytest.mark.parametrize("file", sorted(ROOT.glob("Dockerfile.*")), ids=lambda file: file.name)
def test_no_two_steps_lock_one_cache(file: Path) -> None:
    text = podman.one_lock_each(file.read_text())
    locked = [
        word for word in text.split() if word.startswith("--mount=type=cache") and "locked" in word
    ]
    assert len(locked) == len({word.split(",")[1] for word in locked})
    assert len(locked) == file.read_text().count("sharing=locked")


# -- answers


def test_podman_s_facts_have_docker_s_names() -> None:
    said: dict[str, Any] = {
        "host": {"memTotal": 8, "security": {"rootless": True}},
        "store": {"graphRoot": "/var/lib/containers/storage"},
        "version": {"Version": "4.3.1"},
    }
    found = podman.described(said)
    assert (found["ServerVersion"], found["MemTotal"]) == ("4.3.1", 8)
    assert found["SecurityOptions"] == ["name=rootless"]


@pytest.mark.parametrize(
    ("tag", "name"),
    [
        ("localhost/oar:1.2.0", "oar:1.2.0"),
        ("docker.io/library/debian:trixie-slim", "debian:trixie-slim"),
        ("registry.example.org/localhost/oar:1", "registry.example.org/localhost/oar:1"),
    ],
)
def test_an_image_is_called_what_it_was_called(tag: str, name: str) -> None:
    assert podman.plain_name(tag) == name


def test_podman_s_count_of_an_image_may_be_a_little_larger(programs: Path) -> None:
    put(programs, "docker")
    assert podman.is_over(171_000_000, 170)
    podman.choose("podman")
    assert not podman.is_over(171_000_000, 170)
    assert podman.is_over(180_000_000, 170)


# -- what its words mean


@pytest.mark.parametrize(
    ("words", "what", "fix"),
    [
        (
            (
                "Error: runc: runc create failed: unable to start container process: error during "
                "container init: error setting rlimits for ready process: error setting rlimit "
                "type 7: operation not permitted: OCI permission denied"
            ),
            "could not set the limits",
            "default_ulimits",
        ),
        (
            'Error: container-init binary not found on the host: stat "catatonit": no such file',
            "nothing to start containers with",
            "apt-get install catatonit",
        ),
        (
            (
                'cannot find UID/GID for user ann: no subuid ranges found for user "ann" in '
                "/etc/subuid - check rootless mode in man pages."
            ),
            "a range of uids",
            "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 ann",
        ),
        (
            "docker: Error response from daemon: fill out specgen:  b/out: invalid mount option",
            "no path with a comma",
            "INVOKE_ENGINE=podman",
        ),
        (
            (
                'Error: short-name "lib" did not resolve to an alias and no unqualified-search '
                'registries are defined in "/etc/containers/registries.conf"'
            ),
            "from which registry",
            "docker.io/library/debian",
        ),
    ],
)
def test_podman_s_words_are_explained(words: str, what: str, fix: str) -> None:
    error = podman.explain(f"a warning\n{words}\n", "ann")
    assert error is not None
    assert error.code == UNAVAILABLE
    assert what in error.what
    assert words in error.cause
    assert any(fix in command for command in error.fix)


def test_a_registry_without_an_answer_is_no_podman_without_one(programs: Path) -> None:
    put(programs, "podman")
    words = 'Error: pinging container registry r: Get "https://r/v2/": dial tcp: no such host'
    assert engine.failure(words, "pull x").what == "podman failed: pull x"


@pytest.mark.parametrize(
    ("host", "start"),
    [
        ("unix:///run/podman/podman.sock", "systemctl start podman.socket"),
        ("unix:///run/user/1000/podman/podman.sock", "systemctl --user start podman.socket"),
    ],
)
def test_a_podman_without_a_socket(monkeypatch: pytest.MonkeyPatch, host: str, start: str) -> None:
    monkeypatch.setenv("DOCKER_HOST", host)
    error = engine.failure(f"Cannot connect to the Docker daemon at {host}.", "look")
    assert error.what == "the docker engine does not answer"
    assert error.fix[0].startswith(f"{start}, or: podman system service --time 0 {host}")
    assert "INVOKE_ENGINE=podman" in error.fix[1]
    assert podman.without_service("unix:///var/run/docker.sock") == []


# -- what it needs


def test_what_podman_lacks_is_found_with_its_remedy(tmp_path: Path, programs: Path) -> None:
    put(programs, "catatonit")
    (tmp_path / "subuid").write_text("ann:100000:65536\n")
    assert [*podman.lacks("root", 0, tmp_path)] == []
    ((what, fix),) = podman.lacks("ann", 1000, tmp_path)
    assert "subgid" in what
    assert fix == "sudo usermod --add-subgids 100000-165535 ann"
    (tmp_path / "subgid").write_text("1000:100000:65536\n")
    assert [*podman.lacks("ann", 1000, tmp_path)] == []


@pytest.mark.parametrize(
    ("env", "platform", "remote"),
    [
        ({}, "linux", False),
        ({}, "darwin", True),
        ({"CONTAINER_HOST": "ssh://ann@builder"}, "linux", True),
        ({"CONTAINER_CONNECTION": "builder"}, "linux", True),
    ],
)
def test_its_program_may_stand_for_another_machine(
    env: dict[str, str], platform: str, remote: bool
) -> None:
    assert podman.is_remote(env, platform) is remote

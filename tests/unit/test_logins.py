"""Logging in: who is let in, which container, how ssh finds it, what of the caller's changes."""

from __future__ import annotations

import runpy
import shlex
import subprocess
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from slipway import builds, engine, housekeeping, images, logins, processes
from slipway.engine import Caller, Docker, Mount, run_arguments
from slipway.errors import CANNOT_CREATE, NO_INPUT, USAGE, SlipwayError
from slipway.gpu import Answer
from slipway.logins import MARK, Keeper, Keys, Login, Wanted
from slipway.settings import ROOT
from tests.unit.fakes import make_site, make_workshop

SCRIPT = runpy.run_path(str(ROOT / "scripts" / "ssh"))
ANN = Caller(1000, 1000, "ann")
ED = "ssh-ed25519 " + "A" * 68
RSA = "ssh-rsa " + "B" * 372 + "=="
SK = "sk-ssh-ed25519@openssh.com " + "C" * 80


# -- who is let in


def test_keys_are_taken_from_what_ssh_add_and_pub_files_say() -> None:
    text = f"{ED} ann@laptop\n{RSA} \n\n# a comment\n{SK} a key, to touch\n"
    assert logins.keys_in(text) == [ED, RSA, SK]


@pytest.mark.parametrize(
    "line",
    [
        "The agent has no identities.",
        f'command="rm -r /" {ED}',
        "ssh-ed25519-cert-v01@openssh.com " + "A" * 68,
        "ssh-dss " + "A" * 68,
        "ssh-ed25519 short",
        f"{ED}\x00",
    ],
)
def test_what_is_no_plain_key_lets_nobody_in(line: str) -> None:
    assert logins.keys_in(line) == []


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], None]:
    def says(text: str, status: int = 0) -> None:
        def look(argv: list[str], **_: object) -> subprocess.CompletedProcess[str]:
            assert argv == ["ssh-add", "-L"]
            return subprocess.CompletedProcess(argv, status, text, "")

        monkeypatch.setattr(processes, "look", look)

    return says


def test_the_agent_s_keys_and_pairs_in_the_home_are_let_in_once(
    tmp_path: Path, agent: Callable[[str, int], None]
) -> None:
    agent(f"{ED} in the agent\n", 0)
    folder = tmp_path / ".ssh"
    folder.mkdir()
    for name, text in (("id_ed25519", ED), ("work.key", RSA), ("colleague", SK)):
        (folder / f"{name}.pub").write_text(f"{text} comment\n")
    for name in ("id_ed25519", "work.key"):
        (folder / name).write_text("private")
    # A public half alone may be anybody's.
    assert logins.callers_keys(tmp_path) == Keys(
        (ED, RSA), (folder / "id_ed25519", folder / "work.key")
    )


@pytest.mark.parametrize(
    ("text", "status"), [("The agent has no identities.\n", 1), ("", 2), ("", 127)]
)
def test_without_any_key_the_error_says_how_to_make_one(
    tmp_path: Path, agent: Callable[[str, int], None], text: str, status: int
) -> None:
    agent(text, status)
    with pytest.raises(SlipwayError) as caught:
        logins.callers_keys(tmp_path)
    assert caught.value.code == NO_INPUT
    assert "ssh-keygen -t ed25519" in caught.value.fix[0]


# -- the container


def arguments(tmp_path: Path, *, edit: bool = False, gpu: bool = False, **parts: Any) -> list[str]:
    site = make_site(tmp_path, **parts)
    if gpu:
        site = replace(site, gpu=Answer(("--gpus", "all"), "nvidia"))
    run, home = tmp_path / "run", tmp_path / "home"
    job = logins.job_of(site, run, home, port=2230, edit=edit, user=ANN)
    return run_arguments(
        job, "i", checkout="c", root=tmp_path, user=ANN, identity=tmp_path, terminal=False
    )


def test_the_container_stays_as_the_caller_with_a_home_that_is_kept(tmp_path: Path) -> None:
    argv = arguments(tmp_path)
    assert argv[:6] == ["run", "--detach", "--restart", "no", "--init", "--name"]
    assert argv[6] == "slipway-c-ssh-oar-cpu"
    for words in (
        ("--label", "slipway.checkout=c"),
        ("--user", "1000:1000"),
        ("--publish", "127.0.0.1:2230:2222"),
        ("--mount", f"type=bind,source={tmp_path}/home,target=/home/ann"),
        ("--mount", f"type=bind,source={tmp_path}/run,target=/run/slipway/ssh"),
        ("--shm-size", "1g"),
    ):
        assert words in list(pairwise(argv)), words
    assert argv[-4:] == ["i", f"{tmp_path}/scripts/ssh", "serve", "/run/slipway/ssh"]
    assert not {"--privileged", "--rm", "--network"} & set(argv)
    assert not any("tmpfs" in word for word in argv)


def test_it_has_the_environment_and_the_mounts_of_a_shell(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    job = logins.job_of(site, tmp_path / "run", tmp_path / "home", port=2230, edit=False, user=ANN)
    assert dict(job.env).items() >= builds.compiler_environment(site).items()
    assert [*job.mounts[2:]] == site.mounts()
    assert job.workdir == str(site.build)


@pytest.mark.parametrize("parts", [{}, {"build": {"system": "make"}}])
def test_the_source_can_be_written_to_only_where_that_is_asked_for(
    tmp_path: Path, parts: dict[str, Any]
) -> None:
    source = tmp_path / "examples" / "oar"
    writable = f"type=bind,source={source},target={source}"
    assert writable not in arguments(tmp_path, **parts)
    argv = arguments(tmp_path, edit=True, **parts)
    assert argv.count(writable) == 1
    assert [
        word for word in argv if word.startswith("type=bind") and f"target={source}" in word
    ] == [writable]
    assert "slipway.ssh.edit=yes" in argv


def test_a_gpu_is_given_as_other_jobs_get_it(tmp_path: Path) -> None:
    argv = arguments(tmp_path, gpu=True)
    assert ("--gpus", "all") in list(pairwise(argv))
    assert "slipway.ssh.gpu=yes" in argv
    assert "slipway.ssh.gpu=no" in arguments(tmp_path)


def test_what_is_mounted_into_the_home_has_its_place_there_before_docker_makes_it_as_root(
    tmp_path: Path,
) -> None:
    file = tmp_path / "file"
    file.touch()
    mounts = [
        (tmp_path, "/home/ann"),
        (tmp_path, "/home/ann/slipway/examples/oar"),
        (file, "/home/ann/linked/file"),
        (tmp_path, "/run/ccache"),
        (tmp_path, "/home/anna/oar"),
    ]
    found = logins.mount_points(mounts, "/home/ann")
    assert found == [("slipway/examples/oar", True), ("linked/file", False)]


def test_those_places_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "caller", lambda: ANN)
    file, home = tmp_path / "file", tmp_path / "home"
    file.touch()
    inside = (Mount(tmp_path, target="/home/ann/a/b"), Mount(file, target="/home/ann/c/d"))
    job = engine.Job(name="x", command=[], mounts=inside)
    logins.make_mount_points(home, job, Docker(make_workshop(tmp_path)))
    assert (home / "a" / "b").is_dir()
    assert (home / "c" / "d").is_file()


def test_the_image_is_a_layer_on_the_one_that_the_variant_is_built_in(tmp_path: Path) -> None:
    workshop = make_workshop(tmp_path)
    recipe = images.ssh_recipe(workshop, "slipway-dev:1")
    assert (recipe.target, recipe.arguments["DEV"]) == ("ssh", "slipway-dev:1")
    assert recipe.tag.startswith("slipway-dev-ssh:")
    assert recipe.key != images.ssh_recipe(workshop, "slipway-dev:2").key
    for content in images.ssh_recipe(replace(workshop, root=ROOT), "x").files.values():
        assert isinstance(content, Path)
        assert content.is_file()


def test_the_image_holds_no_host_key() -> None:
    stage = (ROOT / "Dockerfile.dev").read_text().split(" AS ssh\n")[1]
    assert "rm -f /etc/ssh/ssh_host_*" in stage.split("\nFROM ")[0].split("RUN ")[1]


def test_clean_spares_the_homes() -> None:
    assert logins.HOMES == housekeeping.HOMES


# -- ports


def test_the_port_of_last_time_is_tried_first_so_that_the_entry_stays_true() -> None:
    assert logins.ports(0, 0)[:2] == [2222, 2223]
    assert logins.ports(0, 2230)[:2] == [2230, 2222]
    assert logins.ports(0, 2230).count(2230) == 1
    assert logins.ports(0, 40000)[:2] == [40000, 2222]


def test_a_port_of_the_setting_s_is_the_only_one() -> None:
    assert logins.ports(2200, 2230) == [2200]


def begin(tmp_path: Path, port: int = 0, *, dry: bool = False) -> int:
    site = make_site(tmp_path)
    workshop = make_workshop(tmp_path, ssh_port=port)
    workshop = replace(workshop, dry=dry)
    keeper = Keeper(workshop, "oar-cpu")
    return logins.start(keeper, site, "i", Keys((ED,), ()), Wanted(), here=True)


@pytest.fixture
def docker(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What docker answers to a start at a port, by the published port."""
    answers: dict[str, str] = {}
    started: list[str] = []

    def start(_self: Docker, job: engine.Job, _image: str) -> str:
        assert job.hidden == {logins.KEYS: ED}
        started.append(job.ports[0])
        return answers.get(job.ports[0], "")

    monkeypatch.setattr(Docker, "start", start)
    monkeypatch.setattr(engine, "remove_container", lambda _name: None)
    monkeypatch.setattr(logins, "is_free", lambda port, lan: port != 2222 and not lan)
    return answers


def test_a_port_that_is_taken_meanwhile_is_passed_over(
    tmp_path: Path, docker: dict[str, str]
) -> None:
    docker["2223:2222"] = "Bind for 127.0.0.1:2223 failed: port is already allocated"
    assert begin(tmp_path) == 2224
    # And remembered.
    docker.clear()
    assert begin(tmp_path) == 2224


def test_a_port_of_the_setting_s_in_use_is_refused(tmp_path: Path, docker: dict[str, str]) -> None:
    with pytest.raises(SlipwayError) as caught:
        begin(tmp_path, 2222)
    assert caught.value.code == CANNOT_CREATE
    assert "port 2222 is in use" in caught.value.what
    assert "ssh_port" in caught.value.fix[0]


def test_docker_s_other_refusals_are_told(tmp_path: Path, docker: dict[str, str]) -> None:
    docker["2223:2222"] = "Error response from daemon: no space left on device"
    with pytest.raises(SlipwayError) as caught:
        begin(tmp_path)
    assert "no space left" in caught.value.cause


def test_dry_remembers_nothing(tmp_path: Path, docker: dict[str, str]) -> None:
    begin(tmp_path, dry=True)
    assert not (tmp_path / "out").exists()


# -- found again


def test_what_an_inspected_container_is_published_at() -> None:
    ports = {"2222/tcp": [{"HostIp": "127.0.0.1", "HostPort": "2231"}]}
    assert logins.published({"NetworkSettings": {"Ports": ports}}) == 2231
    assert logins.published({"NetworkSettings": {"Ports": {"2222/tcp": None}}}) == 0


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (Wanted(edit=True), "with a source tree that is read-only"),
        (Wanted(gpu="on"), "without a GPU"),
        (Wanted(edit=True, gpu="on"), "read-only and without a GPU"),
    ],
)
def test_another_way_than_it_runs_is_refused_not_restarted(wanted: Wanted, words: str) -> None:
    labels = {"slipway.ssh.edit": "no", "slipway.ssh.gpu": "no", "slipway.ssh.source": "/oar"}
    with pytest.raises(SlipwayError, match=words) as caught:
        logins.refuse_other(labels, wanted, Path("/oar"))
    assert "invoke ssh --stop" in caught.value.fix[0]
    more = {**labels, "slipway.ssh.edit": "yes", "slipway.ssh.gpu": "yes"}
    logins.refuse_other(more, wanted, Path("/oar"))
    logins.refuse_other(labels, Wanted(gpu="auto"), Path("/oar"))


def test_another_source_tree_is_refused_too() -> None:
    with pytest.raises(SlipwayError, match="with the source tree /oar"):
        logins.refuse_other({"slipway.ssh.source": "/oar"}, Wanted(), Path("/elsewhere"))


def test_the_host_key_counts_once_sshd_listens() -> None:
    key = f"host key {ED}\n"
    assert logins.said_key(key) == ""
    assert logins.said_key("Server listening on 0.0.0.0 port 2222.\n") == ""
    assert logins.said_key(f"{key}Server listening on 0.0.0.0 port 2222.\n") == ED


def test_in_place_there_is_nothing_to_log_in_to(tmp_path: Path) -> None:
    workshop = make_workshop(tmp_path, engine="host")
    with pytest.raises(SlipwayError, match="needs a container engine") as caught:
        logins.ssh(workshop, Wanted(), stop_it=False)
    assert caught.value.code == USAGE


# -- how ssh finds it


LOGIN = Login("oar-cpu", "1a2b3c4d", 2230, "ann", Path("/w/a b%c/known_hosts"), (Path("/h/key"),))


def options(text: str) -> dict[str, list[str]]:
    """An entry's options, as ssh splits its lines."""
    rows = [shlex.split(line, comments=True) for line in text.splitlines()]
    return {words[0]: words[1:] for words in rows if words}


def test_the_entry_pins_the_host_key_and_names_this_machine() -> None:
    found = options(logins.entry(LOGIN, Path("/w")))
    assert found == {
        "Host": ["slipway-oar-cpu", "slipway-oar-cpu-1a2b3c4d"],
        "HostName": ["127.0.0.1"],
        "Port": ["2230"],
        "User": ["ann"],
        "HostKeyAlias": ["slipway-1a2b3c4d"],
        "UserKnownHostsFile": ["/w/a b%%c/known_hosts"],
        "StrictHostKeyChecking": ["yes"],
        "IdentityFile": ["/h/key"],
    }


def test_the_entry_jumps_through_the_engine_s_machine() -> None:
    text = logins.entry(replace(LOGIN, jump="ann@builder:2200"), Path("/w"))
    assert options(text)["ProxyJump"] == ["ann@builder:2200"]


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("unix:///var/run/docker.sock", ""),
        ("npipe:////./pipe/docker_engine", ""),
        ("tcp://127.0.0.1:2375", ""),
        ("tcp://localhost:2375", ""),
        ("", ""),
        ("ssh://builder", "builder"),
        ("ssh://ann@builder.example.org:2200", "ann@builder.example.org:2200"),
        ("ssh://ann@[fd00::1]", "ann@[fd00::1]"),
        ("tcp://builder:2376", "builder"),
    ],
)
def test_an_engine_elsewhere_is_jumped_through(address: str, expected: str) -> None:
    assert logins.jump(address) == expected


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("", False),
        ("Include config.d/*\n", True),
        ("include ~/.ssh/config.d/*.conf\n", True),
        ('Include="/h/.ssh/config.d/slipway-*.conf"\n', True),
        ("# mine\nInclude other config.d/*\nHost x\n", True),
        ("Include other.d/*\n", False),
        ("Include config.d/work.conf\n", False),
        ("Host x\n  Include config.d/*\n", False),
        ("Match all\nInclude config.d/*\n", False),
        ("# Include config.d/*\n", False),
    ],
)
def test_whether_an_ssh_configuration_includes_ours(config: str, expected: bool) -> None:
    file = Path("/h/.ssh/config.d/slipway-c-oar-cpu.conf")
    assert logins.is_included(config, file, Path("/h")) is expected


@pytest.fixture
def keeper(tmp_path: Path) -> Keeper:
    return Keeper(make_workshop(tmp_path / "checkout"), "oar-cpu")


TEXT = f"{MARK} for /w: invoke ssh\nHost x\n"


def everything(home: Path) -> dict[str, tuple[bytes, int]]:
    files = (path for path in home.rglob("*") if path.is_file())
    return {str(f.relative_to(home)): (f.read_bytes(), f.stat().st_mode & 0o777) for f in files}


def test_the_entry_is_written_once_and_what_was_there_stays(keeper: Keeper, tmp_path: Path) -> None:
    home, mine = tmp_path / "home", b"Host \xe9\r\n  User me\r\n"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh" / "config").write_bytes(mine)
    (home / ".ssh" / "config").chmod(0o640)
    assert logins.write_config(keeper, home, TEXT, asked=True)
    first = everything(home)
    entry = keeper.entry_in(home).relative_to(home).as_posix()
    assert set(first) == {".ssh/config", entry}
    assert first[entry] == (TEXT.encode(), 0o600)
    content, mode = first[".ssh/config"]
    assert content.endswith(b"\n\n" + mine)
    assert mode == 0o640
    assert logins.is_included(content.decode(errors="replace"), keeper.entry_in(home), home)
    assert logins.write_config(keeper, home, TEXT, asked=True)
    assert everything(home) == first


def test_where_there_was_nothing_nobody_else_may_read_it(keeper: Keeper, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    logins.write_config(keeper, home, TEXT, asked=True)
    assert {mode for _, mode in everything(home).values()} == {0o600}
    assert (home / ".ssh").stat().st_mode & 0o777 == 0o700


def test_a_configuration_that_is_a_link_stays_one(keeper: Keeper, tmp_path: Path) -> None:
    home, dotfiles = tmp_path / "home", tmp_path / "dotfiles"
    (home / ".ssh").mkdir(parents=True)
    dotfiles.write_text("Host x\n")
    (home / ".ssh" / "config").symlink_to(dotfiles)
    logins.write_config(keeper, home, TEXT, asked=True)
    assert (home / ".ssh" / "config").is_symlink()
    assert "Include" in dotfiles.read_text()


def test_an_entry_is_made_only_when_asked_for_and_then_kept_up_to_date(
    keeper: Keeper, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    assert not logins.write_config(keeper, home, TEXT, asked=False)
    assert everything(home) == {}
    logins.write_config(keeper, home, TEXT, asked=True)
    assert logins.write_config(keeper, home, f"{TEXT}  Port 1\n", asked=False)
    assert keeper.entry_in(home).read_text().endswith("Port 1\n")


def test_a_file_of_somebody_else_s_is_not_replaced(keeper: Keeper, tmp_path: Path) -> None:
    home = tmp_path / "home"
    file = keeper.entry_in(home)
    file.parent.mkdir(parents=True)
    file.write_text("Host mine\n")
    with pytest.raises(SlipwayError, match="is not ours") as caught:
        logins.write_config(keeper, home, TEXT, asked=True)
    assert caught.value.code == CANNOT_CREATE
    assert file.read_text() == "Host mine\n"
    assert not (home / ".ssh" / "config").exists()


# -- inside: scripts/ssh


def test_sshd_takes_keys_of_one_user_and_nothing_else() -> None:
    found = SCRIPT["configuration"](Path("/run/slipway/ssh"), "ann", {"PATH": "/bin"})
    no = (
        "PasswordAuthentication",
        "KbdInteractiveAuthentication",
        "PermitEmptyPasswords",
        "UsePAM",
    )
    assert {found[name] for name in no} == {"no"}
    assert found["AuthenticationMethods"] == "publickey"
    assert found["PermitRootLogin"] == "prohibit-password"
    assert found["AllowUsers"] == "ann"
    assert found["AllowTcpForwarding"] == "yes"
    assert found["Subsystem"].startswith("sftp ")
    assert found["ListenAddress"].endswith(f":{logins.INSIDE}")


def test_a_session_gets_the_container_s_variables_but_not_its_own() -> None:
    environ = {
        "PATH": "/opt/slipway/bin:/bin",
        "CFLAGS": "-O2",
        "HOME": "/home/ann",
        "TERM": "dumb",
        "SSH_TTY": "x",
        "TWO": "a\nb",
        "SLIPWAY_KEYS": ED,
    }
    assert SCRIPT["passed"](environ) == {
        "PATH": "/opt/slipway/bin:/bin",
        "CFLAGS": "-O2",
        "SLIPWAY_PATH": "/opt/slipway/bin:/bin",
    }


def test_variables_stand_in_one_line_whatever_is_in_them() -> None:
    environ = {"A": 'a "b" \\c $d # é', "NINJA_STATUS": "[%f/%t %es] "}
    line = SCRIPT["configuration"](Path("/x"), "ann", environ)["SetEnv"]
    # In double quotes sshd and a POSIX shell undo the same two escapes.
    assert shlex.split(line) == [*(f"{k}={v}" for k, v in environ.items()), "SLIPWAY_PATH="]


def test_the_keys_replace_those_of_before_and_are_readable_by_nobody_else(tmp_path: Path) -> None:
    for keys in (ED, RSA):
        SCRIPT["let_in"](tmp_path, {"SLIPWAY_KEYS": keys})
    file = tmp_path / "authorized_keys"
    assert file.read_text() == f"{RSA}\n"
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["authorized_keys"]


def test_both_sides_call_things_by_the_same_names() -> None:
    assert (SCRIPT["KEYS"], SCRIPT["PORT"]) == (logins.KEYS, logins.INSIDE)
    assert SCRIPT["CANNOT_CREATE"] == CANNOT_CREATE
    assert SCRIPT["PATH"] in (ROOT / "scripts" / "ssh-profile").read_text()

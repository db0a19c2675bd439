"""``invoke ssh``: a container that the real ssh, scp and rsync reach, and nobody without a key."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.integration.workbench import (
    Checkout,
    Done,
    containers,
    give_to,
    listening,
    refused,
    strangers,
    succeed,
    wait_for,
)

NAME = "slipway-oar-cpu"


@dataclass(frozen=True)
class Station:
    """A checkout, and the home of who types in it."""

    checkout: Checkout
    home: Path

    @property
    def config(self) -> Path:
        """What `ssh -F` is given."""
        return self.checkout.out / "ssh" / "oar-cpu.conf"

    def invoke(self, *arguments: str, **env: str) -> Done:
        """Type `invoke ARGUMENTS`, with the keys of this home and no agent's."""
        own = {"HOME": str(self.home), "SSH_AUTH_SOCK": "", "PYTHONUNBUFFERED": "1"}
        if not self.checkout.user:
            own["XDG_CACHE_HOME"] = str(Path.home() / ".cache")  # what was compiled is there
        return self.checkout.invoke(*arguments, env={**own, **env}, timeout=280)

    def client(self, program: str, *arguments: str | Path) -> list[str]:
        """A program of the ssh client's that asks nobody."""
        plain = [program, "-F", str(self.config), "-o", "BatchMode=yes", "-o", "ConnectTimeout=10"]
        return [*plain, *map(str, arguments)]

    def log_in(self, *command: str, **more: Any) -> Done:
        """Run a command by ssh."""
        env = {**os.environ, "SSH_AUTH_SOCK": "", **more.pop("env", {})}
        return subprocess.run(
            self.client("ssh", *more.pop("options", ()), NAME, *command),
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            **{"stdin": subprocess.DEVNULL, **more},
        )

    @property
    def port(self) -> int:
        """The port of this machine that the entry names."""
        (port,) = re.findall(r"^  Port (\d+)$", self.config.read_text(), re.MULTILINE)
        return int(port)


def make_key(home: Path, name: str = "id_ed25519", uid: int = 0) -> Path:
    """A key without a passphrase in a home."""
    folder = home / ".ssh"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = folder / name
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "a test's", "-f", str(key)]
    subprocess.run(argv, check=True)
    give_to(folder, uid)
    return key


@pytest.fixture(scope="module", autouse=True)
def clients() -> None:
    missing = [name for name in ("ssh", "scp", "sftp", "rsync") if not shutil.which(name)]
    if missing:
        pytest.fail(f"no {', '.join(missing)} here: apt-get install openssh-client rsync")


@pytest.fixture(scope="module")
def desk(cloned: Callable[[str], Checkout], area: Path) -> Station:
    """A clone at a path with all that is special to ssh's configuration, and a home with a key."""
    home = area / "home of ann"
    make_key(home)
    return Station(cloned("100% of ü, mine"), home)


@pytest.fixture
def station(desk: Station, client: Any) -> Iterator[Station]:
    """That clone, in which nothing runs before and after."""
    yield desk
    succeed(desk.invoke("ssh", "--stop"))
    assert containers(client, desk.checkout) == []


@pytest.fixture
def somebody(ordinary: Checkout, client: Any) -> Iterator[Station]:
    """The clone of a user who is not root."""
    assert ordinary.user
    if not (ordinary.user.home / ".ssh").exists():
        make_key(ordinary.user.home, uid=ordinary.user.uid)
    found = Station(ordinary, ordinary.user.home)
    yield found
    succeed(found.invoke("ssh", "--stop"))
    assert containers(client, ordinary) == []


# -- logging in


def test_a_session_has_what_a_shell_has(station: Station) -> None:
    succeed(station.invoke("ssh"))
    shell = succeed(station.invoke("shell", "--", "env", "-0"))
    printed = shell[shell.rindex("\n$ docker") + 1 if "\n$ docker" in shell else 0 :]
    variables = dict(v.split("=", 1) for v in printed.split("\n", 1)[1].split("\0") if "=" in v)
    inside = succeed(station.log_in("env", "-0"))
    found = dict(v.split("=", 1) for v in inside.split("\0") if "=" in v)
    for name in ("PATH", "CFLAGS", "CXXFLAGS", "LDFLAGS", "CCACHE_DIR", "NINJA_STATUS", "LC_ALL"):
        assert found[name] == variables[name], name
    assert "SLIPWAY_KEYS" not in found
    assert found["HOME"] == "/root"
    # A person's is a login shell, which sets a PATH of its own; and it begins where a shell does.
    said = succeed(station.log_in("bash -lic 'echo $PATH; pwd'", options=["-tt"]))
    path, where = [line.strip() for line in said.splitlines() if line.startswith("/")]
    assert path == variables["PATH"]
    assert where == str(station.checkout.out / "oar" / "cpu" / "build")


def test_what_is_built_there_is_what_invoke_build_builds(station: Station) -> None:
    succeed(station.invoke("build"))
    succeed(station.invoke("ssh"))
    build = shlex.quote(str(station.checkout.out / "oar" / "cpu" / "build"))
    assert "no work to do" in succeed(station.log_in(f"ninja -C {build}"))


def test_everything_belongs_to_the_caller(somebody: Station) -> None:
    succeed(somebody.invoke("ssh"))
    assert succeed(somebody.log_in("id -u; whoami; touch in-home; pwd")).split()[0] == "1000"
    home = somebody.checkout.out / "ssh" / "home"
    assert (home / "in-home").is_file()
    assert strangers(somebody.checkout.out / "ssh", 1000) == []
    assert strangers(somebody.checkout.out / ".run" / "ssh", 1000) == []
    said = succeed(somebody.log_in("tty && echo $TERM", options=["-tt"]))
    assert "/dev/pts/" in said


def test_scp_sftp_and_rsync_copy_both_ways(station: Station, tmp_path: Path) -> None:
    succeed(station.invoke("ssh"))
    data = os.urandom(1_000_000)
    (tmp_path / "there").write_bytes(data)
    run = {"check": True, "stdin": subprocess.DEVNULL, "cwd": tmp_path, "timeout": 60}
    subprocess.run(station.client("scp", "-q", "there", f"{NAME}:by-scp"), **run)  # type: ignore[call-overload]
    subprocess.run(station.client("scp", "-q", f"{NAME}:by-scp", "scp"), **run)  # type: ignore[call-overload]
    remote = shlex.join(station.client("ssh"))
    for pair in (("there", f"{NAME}:by-rsync"), (f"{NAME}:by-rsync", "rsync")):
        subprocess.run(["rsync", "-e", remote, *pair], **run)  # type: ignore[call-overload]
    (tmp_path / "batch").write_text("put there by-sftp\nget by-sftp sftp\n")
    subprocess.run(station.client("sftp", "-b", "batch", NAME), **run)  # type: ignore[call-overload]
    for name in ("scp", "rsync", "sftp"):
        assert (tmp_path / name).read_bytes() == data, name
        assert (station.checkout.out / "ssh" / "home" / f"by-{name}").read_bytes() == data, name


def free_port() -> int:
    with listening("127.0.0.1") as server:
        return int(server.getsockname()[1])


def test_ports_are_forwarded(station: Station) -> None:
    succeed(station.invoke("ssh"))
    succeed(station.log_in("mkdir -p www && echo hello >www/page"))
    port = free_port()
    serve = "exec python3 -m http.server 9009 --bind 127.0.0.1 --directory www"
    argv = station.client("ssh", "-L", f"127.0.0.1:{port}:127.0.0.1:9009", NAME, serve)
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:

        def page() -> bytes:
            with contextlib.suppress(OSError):
                direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
                with direct.open(f"http://127.0.0.1:{port}/page", timeout=5) as answer:
                    return bytes(answer.read())
            return b""

        try:
            assert wait_for(page, "the page through the tunnel") == b"hello\n"
        finally:
            process.terminate()


def test_an_editor_s_way_in_works(station: Station) -> None:
    """What VS Code's Remote-SSH does first: a shell fed by standard input, with a SOCKS proxy."""
    succeed(station.invoke("ssh"))
    script = (
        "uname -sm; mkdir -p ~/.vscode-server && cd ~/.vscode-server && tar --version | head -1\n"
    )
    options = ["-T", "-D", str(free_port())]
    done = station.log_in("bash", options=options, input=script, stdin=None)
    said = succeed(done)
    assert "Linux x86_64" in said
    assert "GNU tar" in said


def test_what_is_started_there_runs_on_after_the_log_out(station: Station) -> None:
    succeed(station.invoke("ssh"))
    succeed(station.log_in("nohup sh -c 'sleep 2; echo done >trained' >/dev/null 2>&1 &"))
    trained = station.checkout.out / "ssh" / "home" / "trained"
    assert not trained.exists()
    succeed(station.log_in("tmux new-session -d 'sleep 2; echo done >in-tmux'"))
    wait_for(trained.exists, "what the training writes")
    wait_for((trained.parent / "in-tmux").exists, "what is written in tmux")


# -- who is let in


def test_there_is_no_password_and_another_key_is_refused(station: Station, area: Path) -> None:
    succeed(station.invoke("ssh"))
    asked = ["-v", "-o", "PubkeyAuthentication=no", "-o", "BatchMode=no"]
    done = station.log_in("true", options=asked, env={"SSH_ASKPASS_REQUIRE": "never"})
    assert done.returncode == 255
    offered = set(re.findall(r"can continue: (\S+)", done.stdout))
    assert offered == {"publickey"}
    other = make_key(area / "somebody else", "key")
    argv = [
        "ssh",
        "-F",
        "none",
        "-i",
        str(other),
        "-o",
        "IdentitiesOnly=yes",
        "-o",
        "BatchMode=yes",
    ]
    argv += ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
    argv += ["-p", str(station.port), "root@127.0.0.1", "true"]
    done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 255
    assert "Permission denied (publickey)" in done.stderr


def test_an_agent_s_key_is_enough(station: Station, area: Path, tmp_path: Path) -> None:
    key = make_key(area / "with an agent", "key")
    sock = str(tmp_path / "agent")
    with subprocess.Popen(["ssh-agent", "-D", "-a", sock], stdout=subprocess.DEVNULL) as agent:
        try:
            wait_for(lambda: Path(sock).exists(), "the agent's socket")
            env = {"SSH_AUTH_SOCK": sock}
            subprocess.run(["ssh-add", "-q", str(key)], check=True, env={**os.environ, **env})
            for half in (key, key.with_suffix(".pub")):
                half.unlink()
            succeed(station.invoke("ssh", HOME=str(area / "with an agent"), **env))
            assert succeed(station.log_in("echo in", env=env)) == "in\n"
        finally:
            agent.terminate()


def test_without_a_key_nothing_is_started(station: Station, area: Path, client: Any) -> None:
    home = area / "without a key"
    home.mkdir()
    done = station.invoke("ssh", HOME=str(home))
    refused(done, 66, "you have no ssh key", str(home / ".ssh"), "ssh-keygen -t ed25519")
    assert containers(client, station.checkout) == []


def test_a_new_key_is_let_in_by_a_second_call(station: Station, area: Path, client: Any) -> None:
    succeed(station.invoke("ssh"))
    (first,) = containers(client, station.checkout)
    home = area / "a second home"
    make_key(home)
    succeed(station.invoke("ssh", HOME=str(home)))
    assert str(home) in station.config.read_text()
    assert succeed(station.log_in("echo in")) == "in\n"
    assert [c.id for c in containers(client, station.checkout)] == [first.id]


# -- how it starts, and ends


def test_one_can_log_in_as_soon_as_the_command_ends(station: Station) -> None:
    """Not a moment later: nothing is tried twice here. How long it takes, the benchmarks say."""
    for _ in range(3):
        succeed(station.invoke("ssh", "--stop"))
        succeed(station.invoke("ssh"))
        assert succeed(station.log_in("echo in")) == "in\n"


def test_a_second_call_finds_the_first_and_refuses_another_way(
    station: Station, client: Any
) -> None:
    first = succeed(station.invoke("ssh"))
    (container,) = containers(client, station.checkout)
    (published,) = container.attrs["NetworkSettings"]["Ports"]["2222/tcp"]
    assert published == {"HostIp": "127.0.0.1", "HostPort": str(station.port)}
    assert not container.attrs["HostConfig"]["Privileged"]
    second = succeed(station.invoke("ssh"))
    assert "docker run" not in second
    assert (
        first[first.index("Host ") :].splitlines()[:4]
        == (second[second.index("Host ") :].splitlines()[:4])
    )
    refused(station.invoke("ssh", "--edit"), 73, "read-only", "invoke ssh --stop")
    assert [c.id for c in containers(client, station.checkout)] == [container.id]


def test_home_host_key_and_port_outlive_the_container(station: Station) -> None:
    succeed(station.invoke("ssh"))
    succeed(station.log_in("echo mine >kept"))
    known = station.checkout.out / ".run" / "ssh" / "known_hosts"
    before = (station.config.read_text(), known.read_text())
    assert "stopped" in succeed(station.invoke("ssh", "--stop"))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", station.port)).close()
    assert "nothing runs" in succeed(station.invoke("ssh", "--stop"))
    succeed(station.invoke("ssh"))
    assert (station.config.read_text(), known.read_text()) == before
    assert succeed(station.log_in("cat kept")) == "mine\n"
    host_key = known.parent / "host_ed25519"
    assert host_key.stat().st_mode & 0o077 == 0


def test_the_image_holds_no_host_key(station: Station, client: Any) -> None:
    succeed(station.invoke("ssh"))
    (container,) = containers(client, station.checkout)
    run = ["docker", "run", "--rm", container.attrs["Config"]["Image"], "ls", "/etc/ssh"]
    assert "ssh_host" not in subprocess.check_output(run, text=True)


def test_the_source_can_be_written_to_only_with_edit(station: Station) -> None:
    new = station.checkout.root / "examples" / "oar" / "new.txt"
    command = f"touch {shlex.quote(str(new))}"
    succeed(station.invoke("ssh"))
    done = station.log_in(command)
    assert (done.returncode, "Read-only file system" in done.stdout) == (1, True)
    succeed(station.invoke("ssh", "--stop"))
    succeed(station.invoke("ssh", "--edit"))
    succeed(station.log_in(command))
    assert new.exists()
    new.unlink()


def test_a_port_of_the_setting_s_that_is_in_use_is_refused(station: Station, client: Any) -> None:
    with listening("127.0.0.1") as server:
        port = str(server.getsockname()[1])
        done = station.invoke("ssh", INVOKE_SSH_PORT=port)
        refused(done, 73, f"port {port} is in use", "ssh_port in invoke.yaml")
        assert containers(client, station.checkout) == []
    succeed(station.invoke("ssh", INVOKE_SSH_PORT=port))
    assert station.port == int(port)


def test_an_engine_that_is_down(station: Station, area: Path) -> None:
    nowhere = f"unix://{area}/nowhere.sock"
    for arguments in (["ssh"], ["ssh", "--stop"]):
        done = station.invoke(*arguments, DOCKER_HOST=nowhere)
        refused(done, 69, "the docker engine does not answer", "nowhere.sock")


def test_ctrl_c_before_it_answers_leaves_nothing(station: Station, client: Any) -> None:
    succeed(station.invoke("ssh"))
    succeed(station.invoke("ssh", "--stop"))
    env = {"HOME": str(station.home), "SSH_AUTH_SOCK": ""}
    with station.checkout.start("ssh", env=env) as process:
        wait_for(lambda: containers(client, station.checkout), "a container")
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    # It may have been ready that soon.
    assert process.returncode in (0, 130), said
    assert len(containers(client, station.checkout)) == (1 if process.returncode == 0 else 0)


def test_dry_says_what_would_be_started_and_starts_nothing(station: Station, client: Any) -> None:
    said = succeed(station.invoke("--dry", "ssh"))
    assert re.search(r"--publish 127\.0\.0\.1:\d+:2222", said)
    assert "ssh-ed25519" not in said
    assert containers(client, station.checkout) == []


# -- the entry


def test_the_entry_is_written_once_and_ssh_finds_the_container_by_it(
    station: Station, area: Path
) -> None:
    home = area / "a home that is written to"
    make_key(home)
    mine = "Host mine\n  Port 1\n"
    (home / ".ssh" / "config").write_text(mine)
    said = succeed(station.invoke("ssh", "--write-config", HOME=str(home)))
    assert f"log in with: ssh {NAME}\n" in said
    config = home / ".ssh" / "config"
    first = config.read_text()
    assert first.endswith(f"\n\n{mine}")
    succeed(station.invoke("ssh", "--write-config", HOME=str(home)))
    assert config.read_text() == first
    (entry,) = (home / ".ssh" / "config.d").iterdir()
    assert entry.read_text() == station.config.read_text()
    for name in (NAME, f"{NAME}-{station.checkout.name}"):
        argv = ["ssh", "-F", str(config), "-o", "BatchMode=yes", name, "echo in"]
        assert subprocess.check_output(argv, text=True, stdin=subprocess.DEVNULL) == "in\n"
    # Who asked once has it kept up to date.
    succeed(station.invoke("ssh", "--stop", HOME=str(home)))
    succeed(station.invoke("ssh", HOME=str(home), INVOKE_SSH_PORT=str(free_port())))
    assert f"Port {station.port}\n" in entry.read_text()


def test_a_source_below_the_home_leaves_nothing_of_root_s_in_the_home_that_is_kept(
    somebody: Station,
) -> None:
    """docker makes what it mounts onto, as root, unless it is there."""
    name = succeed(somebody.checkout.typed("id", "-un")).strip() if _has_name(1000) else "caller"
    source = Path(f"/home/{name}/slipway-test-{os.getpid()}/oar")
    made = next(p for p in (source, *source.parents) if p.parent.exists())
    shutil.copytree(somebody.checkout.root / "examples" / "oar", source)
    give_to(made, 1000)
    try:
        succeed(somebody.invoke("ssh", "--source", str(source)))
        assert "CMakeLists.txt" in succeed(somebody.log_in(f"ls {source}"))
        succeed(somebody.invoke("ssh", "--stop"))
        assert strangers(somebody.checkout.out / "ssh", 1000) == []
    finally:
        shutil.rmtree(made)


def _has_name(uid: int) -> bool:
    import pwd

    with contextlib.suppress(KeyError):
        pwd.getpwuid(uid)
        return True
    return False

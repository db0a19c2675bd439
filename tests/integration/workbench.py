"""What the integration tests share: checkouts, the command line as a process, small trees."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from slipway.engine import LABEL, PROXIES
from slipway.settings import Settings, Workshop

ROOT = Path(__file__).resolve().parents[2]
PLAIN_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PATIENCE_S = 60  # for what happens in a second or two where nothing is broken

Done = subprocess.CompletedProcess[str]


def socket_path() -> Path:
    """The engine's socket, as ``DOCKER_HOST`` names it or where it always is."""
    return Path(urlsplit(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")).path)


@dataclass(frozen=True)
class User:
    """Who types the commands: another user than the one who runs the tests."""

    uid: int
    home: Path
    groups: tuple[int, ...] = ()


@dataclass(frozen=True)
class Checkout:
    """A clone of this repository, in which commands are typed."""

    root: Path
    user: User | None = None
    python: Path = field(default_factory=lambda: Path(sys.executable))

    @property
    def name(self) -> str:
        """What its containers and images carry as a label."""
        return Workshop(self.root, Settings()).checkout

    @property
    def label(self) -> dict[str, str]:
        """Filter of the SDK for what this checkout made."""
        return {"label": f"{LABEL}={self.name}"}

    @property
    def out(self) -> Path:
        """Everything produced."""
        return self.root / "out"

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """What a person's shell would have, without what the tests' own surroundings set."""
        foreign = ("INVOKE_", "SOURCE_DATE_EPOCH", "PYTEST_", "VIRTUAL_ENV")
        env = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
        if self.user:
            keep = ("PIP_", "SSL_", "REQUESTS_", "CURL_", "DOCKER_", *PROXIES)
            env = {k: v for k, v in env.items() if k.startswith(keep)}
            env |= {"HOME": str(self.user.home), "PATH": PLAIN_PATH}
        # The book takes minutes; it has tests of its own.
        own = {"PYTHONDONTWRITEBYTECODE": "1", "INVOKE_BOOK": ""}
        return {**env, **own, **(more or {})}

    def popen(self, *argv: str, **more: Any) -> subprocess.Popen[str]:
        """Start any program as this checkout's user, in a process group of its own."""
        who: dict[str, Any] = {}
        if self.user:
            who = {"user": self.user.uid, "group": self.user.uid, "extra_groups": self.user.groups}
        options: dict[str, Any] = {
            "cwd": self.root,
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.STDOUT,
            "text": True,
            "errors": "replace",
            "start_new_session": True,
            **who,
            **more,
            "env": self.environment(more.get("env")),
        }
        return subprocess.Popen(argv, **options)

    def typed(self, *argv: str, timeout: float = 600, **more: Any) -> Done:
        """Run any program as this checkout's user to its end; both streams come as ``stdout``."""
        text = more.pop("input", None)
        if text is not None:
            more["stdin"] = subprocess.PIPE
        with self.popen(*argv, **more) as process:
            try:
                output, _ = process.communicate(text, timeout=timeout)
            except BaseException:
                end(process)
                raise
        return subprocess.CompletedProcess(argv, process.returncode, output or "", "")

    def command(self, *arguments: str) -> list[str]:
        """The command line of a task."""
        return [str(self.python), "-m", "invoke", *arguments]

    def invoke(self, *arguments: str, **more: Any) -> Done:
        """Type ``invoke ARGUMENTS``."""
        return self.typed(*self.command(*arguments), **more)

    @contextlib.contextmanager
    def start(self, *arguments: str, **more: Any) -> Iterator[subprocess.Popen[str]]:
        """Type ``invoke ARGUMENTS`` and do not wait; whatever still runs at the end is killed."""
        with self.popen(*self.command(*arguments), **more) as process:
            try:
                yield process
            finally:
                end(process)


def end(process: subprocess.Popen[str]) -> None:
    """Kill a process with all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def succeed(done: Done) -> str:
    """What a command said, which must have succeeded."""
    assert done.returncode == 0, f"status {done.returncode}\n{done.stdout}"
    return done.stdout


def refused(done: Done, code: int, *words: str) -> str:
    """The error of a command: our status, what and the next command, and no traceback."""
    said = done.stdout
    assert done.returncode == code, f"status {done.returncode}, not {code}\n{said}"
    assert "Traceback" not in said, said
    error = said[said.find("error: ") :]
    assert error.startswith("error: "), said
    assert "\n  try: " in error, f"no next command\n{said}"
    for word in words:
        assert word in error, f"'{word}' is not in:\n{error}"
    return error


def wait_for(what: Callable[[], Any], why: str, seconds: float = PATIENCE_S) -> Any:
    """The first true answer of ``what``, which must come."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        answer = what()
        if answer:
            return answer
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {why}")


def git(directory: Path, *arguments: str, **env: str) -> str:
    """Run git for the tests' own sake, whoever owns the repository; trailing blanks are cut off."""
    trust = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory"}
    who = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    return subprocess.run(
        ["git", *who, *arguments],
        cwd=directory,
        env={**os.environ, **trust, "GIT_CONFIG_VALUE_0": "*", **env},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.rstrip()


def commit(directory: Path, message: str) -> None:
    """Commit everything, at the date of the commit before: the same files make the same hash."""
    date = git(directory, "show", "--no-patch", "--format=%cI")
    git(directory, "add", "--all")
    git(
        directory,
        *("-c", "commit.gpgsign=false", "-c", "core.hooksPath=/dev/null"),
        *("commit", "--quiet", "--allow-empty", "--message", message),
        GIT_AUTHOR_DATE=date,
        GIT_COMMITTER_DATE=date,
    )


def clone(source: Path, target: Path) -> None:
    """Clone a repository; hard links would share owners with it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    git(source, "clone", "--quiet", "--no-hardlinks", str(source), str(target))


def clone_working_tree(source: Path, target: Path) -> None:
    """Clone a repository and commit in the clone what is not committed in it yet."""
    clone(source, target)
    names = git(source, "ls-files", "-z", "--modified", "--others", "--exclude-standard")
    changed = [name for name in names.split("\0") if name]
    for name in changed:
        (target / name).unlink(missing_ok=True)
        if os.path.lexists(source / name):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / name, target / name, follow_symlinks=False)
    if changed:
        commit(target, "what was not committed yet")


def give_to(path: Path, uid: int) -> None:
    """Make a user the owner of everything below a directory."""
    for name, folders, files in os.walk(path):
        for entry in (name, *(os.path.join(name, e) for e in (*folders, *files))):
            os.lchown(entry, uid, uid)


def strangers(directory: Path, uid: int) -> list[str]:
    """Everything below a directory that belongs to somebody else than ``uid``."""
    paths = [directory, *directory.rglob("*")]
    return [f"{p}: {p.lstat().st_uid}" for p in paths if p.lstat().st_uid != uid]


PROJECT = """\
name: tiny
summary: a tree for a test
license: Apache-2.0
maintainer: Test <test@example.org>
variants: {cpu: {}}
"""

CMAKE = """\
cmake_minimum_required(VERSION 3.20)
project(tiny VERSION 1.0 LANGUAGES CXX)
add_executable(tiny main.cc one.cc two.cc)
install(TARGETS tiny)
enable_testing()
add_test(NAME starts COMMAND tiny)
"""

SOURCES = {
    "main.cc": "int one();\nint two();\nint main() { return one() + two() - 3; }\n",
    "one.cc": "int one() { return 1; }\n",
    "two.cc": "int two() { return 2; }\n",
}


def tree(directory: Path, *, cmake: str = "", project: str = "", **files: str) -> Path:
    """A CMake project of three files that compiles in a second, with additions.

    :param cmake: added to CMakeLists.txt.
    :param project: added to project.yaml.
    :param files: contents by stem of a ``.cc`` file.
    """
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "project.yaml").write_text(PROJECT + textwrap.dedent(project))
    (directory / "CMakeLists.txt").write_text(CMAKE + textwrap.dedent(cmake))
    for name, text in {**SOURCES, **{f"{k}.cc": v for k, v in files.items()}}.items():
        (directory / name).write_text(text)
    return directory


# Waits until a file appears in the source tree: what is seen meanwhile is seen in the middle of a
# build. By itself it ends after ten minutes.
GATE = """\
add_custom_target(gate ALL COMMAND
  bash -c "for i in {1..6000}; do [[ -e $0 ]] && exit 0; sleep 0.1; done; exit 9"
  "${CMAKE_SOURCE_DIR}/open"
  VERBATIM)
"""

# Keeps the compiler itself busy for minutes with an addition.
SLOW_CMAKE = (
    "target_compile_options(tiny PRIVATE"
    " -fconstexpr-ops-limit=99999999999 -fconstexpr-loop-limit=2147483647)\n"
)
SLOW = """\
constexpr unsigned long sum() {
  unsigned long s = 0;
  for (unsigned long i = 0; i < 2000000000ul; ++i) s += i;
  return s;
}
int two() { constexpr auto s = sum(); return s ? 2 : 0; }
"""


def containers(client: Any, checkout: Checkout) -> list[Any]:
    """The containers of a checkout, running or not."""
    return list(client.containers.list(all=True, filters=checkout.label, ignore_removed=True))


def runs(client: Any, checkout: Checkout, program: str) -> Any:
    """The container of a checkout in which a program of that name runs at this moment."""
    for container in containers(client, checkout):
        with contextlib.suppress(Exception):  # it may be going away
            table = container.top(ps_args="-eo pid,comm")
            if any(program in row[-1] for row in table["Processes"]):
                return container
    return None


def rows_of(said: str) -> dict[tuple[str, str], list[str]]:
    """The closing table of ``all``: step and variant to the cells of the row."""
    text = said[said.rindex("STEP ") :]
    lines = text[: text.index("\neverything:")].splitlines()
    cells = [re.split(r" {2,}", line) for line in lines[1:]]
    return {(row[0], row[1]): row for row in cells}


def shown_commands(said: str) -> list[str]:
    """The docker commands that a task printed, ready for a shell."""
    return [line[2:] for line in said.splitlines() if line.startswith("$ docker ")]


@contextlib.contextmanager
def tmpfs(directory: Path, size: str) -> Iterator[None]:
    """A small file system at a directory, over what is there."""
    made = not directory.exists()
    directory.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)], check=True
    )
    try:
        yield
    finally:
        subprocess.run(["umount", str(directory)], check=True)
        if made:
            directory.rmdir()


@contextlib.contextmanager
def listening(address: str = "") -> Iterator[socket.socket]:
    """A TCP socket that listens at a free port."""
    with socket.create_server((address, 0)) as server:
        server.settimeout(PATIENCE_S)
        yield server


@dataclass(frozen=True)
class Registry:
    """The reference registry, a process of this machine that listens on loopback."""

    name: str
    """HOST:PORT."""
    log: Path
    pid: int

    def asked(self, method: str, pattern: str) -> list[str]:
        """What it was asked for, by its access log: the paths of a method that match."""
        text = self.log.read_text(errors="replace")
        paths = re.findall(rf'^127\.\S+ .*"{method} (\S+) HTTP', text, re.MULTILINE)
        return [path for path in paths if re.search(pattern, path)]


def registry_program(directory: Path) -> str:
    """Debian's docker-registry, installed or unpacked into a directory."""
    program = shutil.which("docker-registry") or str(directory / "usr" / "bin" / "docker-registry")
    if not Path(program).is_file():
        subprocess.run(["apt-get", "update"], check=True, capture_output=True)
        fetch = ["apt-get", "-o", "APT::Sandbox::User=root", "download", "docker-registry"]
        subprocess.run(fetch, check=True, capture_output=True, cwd=directory)
        (package,) = directory.glob("docker-registry_*.deb")
        subprocess.run(["dpkg-deb", "--extract", str(package), str(directory)], check=True)
    return program


@contextlib.contextmanager
def serving(
    directory: Path, *, port: int = 0, user: str = "", password: str = ""
) -> Iterator[Registry]:
    """A registry that keeps what it gets in a directory, which may be a file system of its own.

    :param port: a free one where it is 0.
    :param user: who alone may use it, with the password.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if not port:
        with listening("127.0.0.1") as free:
            port = free.getsockname()[1]
    config = directory.with_suffix(".yml")
    lines = [
        "version: 0.1",
        f"storage: {{filesystem: {{rootdirectory: '{directory}'}}}}",
        f"http: {{addr: '127.0.0.1:{port}'}}",
    ]
    if user:
        file = directory.with_suffix(".htpasswd")
        make = ["htpasswd", "-c", "-i", "-B", "-C", "5", str(file), user]
        subprocess.run(make, check=True, input=password, text=True, capture_output=True)
        lines.append(f"auth: {{htpasswd: {{realm: test, path: '{file}'}}}}")
    config.write_text("\n".join(lines) + "\n")
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def answers() -> bool:
        try:
            with direct.open(f"http://127.0.0.1:{port}/v2/", timeout=5):
                return True
        except urllib.error.HTTPError as refusal:
            return refusal.code == 401
        except OSError:
            return False

    log = directory.with_suffix(".log")
    serve = [registry_program(directory.parent), "serve", str(config)]
    with log.open("ab") as stream, subprocess.Popen(serve, stdout=stream, stderr=stream) as process:
        try:
            wait_for(answers, "the registry answers")
            yield Registry(f"127.0.0.1:{port}", log, process.pid)
        finally:
            process.terminate()


def bridge_address(client: Any, image: str) -> str:
    """Where containers on the default network reach this machine: their gateway."""
    routes = client.containers.run(image, ["cat", "/proc/net/route"], remove=True).decode()
    rows = [line.split() for line in routes.splitlines()]
    (gateway,) = (row[2] for row in rows if row[1] == "00000000")
    return socket.inet_ntoa(bytes.fromhex(gateway)[::-1])


def snapshot(directory: Path) -> dict[str, tuple[int, int, int]]:
    """Everything below a directory: name to mode, size and time; git's own files aside."""
    found = {}
    for path in sorted(directory.rglob("*")):
        status = path.lstat()
        name = str(path.relative_to(directory))
        if name.startswith((".git/", ".venv")) or "__pycache__" in name:
            continue
        # A directory's time tells of files added and removed; .git's own changes with each look.
        when = 0 if name == ".git" else status.st_mtime_ns
        found[name] = (stat.S_IMODE(status.st_mode), status.st_size, when)
    return found

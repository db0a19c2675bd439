"""The one door to Docker: what is started in a container, with which arguments, and how it ends.

One pure function, ``run_arguments``, makes the argument list of every container; the ``docker`` CLI
runs it, or ``podman``, whose differences stand in ``slipway.podman``. Inside the dev image, and
with ``--engine host``, the same scripts run in place instead: paths are the same on both sides, so
nothing but the ``docker run`` falls away.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

import msgspec

from slipway import console, outputs, podman, processes
from slipway.errors import NO_INPUT, NO_PERMISSION, UNAVAILABLE, USAGE, SlipwayError, nearest
from slipway.records import Record
from slipway.settings import CONTAINER, ENGINES, Workshop

if TYPE_CHECKING:
    from slipway.volumes import Carrier

MARKER = Path("/etc/slipway-dev")  # stands in the dev image and nowhere else
LABEL = "slipway.checkout"
EVERYWHERE = "0.0.0.0"  # noqa: S104  # only where a job says lan
DOCKER_FAILED = 125  # docker run's own status when no program was started

PROXIES = tuple(
    name
    for low in ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")
    for name in (low, low.upper())
)

# Directories of a Debian image. A tree mounted onto or above one of these would hide what the tools
# need; below the first group all belongs to the image, of the second only the directory itself.
_IMAGE_TREES = (
    *("/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/proc", "/run"),
    *("/sbin", "/sys", "/usr", "/var/cache", "/var/lib/apt", "/var/lib/dpkg", "/opt/slipway"),
)
_IMAGE_DIRECTORIES = (
    *("/", "/home", "/media", "/mnt", "/opt", "/root", "/src", "/srv", "/tmp", "/var"),
    *("/var/backups", "/var/lib", "/var/local", "/var/log", "/var/mail", "/var/opt"),
    *("/var/spool", "/var/tmp"),
)
_NOT_THE_IMAGES = ("/usr/src", "/usr/local/src")


def hides_image(path: str) -> bool:
    """Whether a mount at ``path`` would hide a directory that the image needs."""
    if any(path.startswith(f"{free}/") for free in _NOT_THE_IMAGES):
        return False
    if path in _IMAGE_DIRECTORIES:
        return True
    return any(path == tree or path.startswith(f"{tree}/") for tree in _IMAGE_TREES)


def path_inside(path: PurePath, root: PurePath) -> str:
    """Where the host's ``path`` stands in a container: at itself, wherever that can be.

    A Windows path, or one that would hide a directory of the image, goes below ``/src``.

    :param root: the checkout; what lies in it keeps its place relative to it.
    """
    text = path.as_posix()
    if not path.drive and not hides_image(text):
        return text
    if path.is_relative_to(root):
        return f"/src/slipway/{path.relative_to(root).as_posix()}".removesuffix("/.")
    mark = hashlib.sha256(text.encode()).hexdigest()[:6]  # two directories may have one name
    return f"/src/{path.name or 'root'}-{mark}"


class Mount(Record, frozen=True):
    """A directory or file of the host, at its own path inside unless ``target`` names another."""

    source: Path
    target: str = ""
    readonly: bool = False
    instead_of: Path | None = None
    """The path that a copy is mounted at in place of the original."""
    stays_there: bool = False
    """An engine that does not see our files keeps its own: a cache."""


class Caller(Record, frozen=True):
    """Who typed the command: owner of everything that is produced."""

    uid: int
    gid: int
    name: str

    @property
    def home(self) -> str:
        """The caller's home inside a container."""
        return "/root" if self.uid == 0 else f"/home/{self.name}"


def caller() -> Caller:
    """The user who runs this process; on Windows, where files have no uid, root inside."""
    if not hasattr(os, "getuid"):
        return Caller(0, 0, "root")
    import pwd

    try:
        name = re.sub(r"[^A-Za-z0-9_.-]", "-", pwd.getpwuid(os.getuid()).pw_name)
    except KeyError:  # a uid without an entry, as on many CI machines
        name = "caller"
    return Caller(os.getuid(), os.getgid(), name)


class Job(Record, frozen=True):
    """One program to run: in a container, or in place."""

    name: str
    """What it is, for the container's name: ``build-oar-cpu``."""
    command: Sequence[str]
    mounts: Sequence[Mount] = ()
    env: Mapping[str, str] = msgspec.field(default_factory=dict)
    workdir: str = ""
    network: bool = False
    ports: Sequence[str] = ()
    shm_size: str = ""
    interactive: bool = False
    """A person types into it: standard input is passed on."""
    alone: bool = True
    """Only one of its name runs at a time, under a lock; else its name gets the process id."""
    inherit: Sequence[str] = ()
    """Variables passed on from the environment by name, so that no value is printed."""
    hidden: Mapping[str, str] = msgspec.field(default_factory=dict)
    """Variables whose values are printed nowhere, such as one that holds a password."""
    gpu: tuple[str, ...] = ()
    """Arguments that give the container the GPUs, as ``slipway.gpu`` has decided."""
    stays: bool = False
    """It goes on when the task has ended, and its container, with what it said, until removed."""
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    lan: bool = False
    """Its ports answer at every address of this machine, not at 127.0.0.1 alone."""
    capabilities: tuple[str, ...] = ()
    """Linux capabilities beyond the engine's own few, such as ``SYS_PTRACE``."""
    private: str = ""
    """A network of its own to be on, without a way out, by its name."""
    host: str = ""
    """What it is called there; with a dot, its own name is what stands before that."""
    memory: int = 0
    """Bytes that it may take, swap among them; 0: what there is."""
    wire: int = -1
    """File descriptor that is its standard input and output; its standard error is shown."""

    @property
    def stdin(self) -> int | None:
        """Where its standard input comes from; None: from where ours does."""
        if self.wire >= 0:
            return self.wire
        return None if self.interactive else subprocess.DEVNULL

    @property
    def stdout(self) -> int | None:
        """Where its standard output goes; None: where ours does."""
        return self.wire if self.wire >= 0 else None


class Place(Protocol):
    """Where scripts run."""

    def inside(self, path: Path) -> str:
        """Where the host's ``path`` stands for a job."""

    def run(self, job: Job, image: str, heard: processes.Heard | None = None) -> int:
        """Run a job to its end and return its exit status; ``heard`` is told what it says."""


def mount_argument(source: str, target: str, readonly: bool, kind: str = "bind") -> str:
    """The value of ``docker run --mount``: CSV, so a path may hold commas, colons and quotes."""
    fields = [f"type={kind}", f"source={source}", f"target={target}"]
    if readonly:
        fields.append("readonly")
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(fields)
    return text.getvalue()


def run_arguments(
    job: Job,
    image: str,
    *,
    checkout: str,
    root: Path,
    user: Caller,
    identity: Path,
    terminal: bool,
    volumes: Sequence[str] | None = None,
    rootless: str = "",
) -> list[str]:
    """The argument list, without the client's name, that runs ``job`` in a new container.

    :param identity: directory of generated passwd and group files; a bare ``--user`` breaks whoami,
        getpass, ssh and ccache.
    :param terminal: both ends are a terminal, so the program may draw on it.
    :param volumes: what mounts the directories instead, on an engine that does not see ours; the
        files are put into the container then, before it starts.
    :param rootless: the engine, ``docker`` or ``podman``, that runs as the caller and not as root.
    """
    if rootless == "docker":  # root inside is the caller here, and any other uid is nobody's
        user = Caller(0, 0, "root")
    name = container_name(job, checkout)
    ends = ["--detach", "--restart", "no"] if job.stays else ["--rm"]
    argv = ["run", *ends, "--init", "--name", name, "--label", f"{LABEL}={checkout}"]
    for key, value in job.labels.items():
        argv += ["--label", f"{key}={value}"]
    if job.interactive:
        argv.append("--interactive")
    if terminal:
        argv.append("--tty")
    argv += network_arguments(job)
    if job.shm_size:
        argv += ["--shm-size", job.shm_size]
    if job.memory:
        argv += ["--memory", str(job.memory), "--memory-swap", str(job.memory)]
    argv += [*job.gpu, *(word for name in job.capabilities for word in ("--cap-add", name))]
    if user.uid:
        argv += ["--userns", "keep-id"] if rootless == "podman" else []
        argv += ["--user", f"{user.uid}:{user.gid}"]
        for file in IDENTITY if volumes is None else ():
            argv += ["--mount", mount_argument(str(identity / file), f"/etc/{file}", True)]
        if not any(m.target == user.home for m in job.mounts):
            argv += ["--mount", f"type=tmpfs,target={user.home},tmpfs-mode=0777"]
    argv += volumes or ()
    for mount in job.mounts if volumes is None else ():
        target = mount.target or path_inside(mount.instead_of or mount.source, root)
        argv += ["--mount", mount_argument(str(mount.source), target, mount.readonly)]
    for key, value in {"HOME": user.home, "LC_ALL": "C.UTF-8", **job.env}.items():
        argv += ["--env", f"{key}={value}"]
    for key in (*job.inherit, *job.hidden):
        argv += ["--env", key]
    if job.workdir:
        argv += ["--workdir", job.workdir]
    return [*argv, image, *job.command]


def network_arguments(job: Job) -> list[str]:
    """Whom a container reaches, and who reaches it: nobody, unless the job says so."""
    if job.private:
        name = job.host.partition(".")[0]
        argv = ["--network", job.private, "--network-alias", job.host, "--hostname", name]
        # A name that is not there yet is asked for outside too, where nobody answers for 10 s.
        return [*argv, "--dns-option", "timeout:1", "--dns-option", "attempts:1"]
    argv = [] if job.network else ["--network", "none"]
    for port in job.ports:
        argv += ["--publish", f"{EVERYWHERE if job.lan else '127.0.0.1'}:{port}"]
    return argv


def container_name(job: Job, checkout: str) -> str:
    """``slipway-CHECKOUT-JOB``; the same each time when only one may run, so that one left behind
    by a process that was killed is found, not joined by a second.
    """
    name = f"slipway-{checkout}-{re.sub(r'[^a-zA-Z0-9_.-]', '-', job.name)}"
    return name if job.alone else f"{name}-{os.getpid()}"


def write_identity(user: Caller, directory: Path) -> None:
    """passwd and group files in which the caller has a name, a home and a shell.

    There is no group tty: where there is one, sshd gives it the terminal, which only root may.
    """
    lines = {
        "passwd": f"root:x:0:0:root:/root:/bin/bash\n"
        f"nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
        f"{user.name}:x:{user.uid}:{user.gid}::{user.home}:/bin/bash\n",
        "group": f"root:x:0:\nnogroup:x:65534:\n{user.name}:x:{user.gid}:\n",
    }
    if all(
        (directory / n).is_file() and (directory / n).read_text() == t for n, t in lines.items()
    ):
        return
    outputs.make(directory, directory.parent.parent)
    for name, text in lines.items():
        (directory / name).write_text(text)


def on_terminal() -> bool:
    """Whether a person sees and types: both ends are a terminal."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def client() -> str:
    """Path of the ``docker`` program that is first on PATH; of ``podman``, where that is chosen or
    is all that there is.
    """
    name, found = podman.client()
    if not found:
        raise SlipwayError(
            f"no {name} program on this machine",
            cause="Slipway runs the tools in containers",
            fix=[
                "./go invoke setup",
                "or, on Debian without containers: ./go invoke all --engine host",
            ],
        )
    return found


def failure(message: str, doing: str) -> SlipwayError:
    """What it means when docker answers with ``message``: cause and next command.

    :param doing: what was being done, for the case that the engine itself works.
    """
    text = message.strip()
    low = text.lower()
    known = podman.explain(text, caller().name)
    if known:
        return known
    if "permission denied" in low and (".sock" in low or "docker daemon socket" in low):
        return SlipwayError(
            "the docker engine's socket may not be used by this user",
            cause=text,
            fix=['sudo usermod -aG docker "$USER", then log in again'],
            code=NO_PERMISSION,
        )
    no_context = re.search(r'context "([^"]+)"(: context not found| does not exist)', text)
    if no_context:
        return SlipwayError(
            f"docker knows no context '{no_context[1]}'",
            cause=text,
            fix=[
                "docker context ls",
                "then set or unset DOCKER_CONTEXT, or docker context use NAME",
            ],
            code=NO_INPUT,
        )
    if "is too new" in low or ("api version" in low and "too old" in low):
        return SlipwayError(
            "the docker engine is older than this docker program can speak with",
            cause=text,
            fix=[
                "update that engine",
                "or export DOCKER_API_VERSION=, with the version named above",
            ],
            code=UNAVAILABLE,
        )
    # Then it is not the engine that is away; podman's program, which asks nobody, is one itself.
    answered = "error response from daemon" in low or podman.is_client()
    down = (
        *("cannot connect to the docker daemon", "failed to connect to the docker api"),
        *("is the docker daemon running", "error during connect", "connection refused"),
        *("dial tcp", "dial unix", "gave no answer within"),
    )
    if not answered and any(words in low for words in down):
        host = os.environ.get("DOCKER_HOST") or os.environ.get("DOCKER_CONTEXT")
        named = f"DOCKER_HOST or DOCKER_CONTEXT names it: {host}" if host else ""
        return SlipwayError(
            "the docker engine does not answer",
            cause=f"{text}\n{named}".strip(),
            fix=(podman.without_service(host) or ["start that engine, or unset the variable"])
            if host
            else ["./go invoke setup"],
            code=UNAVAILABLE,
        )
    name = podman.name()
    return SlipwayError(f"{name} failed: {doing}", cause=text, fix=["./go invoke doctor"])


def ask(arguments: Sequence[str], doing: str, *, missing_ok: bool = False) -> str:
    """Standard output of a docker look-up; the engine's refusal becomes an error.

    :param missing_ok: what was asked for need not be there (docker still prints what it found).
    """
    answer = processes.look([client(), *arguments])
    low = answer.stderr.lower()
    gone = "no such" in low and "no such file" not in low  # that file is the engine's socket
    gone = gone or "image not known" in low  # as podman has it
    if answer.returncode and not (missing_ok and gone):
        raise failure(answer.stderr or answer.stdout, doing)
    return answer.stdout


def local_socket() -> str:
    """Path of this machine's engine socket; empty when a variable or context names another."""
    if podman.is_client():
        return podman.socket()
    host = os.environ.get("DOCKER_HOST")
    if host:
        return host.removeprefix("unix://") if host.startswith("unix://") else ""
    if os.environ.get("DOCKER_CONTEXT"):
        return ""
    config = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"
    if config.is_file() and "currentContext" in config.read_text(errors="replace"):
        return ""
    return "/var/run/docker.sock"


def address() -> str:
    """The engine's address, such as ``ssh://ann@builder``: what the ``docker`` program uses."""
    if podman.is_client():
        return f"unix://{podman.socket()}"
    named = os.environ.get("DOCKER_HOST")
    if named:
        return named
    question = ["context", "inspect", "--format", "{{.Endpoints.docker.Host}}"]
    return ask(question, "ask for the context").strip()


def ask_socket(path: str) -> dict[str, Any] | None:
    """A look-up at the local engine without starting a client: 2 ms where that takes 20.

    None where it cannot be had in this way; the client then says in its own words what is wrong.
    """
    address = local_socket()
    # Podman's program needs no service, and one that runs may have other images than it.
    if podman.is_client() or not address or not hasattr(socket, "AF_UNIX"):
        return None
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(address)
            connection.sendall(f"GET {path} HTTP/1.0\r\nHost: docker\r\n\r\n".encode())
            with connection.makefile("rb") as stream:
                head, _, body = stream.read().partition(b"\r\n\r\n")
        if head.split()[1] not in (b"200", b"404"):
            return None
        answer: dict[str, Any] = json.loads(body)
    except (OSError, ValueError, IndexError):
        return None
    return answer


def info() -> dict[str, Any]:
    """What ``docker info`` says."""
    if podman.is_client():
        said = ask(["info", "--format", "json"], "ask the engine what it has")
        return podman.described(json.loads(said))
    found = ask_socket("/info")
    if not found or "ServerVersion" not in found:
        found = json.loads(ask(["info", "--format", "{{json .}}"], "ask the engine what it has"))
    return dict(found)


def inspect_images(*references: str) -> dict[str, dict[str, Any]]:
    """What ``docker image inspect`` says of those ``references`` that are there; one process."""
    asked = [ask_socket(f"/images/{quote(reference, safe='/:@')}/json") for reference in references]
    if None not in asked:
        return {r: a for r, a in zip(references, asked, strict=True) if a and "Id" in a}
    text = ask(["image", "inspect", *references], "look for images", missing_ok=True)
    found: dict[str, dict[str, Any]] = {}
    for image in json.loads(text or "[]"):
        names = {
            image["Id"],
            f"sha256:{image['Id']}",
            *map(podman.plain_name, image.get("RepoTags") or ()),
        }
        for reference in references:
            full = reference if ":" in reference.rpartition("/")[2] else f"{reference}:latest"
            if names & {reference, podman.plain_name(full)}:
                found[reference] = image
    return found


def inspect_container(name: str) -> dict[str, Any] | None:
    """What ``docker container inspect`` says of a container; None when there is none."""
    answer = ask_socket(f"/containers/{quote(name)}/json")
    if answer is None:
        text = ask(["container", "inspect", name], "look for a container", missing_ok=True)
        answer = next(iter(json.loads(text or "[]")), {})
    return answer if "Id" in answer else None


IDENTITY = ("passwd", "group")


class Docker(Record, frozen=True):
    """Jobs run in containers of the docker engine."""

    workshop: Workshop

    def inside(self, path: Path) -> str:
        """See ``path_inside``."""
        return path_inside(path, self.workshop.root)

    def _identity(self) -> Path:
        """Directory of passwd and group for this user, which is made."""
        user = caller()
        identity = self.workshop.out / ".run" / f"uid-{user.uid}"
        if user.uid and not self.workshop.dry:
            write_identity(user, identity)
        return identity

    def _carrier(self, job: Job, image: str) -> Carrier | None:
        """The way of the job's files, where the engine does not see them; they are there then."""
        from slipway import volumes

        if not job.mounts or not volumes.are_needed(self.workshop, image):
            return None
        identity = [Mount(self._identity() / file, f"/etc/{file}") for file in IDENTITY]
        mounts = [*job.mounts, *(identity if caller().uid else ())]
        places = volumes.places_of(mounts, self.workshop)
        files = [mount for mount in mounts if mount.source.is_file()]
        carrier = volumes.Carrier(self.workshop, image, places, files)
        carrier.send()
        return carrier

    def _command(self, job: Job, image: str, *, terminal: bool) -> tuple[list[str], Carrier | None]:
        """The command that runs ``job``, and the way that its files have gone."""
        carrier = self._carrier(job, image)
        return [client(), *self._arguments(job, image, terminal, carrier)], carrier

    def _created(self, argv: list[str], job: Job, carrier: Carrier | None) -> list[str]:
        """The command that starts the container which ``argv`` would run: where files have to be
        put into it first, it is made.
        """
        if not carrier or not carrier.files:
            return argv
        name = container_name(job, self.workshop.checkout)
        create = [client(), "create", *argv[2:]]
        if job.stays:
            create.remove("--detach")
        if job.alone and inspect_container(name):
            remove_container(name)
        with processes.undone(lambda: remove_container(name)):
            answer = processes.look(create, env=job.hidden)
            if answer.returncode:
                raise failure(answer.stderr, f"make {name}")
            carrier.put_files(name)
        ends = [] if job.stays else ["--attach", *(["--interactive"] if job.interactive else [])]
        return [client(), "start", *ends, name]

    def bring_back(self, container: str) -> None:
        """Fetch what a container that stays has written, from an engine that does not see ours."""
        from slipway import volumes

        found = inspect_container(container)
        if (
            found
            and volumes.is_elsewhere(self.workshop.root)
            and (places := volumes.places_in(found))
        ):
            volumes.Carrier(self.workshop, found["Image"], places).fetch()

    def _arguments(
        self, job: Job, image: str, terminal: bool, carrier: Carrier | None
    ) -> list[str]:
        user, identity = caller(), self._identity()
        return run_arguments(
            job,
            image,
            checkout=self.workshop.checkout,
            root=self.workshop.root,
            user=user,
            identity=identity,
            terminal=terminal,
            volumes=carrier.arguments() if carrier else None,
            rootless=rootless(user),
        )

    def look(self, job: Job, image: str, *, timeout: float) -> subprocess.CompletedProcess[str]:
        """Run a short ``job`` for what it says; like ``processes.look``, never an error."""
        name = container_name(job, self.workshop.checkout)
        argv, carrier = self._command(job, image, terminal=False)
        argv = self._created(argv, job, carrier)
        try:
            done = processes.look(argv, timeout=timeout)
        except BaseException:
            remove_container(name)  # the client that a signal ended has left it running
            raise
        if done.returncode == processes.NO_ANSWER:
            remove_container(name)
        return done

    def start(self, job: Job, image: str) -> str:
        """Start a ``job`` that stays, and come back; docker's words when it cannot be started."""
        argv, carrier = self._command(job, image, terminal=False)
        console.show_command(argv)
        if self.workshop.dry:
            return ""
        argv = self._created(argv, job, carrier)
        answer = processes.look(argv, env=job.hidden)
        return "" if answer.returncode == 0 else answer.stderr or f"status {answer.returncode}"

    def run(self, job: Job, image: str, heard: processes.Heard | None = None) -> int:
        """Run ``job`` in a container that is gone afterwards, whatever ends it."""
        name = container_name(job, self.workshop.checkout)
        terminal = on_terminal() if job.interactive else sys.stdout.isatty()
        terminal = terminal and job.wire < 0
        argv, carrier = self._command(job, image, terminal=terminal)
        console.show_command(argv)
        if self.workshop.dry:
            return 0
        argv = self._created(argv, job, carrier)

        def start() -> int:
            return processes.call(
                argv,
                env=job.hidden,
                stdin=job.stdin,
                stdout=job.stdout,
                show=self._shown(job),
                heard=heard,
                on_stop=lambda: remove_container(name),
            )

        status = start()
        if status in podman.MAY_NOT_START and not carrier:
            self._explain(argv[: len(argv) - len(job.command)])
        if status == DOCKER_FAILED and job.alone and _is_ours(name, self.workshop.checkout):
            # Left by a process that SIGKILL ended: the lock is ours, so nobody waits for it.
            console.say(f"removing {name}, left behind by a killed process")
            remove_container(name)
            status = start()
        if carrier:
            self._conclude(carrier, name, status)
        return status

    def _explain(self, argv: Sequence[str]) -> None:
        """Raise what hinders podman from starting any program so, where something does: its own
        words went to the terminal, and the status may be the program's.
        """
        if podman.is_client() or podman.is_behind(ask_socket("/version")):
            answer = processes.look([*argv, "true"])
            known = podman.explain(answer.stderr, caller().name) if answer.returncode else None
            if known:
                raise known

    def _conclude(self, carrier: Carrier, name: str, status: int) -> None:
        """Bring back what a job has written; say what is left where when the engine has gone."""
        try:
            if status:
                ask(["version", "--format", "{{.Server.Version}}"], "ask the engine")
            carrier.fetch()
        except SlipwayError as error:
            there = ", ".join(place.volume for place in carrier.places)
            raise SlipwayError(
                f"the engine at {address()} went away",
                cause=f"{error.cause}\nleft there: the container {name}, which may still run, and "
                f"the volumes {there} with what it has written; here all is as it was before",
                fix=["the same command, once it answers again: it goes on from there"],
                code=UNAVAILABLE,
            ) from error

    def _shown(self, job: Job) -> Callable[[str], str] | None:
        """A filter that maps paths below /src back to the host's, where any are mapped."""
        moved = {
            self.inside(path): str(path)
            for path in (m.instead_of or m.source for m in job.mounts if not m.target)
            if self.inside(path) != str(path)
        }
        if not moved or job.interactive:
            return None

        def back(line: str) -> str:
            for inside in sorted(moved, key=len, reverse=True):
                line = line.replace(inside, moved[inside])
            return line

        return back


def path_in_place(workshop: Workshop) -> str:
    """PATH of jobs in place: no virtual environment or pyenv of the host leaks into a build."""
    tools = workshop.cache / "host" / "bin"
    return f"{tools}:/opt/slipway/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class InPlace(Record, frozen=True):
    """Jobs run on this machine itself: we are inside the dev image, or were told ``host``."""

    workshop: Workshop

    def inside(self, path: Path) -> str:
        """Paths are what they are."""
        return str(path)

    def run(  # the protocol's signature, in which the image plays no part here
        self,
        job: Job,
        image: str,  # noqa: ARG002
        heard: processes.Heard | None = None,
    ) -> int:
        """Run ``job`` here, in a process group that ends with us."""
        home = os.environ.get("HOME", "/")
        env = {"HOME": home, "PATH": path_in_place(self.workshop), "LC_ALL": "C.UTF-8", **job.env}
        for name in ("TERM", "USER", "TMPDIR", *PROXIES):
            if name in os.environ:
                env.setdefault(name, os.environ[name])
        # Values that are hidden come by the environment: an argument list is for all to read.
        kept = [f"{k}={v}" for k, v in env.items()]
        cleared = [f"--unset={name}" for name in os.environ if name not in job.hidden]
        argv = ["env", *(cleared if job.hidden else ["--ignore-environment"]), *kept, *job.command]
        shown = [f"{k}={shlex.quote(v)}" for k, v in job.env.items()]
        console.say(console.dim(f"$ {' '.join([*shown, shlex.join(job.command)])}"))
        if self.workshop.dry:
            return 0
        return processes.call(
            argv,
            env=job.hidden,
            cwd=Path(job.workdir) if job.workdir else None,
            stdin=job.stdin,
            stdout=job.stdout,
            heard=heard,
            own_group=not job.interactive,
        )


def place(workshop: Workshop, wanted: str = "") -> Place:
    """Where jobs run: what ``--engine`` or the setting says; in the dev image, in place."""
    if wanted == CONTAINER:
        return Docker(workshop)
    chosen = choice(workshop, wanted)
    if chosen == "host" or (chosen == "auto" and MARKER.exists()):
        return InPlace(workshop)
    return Docker(workshop)


def choice(workshop: Workshop, wanted: str) -> str:
    """The engine that ``--engine`` names, else the setting's; it is the client's from now on."""
    if wanted and wanted not in ENGINES:
        raise SlipwayError(
            f"no engine '{wanted}'",
            cause=nearest(wanted, ENGINES),
            fix=["invoke build --help"],
            code=USAGE,
        )
    chosen = wanted or workshop.settings.engine
    podman.choose(chosen)
    return chosen


def rootless(user: Caller) -> str:
    """The name of an engine that runs as this user instead of root; empty for all others."""
    if not user.uid:
        return ""
    if podman.is_client():
        return "podman"
    here = local_socket() or address().removeprefix("unix://")
    return "docker" if here.startswith("/run/user/") else ""


def _is_ours(name: str, checkout: str) -> bool:
    answer = processes.look(
        [
            client(),
            "container",
            "inspect",
            "--format",
            f'{{{{index .Config.Labels "{LABEL}"}}}}',
            name,
        ]
    )
    return answer.returncode == 0 and answer.stdout.strip() == checkout


def remove_container(*names: str) -> None:
    """Remove containers that run or are just being created; that they are gone is what counts."""
    _remove(["rm", "--force", "--volumes", *podman.at_once(), *names])


def remove_network(name: str) -> None:
    """Remove a network that is there or just being made."""
    _remove(["network", "rm", name])


def _remove(arguments: Sequence[str]) -> None:
    for _ in range(3):  # the engine may finish a create that was under way when its client died
        answer = processes.look([client(), *arguments], timeout=20)
        if answer.returncode == 0 and "no such container" not in answer.stderr.lower():
            return
        processes.look(["sleep", "0.3"])


def memory() -> int:
    """Bytes that containers may take now: what is free here, or all of another machine's."""
    total = int(info()["MemTotal"])
    free = Path("/proc/meminfo")
    if not local_socket() or not free.is_file():
        return total
    found = re.search(r"^MemAvailable: +(\d+) kB$", free.read_text(), re.MULTILINE)
    return min(total, int(found[1]) * 1024) if found else total


def build_client() -> tuple[list[str], dict[str, str]]:
    """The command that builds images with BuildKit, and the variables that it needs.

    A client with the buildx plug-in, else one of before Docker 23 that has BuildKit built in; the
    first on PATH that is either. Podman builds without BuildKit, also where it is behind a socket.
    """
    if podman.is_client():
        return podman.build_command(client()), {}
    if podman.is_behind(ask_socket("/version")):
        return podman.build_command(podman.builder(), f"unix://{local_socket()}"), {}
    seen: list[str] = []
    for directory in os.get_exec_path():
        docker = shutil.which("docker", path=directory)
        if not docker or os.path.realpath(docker) in seen:
            continue
        seen.append(os.path.realpath(docker))
        if processes.look([docker, "buildx", "version"]).returncode == 0:
            # The builder of the engine's own: another one cannot see the images that are here.
            context = processes.look([docker, "context", "show"]).stdout.strip() or "default"
            return [docker, "buildx", "build", "--builder", context, "--load"], {}
        version = processes.look([docker, "--version"]).stdout
        match = re.search(r"version (\d+)\.", version)
        if match and 18 < int(match.group(1)) < 23:
            return [docker, "build"], {"DOCKER_BUILDKIT": "1"}
    client()  # the error for no docker at all
    raise SlipwayError(
        "no docker client on this machine can build with BuildKit",
        cause=f"found {', '.join(seen)}: newer than 22 and without the buildx plug-in",
        fix=[
            "apt-get install docker-buildx (Debian 13) or docker-buildx-plugin (Docker's packages)"
        ],
    )

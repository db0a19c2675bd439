"""A development container to log in to: sshd in it, the caller's keys, and how ssh finds it.

What happens inside is ``scripts/ssh``. The container has what ``invoke shell`` has, a network, and
a home that stays; it runs until it is stopped, so what is started in it goes on after a log-out.
"""

from __future__ import annotations

import fnmatch
import os
import re
import shlex
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from msgspec.structs import replace

from slipway import builds, console, engine, gpu, images, locks, outputs, processes, receipts
from slipway.builds import Site
from slipway.engine import Job, Mount
from slipway.errors import CANNOT_CREATE, NO_INPUT, USAGE, SlipwayError
from slipway.project import resolve
from slipway.reading import LOOPBACK, is_free, is_taken, last_words
from slipway.records import Record
from slipway.settings import CONTAINER, Workshop

HOMES = "ssh"  # below out/: homes; `clean` spares them
INSIDE = 2222  # where sshd answers in the container; a lower port needs root
FIRST_PORT = 2222
PORTS = 100  # so many are tried
KEYS = "SLIPWAY_KEYS"
RUN = "/run/slipway/ssh"
EDIT_LABEL = "slipway.ssh.edit"
GPU_LABEL = "slipway.ssh.gpu"
SOURCE_LABEL = "slipway.ssh.source"
PATIENCE_S = 30
MARK = "# Written by Slipway"

# What `ssh-keygen` and agents call the kinds of keys that sshd takes; certificates are none.
KEY = re.compile(
    r"(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(?:256|384|521)|sk-(?:ssh-ed25519|ecdsa-sha2-nistp256)"
    r"@openssh\.com) +([A-Za-z0-9+/]{40,}={0,2})(?:\s.*)?"
)


class Wanted(Record, frozen=True):
    """What the command line says."""

    variant: str = ""
    project: str = ""
    source: str = ""
    gpu: str = ""
    edit: bool = False
    write_config: bool = False


class Keys(Record, frozen=True):
    """Who is let in."""

    public: tuple[str, ...]
    """Type and key, without the comment."""
    identities: tuple[Path, ...]
    """Files with the private halves of those that are no agent's alone."""


class Login(Record, frozen=True):
    """A container that takes logins, as ssh has to know it."""

    title: str
    """``oar-cpu``."""
    checkout: str
    port: int
    user: str
    known_hosts: Path
    identities: tuple[Path, ...]
    jump: str = ""
    """For ProxyJump: the engine's machine, where that is another one."""

    @property
    def name(self) -> str:
        """``slipway-oar-cpu``."""
        return f"slipway-{self.title}"

    @property
    def full_name(self) -> str:
        """The same, told from that of other checkouts."""
        return f"{self.name}-{self.checkout}"


# -- deciding


def keys_in(text: str) -> list[str]:
    """The public keys in what ``ssh-add -L`` says, or in a ``.pub`` file."""
    found = (KEY.fullmatch(line.strip()) for line in text.splitlines())
    return [f"{match[1]} {match[2]}" for match in found if match]


def jump(address: str) -> str:
    """What ProxyJump says for an engine's address; empty: the engine is on this machine."""
    parts = urlsplit(address)
    host = parts.hostname or ""
    if parts.scheme not in ("ssh", "tcp", "http", "https") or not host:
        return ""
    if host == "localhost" or host == "::1" or host.startswith("127."):
        return ""
    host = f"[{host}]" if ":" in host else host
    if parts.scheme != "ssh":  # the port is the engine's, not sshd's
        return host
    user = f"{parts.username}@" if parts.username else ""
    return f"{user}{host}{f':{parts.port}' if parts.port else ''}"


def ports(fixed: int, last: int) -> list[int]:
    """The ports to try, in order: the setting's alone, else that of last time and the usual ones.

    :param last: 0: there was none.
    """
    if fixed:
        return [fixed]
    return list(dict.fromkeys([*([last] if last else []), *range(FIRST_PORT, FIRST_PORT + PORTS)]))


def quoted(path: Path) -> str:
    """A path in ssh's configuration, where ``%`` has a meaning."""
    text = path.as_posix().replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{text}"'


def entry(login: Login, root: Path) -> str:
    """The Host entry by which ssh, and all that uses it, finds the container."""
    lines = [
        f"{MARK} for {root}: invoke ssh",
        f"Host {login.name} {login.full_name}",
        f"  HostName {LOOPBACK}",
        f"  Port {login.port}",
        f"  User {login.user}",
        f"  HostKeyAlias slipway-{login.checkout}",
        f"  UserKnownHostsFile {quoted(login.known_hosts)}",
        "  StrictHostKeyChecking yes",
        *(f"  IdentityFile {quoted(path)}" for path in login.identities),
        *([f"  ProxyJump {login.jump}"] if login.jump else []),
    ]
    return "\n".join([*lines, ""])


def is_included(config: str, file: Path, home: Path) -> bool:
    """Whether an ssh configuration includes ``file`` for every host.

    :param home: the caller's; relative patterns are relative to its ``.ssh``.
    """
    for line in config.splitlines():
        words = re.match(r"\s*(\w+)\s*[\s=]\s*(.*)", line)
        keyword = words[1].lower() if words else ""
        if keyword in ("host", "match"):
            return False  # what follows is for some hosts only
        if not words or keyword != "include":
            continue
        for pattern in re.findall(r'"([^"]+)"|(\S+)', words[2]):
            text = pattern[0] or pattern[1]
            text = f"{home}/{text[2:]}" if text.startswith("~/") else text
            whole = home / ".ssh" / text
            if whole.parent == file.parent and fnmatch.fnmatchcase(file.name, whole.name):
                return True
    return False


def mount_points(mounts: Sequence[tuple[Path, str]], home: str) -> list[tuple[str, bool]]:
    """Where in a home other things are mounted: relative path, and whether it is a directory.

    docker would make these itself, as root, in the home that is kept.

    :param mounts: what, and where it stands inside.
    """
    top = PurePosixPath(home)
    found = [(source, PurePosixPath(target)) for source, target in mounts]
    return [
        (target.relative_to(top).as_posix(), not source.is_file())
        for source, target in found
        if target != top and target.is_relative_to(top)
    ]


def job_of(
    site: Site, run: Path, home: Path, *, port: int, edit: bool, user: engine.Caller | None = None
) -> Job:
    """The container in which one logs in to a site.

    :param run: directory that holds host key and authorized keys.
    :param home: the home that is kept.
    """
    who = user or engine.caller()
    job = site.job("ssh", ["serve", RUN], builds.compiler_environment(site), network=True)
    mounts = [
        m for m in site.mounts() if not (edit and site.tree.source in (m.source, m.instead_of))
    ]
    if edit:
        mounts.insert(0, Mount(site.tree.source))
    job = replace(
        job,
        mounts=[Mount(home, target=who.home), Mount(run, target=RUN), *mounts],
        env={**job.env, "SLIPWAY_BUILD": site.place.inside(site.build)},
        workdir=site.place.inside(site.build),
        ports=[f"{port}:{INSIDE}"],
        stays=True,
        labels={
            EDIT_LABEL: "yes" if edit else "no",
            GPU_LABEL: "yes" if site.gpu.arguments else "no",
            SOURCE_LABEL: str(site.tree.source),
        },
    )
    return site.given_gpu(job)


def refuse_other(labels: Mapping[str, str], wanted: Wanted, source: Path) -> None:
    """Say so when what is asked for is not how the container runs already.

    :param source: the tree that is asked for.
    """
    words = []
    if labels.get(SOURCE_LABEL) != str(source):
        words.append(f"with the source tree {labels.get(SOURCE_LABEL)}")
    if wanted.edit and labels.get(EDIT_LABEL) != "yes":
        words.append("with a source tree that is read-only")
    if wanted.gpu == "on" and labels.get(GPU_LABEL) != "yes":
        words.append("without a GPU")
    if words:
        raise SlipwayError(
            f"the container runs already, {' and '.join(words)}",
            cause="what runs in it would be lost if it were started again unasked",
            fix=["invoke ssh --stop, then the same command"],
            code=CANNOT_CREATE,
        )


def published(container: Mapping[str, Any]) -> int:
    """The port of this machine that leads to a container's sshd; 0: none."""
    found = container["NetworkSettings"]["Ports"].get(f"{INSIDE}/tcp") or [{}]
    return int(found[0].get("HostPort", 0))


def said_key(words: str) -> str:
    """The host key in a container's words, once sshd listens; empty until then."""
    key = re.search(r"^host key (\S+ \S+)$", words, re.MULTILINE)
    return key[1] if key and "Server listening on" in words else ""


# -- acting


def callers_keys(home: Path) -> Keys:
    """The public keys of the agent, and those in ``~/.ssh`` whose private half is beside them.

    A ``.pub`` alone may be anybody's.
    """
    agent = processes.look(["ssh-add", "-L"], timeout=5)
    public = keys_in(agent.stdout) if agent.returncode == 0 else []
    identities = []
    for file in sorted((home / ".ssh").glob("*.pub")):
        found = keys_in(file.read_text(encoding="utf-8", errors="replace"))
        if found and file.with_suffix("").is_file():
            public += found
            identities.append(file.with_suffix(""))
    if not public:
        raise SlipwayError(
            "you have no ssh key, so nobody could log in",
            cause=f"the agent (ssh-add -L) has none, and {home / '.ssh'} "
            "no pair of NAME and NAME.pub",
            fix=["ssh-keygen -t ed25519, then the same command"],
            code=NO_INPUT,
        )
    return Keys(tuple(dict.fromkeys(public)), tuple(identities))


def answers(port: int) -> bool:
    """Whether sshd answers at a port of this machine; docker itself takes a connection before."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=2) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def wait(name: str, port: int, *, here: bool) -> str:
    """Wait until sshd answers, and return its host key; else its last words are the error.

    :param here: the port is this machine's.
    """
    deadline = time.monotonic() + PATIENCE_S
    while True:
        said = processes.look([engine.client(), "logs", name])
        key = said_key(said.stdout + said.stderr)
        if key and (not here or answers(port)):
            return key
        container = engine.inspect_container(name)
        state = container["State"] if container else {"Running": False}
        if not state["Running"]:
            status = int(state.get("ExitCode", 0))
            raise SlipwayError(
                f"sshd ended at its start, with status {status}",
                cause=last_words(name),
                fix=["invoke ssh --stop, then invoke ssh", "./go invoke doctor"],
                code=status or CANNOT_CREATE,
            )
        if time.monotonic() > deadline:
            raise SlipwayError(
                f"sshd has not answered at port {port} for {PATIENCE_S} s",
                cause=last_words(name),
                fix=["invoke ssh --stop, then invoke ssh"],
            )
        time.sleep(0.03)


class Keeper(Record, frozen=True):
    """The container of one tree and variant, and what is kept for it."""

    workshop: Workshop
    title: str
    """``oar-cpu``."""

    @property
    def container(self) -> str:
        """Its name."""
        return engine.container_name(
            Job(name=f"ssh-{self.title}", command=[]), self.workshop.checkout
        )

    @property
    def run(self) -> Path:
        """Host key and authorized keys, of this checkout."""
        return self.workshop.out / ".run" / "ssh"

    @property
    def known_hosts(self) -> Path:
        """The host key, as ssh looks it up."""
        return self.run / "known_hosts"

    @property
    def last_port(self) -> Path:
        """Where the port of last time stands."""
        return self.run / f"{self.title}.port"

    @property
    def home(self) -> Path:
        """The home inside, of this checkout."""
        return self.workshop.out / HOMES / "home"

    @property
    def config(self) -> Path:
        """The Host entry, for ``ssh -F``."""
        return self.workshop.out / HOMES / f"{self.title}.conf"

    def entry_in(self, home: Path) -> Path:
        """The Host entry below the caller's ``~/.ssh``."""
        name = f"slipway-{self.workshop.checkout}-{self.title}.conf"
        return home / ".ssh" / "config.d" / name


def start(keeper: Keeper, site: Site, image: str, keys: Keys, wanted: Wanted, *, here: bool) -> int:
    """Start the container at the first free port, which is returned; ``--dry`` says how only."""
    workshop = keeper.workshop
    docker, fixed = engine.Docker(workshop), workshop.settings.ssh_port
    try:
        last = int(keeper.last_port.read_text())
    except (OSError, ValueError):
        last = 0
    for port in ports(fixed, last):
        if here and not is_free(port, lan=False):
            continue
        job = job_of(site, keeper.run, keeper.home, port=port, edit=wanted.edit)
        job = replace(job, hidden={KEYS: "\n".join(keys.public)})
        if not workshop.dry:
            make_mount_points(keeper.home, job, docker)
        said = docker.start(job, image)
        if workshop.dry:
            return port
        if not said:
            receipts.write_whole(keeper.last_port, f"{port}\n")
            return port
        engine.remove_container(keeper.container)  # docker keeps what it could not start
        if not is_taken(said):
            raise engine.failure(said, "start a container to log in to")
    if fixed:
        raise SlipwayError(
            f"port {fixed} is in use",
            cause="the setting ssh_port names it, and another program listens there",
            fix=["set ssh_port in invoke.yaml to another, or to 0 for a free one"],
            code=CANNOT_CREATE,
        )
    raise SlipwayError(
        f"no port from {FIRST_PORT} on is free, of {PORTS} that were tried",
        fix=["set ssh_port in invoke.yaml to one that is"],
        code=CANNOT_CREATE,
    )


def make_mount_points(home: Path, job: Job, docker: engine.Docker) -> None:
    """See ``mount_points``."""
    who = engine.caller()
    placed = [(m.source, m.target or docker.inside(m.instead_of or m.source)) for m in job.mounts]
    for name, is_directory in mount_points(placed, who.home):
        if is_directory:
            (home / name).mkdir(parents=True, exist_ok=True)
        else:
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            (home / name).touch()


def write_config(keeper: Keeper, home: Path, text: str, *, asked: bool) -> bool:
    """Keep the Host entry below ``~/.ssh``; whether it is there.

    Nothing of the person's is changed but for one Include, on top of what their file says.

    :param asked: else an entry that is there is kept up to date, and none is made.
    """
    file, config = keeper.entry_in(home), home / ".ssh" / "config"
    there = file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""
    if not asked and not there:
        return False
    if there and not there.startswith(MARK):
        raise SlipwayError(
            f"{file} is there already, and is not ours",
            cause="it was not written by invoke ssh; nothing was changed",
            fix=[f"rename it, or: ssh -F {shlex.quote(str(keeper.config))} ..."],
            code=CANNOT_CREATE,
        )
    if there != text:
        for directory in (file.parent.parent, file.parent):
            directory.mkdir(mode=0o700, exist_ok=True)
        _put(file, text.encode())
        console.say(f"wrote {file}")
    before = config.read_bytes() if config.exists() else b""
    if asked and not is_included(before.decode(errors="replace"), file, home):
        pattern = file.parent / "slipway-*.conf"
        line = f'{MARK}: what invoke ssh --write-config puts there\nInclude "{pattern}"\n\n'
        _put(config, line.encode() + before)
        console.say(f"put an Include on top of {config}")
    return True


def _put(file: Path, content: bytes) -> None:
    """Write a file whole or not at all, through a link, with the rights that it had."""
    target = file.resolve()
    mode = target.stat().st_mode & 0o777 if target.exists() else 0o600
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        beside.touch(0o600)
        beside.write_bytes(content)
        beside.chmod(mode)
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


def tell(keeper: Keeper, login: Login, key: str, *, asked: bool) -> None:
    """Write down how ssh finds the container, and say so."""
    root = keeper.workshop.root
    receipts.write_whole(keeper.known_hosts, f"slipway-{login.checkout} {key}\n")
    text = entry(login, root)
    receipts.write_whole(keeper.config, text)
    if write_config(keeper, Path.home(), text, asked=asked):
        command = ["ssh", login.name]
    else:
        command = ["ssh", "-F", console.shown(keeper.config, root), login.name]
        console.say(text.rstrip())
        console.say("that is also in the file below; --write-config puts it into ~/.ssh")
    console.say(f"{console.bold('log in')} with: {shlex.join(command)}")
    home = console.shown(keeper.home, root)
    console.say(f"the home there is kept in {home}; it runs on until invoke ssh --stop")


def stop(keeper: Keeper, container: Mapping[str, Any] | None) -> None:
    """End the container with all that runs in it; home, host key and entry stay."""
    if container is None:
        console.say(f"nobody can log in to {keeper.title}: nothing runs")
        return
    argv = [engine.client(), "stop", keeper.container]
    console.show_command(argv)
    if keeper.workshop.dry:
        return
    processes.look(argv)  # whatever comes of it, it goes
    engine.Docker(keeper.workshop).bring_back(keeper.container)
    engine.remove_container(keeper.container)
    home = console.shown(keeper.home, keeper.workshop.root)
    console.say(f"stopped; the home there is kept in {home}")


def ssh(workshop: Workshop, wanted: Wanted, *, stop_it: bool) -> None:
    """Keep a container to log in to, unless one runs already, and say how; or end it."""
    gpu.wanted(workshop, wanted.gpu)  # a mistyped one is told at once
    if not isinstance(engine.place(workshop, ""), engine.Docker):
        raise SlipwayError(
            "invoke ssh needs a container engine: one logs in to a container",
            cause="jobs run in place here, without a container",
            fix=["invoke shell"],
            code=USAGE,
        )
    tree = resolve(workshop, wanted.project, wanted.source)
    variant = builds.chosen(workshop, tree, wanted.variant)[0]
    keeper = Keeper(workshop, f"{tree.project.name}-{variant}{workshop.mark}")
    if workshop.dry:
        _ssh(keeper, wanted, tree.source, stop_it=stop_it)
        return
    with locks.held(outputs.make(keeper.run, workshop.out), "ssh"):
        _ssh(keeper, wanted, tree.source, stop_it=stop_it)


def _ssh(keeper: Keeper, wanted: Wanted, source: Path, *, stop_it: bool) -> None:
    workshop = keeper.workshop
    container = engine.inspect_container(keeper.container)
    if stop_it:
        stop(keeper, container)
        return
    keys = callers_keys(Path.home())
    far = jump(engine.address())
    if container and container["State"]["Running"]:
        refuse_other(container["Config"]["Labels"], wanted, source)
        port = published(container)
        if workshop.dry:
            console.say(f"{keeper.container} runs already")
            return
        let_in(keeper, keys)
        key = wait(keeper.container, port, here=not far)
    else:
        site = next(iter(sites_of(workshop, wanted)))
        image = images.ensure_ssh(workshop, site.image)
        if workshop.dry:
            start(keeper, site, image, keys, wanted, here=not far)
            return
        site.prepare()
        outputs.make(keeper.home, workshop.out).chmod(0o700)  # keys may lie in it
        if container:
            console.say(f"removing {keeper.container}, which has ended")
            engine.remove_container(keeper.container)
        with processes.undone(lambda: engine.remove_container(keeper.container)):
            port = start(keeper, site, image, keys, wanted, here=not far)
            key = wait(keeper.container, port, here=not far)
    login = Login(
        title=keeper.title,
        checkout=workshop.checkout,
        port=port,
        user=engine.caller().name,
        known_hosts=keeper.known_hosts,
        identities=keys.identities,
        jump=far,
    )
    tell(keeper, login, key, asked=wanted.write_config)


def sites_of(workshop: Workshop, wanted: Wanted) -> Iterator[Site]:
    """The sites that the command line means."""
    return builds.sites(
        workshop, wanted.variant, wanted.project, wanted.source, CONTAINER, wanted.gpu
    )


def let_in(keeper: Keeper, keys: Keys) -> None:
    """Let the caller's keys of today in, whatever they were when the container was started."""
    variable = f"{KEYS}={chr(10).join(keys.public)}"
    script = engine.Docker(keeper.workshop).inside(keeper.workshop.scripts / "ssh")
    argv = ["exec", "--env", variable, keeper.container, script, "keys", RUN]
    engine.ask(argv, "tell sshd your keys")

"""Podman in Docker's place: which program is asked, and what is different with it.

Nearly every argument and answer is Docker's, so ``slipway.engine`` stays the one door; what differs
stands here, and nowhere else. Versions that this was tried with: docs/podman.md.
"""

from __future__ import annotations

import atexit
import csv
import functools
import hashlib
import io
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from slipway.errors import UNAVAILABLE, SlipwayError

INIT = "catatonit"  # what `--init` starts: a package of its own, and only recommended
# Where Podman looks for it beside PATH.
HELPERS = ("/usr/libexec/podman", "/usr/local/libexec/podman", "/usr/lib/podman", "/usr/bin")
SERVICE_WAIT_S = 10
# What stands before a name that was given none: of what was made here, and of Docker Hub's.
PREFIXES = ("localhost/", "docker.io/library/")
# Statuses of `podman run` when it could not start anything; also a program's own.
MAY_NOT_START = (125, 126, 127)
RANGE = "100000-165535"  # as adduser gives to the first user
RANGES = f"--add-subuids {RANGE} --add-subgids {RANGE}"
# What Debian's podman needs for what we do and only recommends; and for a user who is not root.
PACKAGES = ("podman", INIT, "netavark", "aardvark-dns", "iptables", "nftables")
ROOTLESS = ("uidmap", "slirp4netns")
PADDING = 1.04  # measured: 783 for 763 MB, 171 for 166
LIMITS = 'default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]'

_chosen = ["auto"]


def choose(engine: str) -> None:
    """From now on this is the engine: what the setting says, then what ``--engine`` does.

    A fact of the whole process, as PATH and DOCKER_HOST are, by which ``auto`` is decided: forty
    functions that call the client would else hand the same word on. Each task begins anew.
    """
    if engine != "host":  # a task in place may still look at images
        _chosen[0] = engine


# -- deciding


def decided(chosen: str, docker: str, podman: str, named: str) -> tuple[str, str]:
    """The engine's name, and its program, empty where it is not there.

    :param docker: path of that program, empty where there is none; likewise ``podman``.
    :param named: the engine that a variable names, which is one that speaks Docker's language.
    """
    if chosen == "podman" or (chosen == "auto" and podman and not docker and not named):
        return "podman", podman
    return "docker", docker


def is_stand_in(head: bytes) -> bool:
    """Whether a program called docker is Podman's script, as of the package podman-docker."""
    return head.startswith(b"#!") and b"podman" in head


def plain_name(tag: str) -> str:
    """The name of an image as Docker shows it, without what Podman writes before it."""
    for prefix in PREFIXES:
        if tag.startswith(prefix):
            return tag[len(prefix) :]
    return tag


def is_remote(env: Mapping[str, str], platform: str) -> bool:
    """Whether Podman's program hands all to another machine, or to one that it keeps for Linux."""
    return platform != "linux" or bool(env.get("CONTAINER_HOST") or env.get("CONTAINER_CONNECTION"))


def described(info: Mapping[str, Any]) -> dict[str, Any]:
    """What ``podman info`` says, by the names that it has with Docker."""
    host, version = info["host"], info["version"]
    security = host.get("security") or {}
    return {
        "ID": f"podman {info['store']['graphRoot']}",
        "ServerVersion": version["Version"],
        "MemTotal": host["memTotal"],
        "SecurityOptions": ["name=rootless"] if security.get("rootless") else [],
    }


def build_command(program: str, url: str = "") -> list[str]:
    """The command that builds images.

    Docker's format, since labels and the rest of an image are read as Docker writes them.

    :param url: of the socket, where the images are to be that engine's.
    """
    where = ["--url", url] if url else []
    return [program, *where, "build", "--format", "docker"]


def is_builder(command: Sequence[str]) -> bool:
    """Whether a command that builds images is Podman's."""
    return Path(command[0]).name == "podman"


def one_of_a_list(path: str) -> str:
    """A path where podman expects several with commas, and ours may have one in it."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow([path])
    return text.getvalue()


def by_content(dockerfile: str, context: Path) -> str:
    """A Dockerfile whose bind mounts name their content, which is put beside what they named.

    Podman knows a RUN by its words alone: it would take what a package made that has changed since.
    """
    for name in sorted(set(re.findall(r"--mount=type=bind,source=([\w./-]+),", dockerfile))):
        source, digest = context / name, hashlib.sha256()
        for file in sorted(source.rglob("*")) if source.is_dir() else [source]:
            if file.is_file():
                mode = file.stat().st_mode
                digest.update(
                    f"{file.relative_to(context)} {mode} {file.stat().st_size}\n".encode()
                )
                digest.update(file.read_bytes())
        marked = f"{name}.{digest.hexdigest()[:12]}"
        if source.is_dir():
            shutil.copytree(source, context / marked)
        elif source.is_file():
            shutil.copy(source, context / marked)
        dockerfile = dockerfile.replace(f"bind,source={name},", f"bind,source={marked},")
    return dockerfile


def one_lock_each(dockerfile: str) -> str:
    """A Dockerfile in which no two steps lock a cache of the same name.

    Podman 4.3 holds such a lock until the build ends, so that the second step would wait for ever.
    """
    seen: dict[str, int] = {}

    def name(match: re.Match[str]) -> str:
        number = seen[match[2]] = seen.get(match[2], 0) + 1
        return match[0] if number == 1 else f"{match[1]}{match[2]}-{number}{match[3]}"

    return re.sub(r"(--mount=type=cache,id=)([\w-]+)(,\S*sharing=locked)", name, dockerfile)


def is_behind(version: Mapping[str, Any] | None) -> bool:
    """Whether an engine that speaks Docker's language is Podman: its ``/version``."""
    parts = (version or {}).get("Components") or ()
    return any("podman" in str(part.get("Name", "")).lower() for part in parts)


def explain(words: str, user: str) -> SlipwayError | None:
    """What Podman's own words mean, where they do not say what to do; None for all others.

    :param user: who has typed the command.
    """
    low = words.lower()
    if "setting rlimit" in low:
        return SlipwayError(
            "podman could not set the limits of a container",
            cause=f"{last_line(words)}\nthis machine's hard limits are lower than Podman's "
            "default, and may not be raised here",
            fix=[
                f"write [containers] {LIMITS} to a file, and",
                "export CONTAINERS_CONF=FILE, or have it as /etc/containers/containers.conf",
            ],
            code=UNAVAILABLE,
        )
    if "container-init binary not found" in low or f"{INIT}: no such file" in low:
        return SlipwayError(
            "podman has nothing to start containers with",
            cause=f"{last_line(words)}\n{INIT}, a package that Debian's podman only recommends",
            fix=[f"apt-get install {INIT}"],
            code=UNAVAILABLE,
        )
    if "subuid" in low or "subgid" in low or "newuidmap" in low or "newgidmap" in low:
        return SlipwayError(
            "podman without root needs a range of uids",
            cause=last_line(words),
            fix=[
                "apt-get install uidmap",
                f"sudo usermod {RANGES} {user}, then podman system migrate",
            ],
            code=UNAVAILABLE,
        )
    if "fill out specgen" in low and "mount option" in low:
        return SlipwayError(
            "podman behind its socket mounts no path with a comma in it",
            cause=words.strip(),
            fix=["unset DOCKER_HOST, and INVOKE_ENGINE=podman: its own program mounts any path"],
            code=UNAVAILABLE,
        )
    if "did not resolve to an alias" in low:
        return SlipwayError(
            "podman does not know from which registry an image is",
            cause=last_line(words),
            fix=["write its name in full, such as base: docker.io/library/debian:trixie-slim"],
            code=UNAVAILABLE,
        )
    return None


def is_over(size: int, budget_mb: int) -> bool:
    """Whether an image is larger than its budget; Podman counts archives, which pad each file."""
    return size > budget_mb * 1e6 * (PADDING if is_client() else 1)


def last_line(words: str) -> str:
    """Where Podman says what is wrong: warnings come before it."""
    return (words.strip().splitlines() or [""])[-1]


def without_service(host: str) -> list[str]:
    """What to do where nobody listens at Podman's socket; nothing if it is not Podman's."""
    if "podman" not in host:
        return []
    start = "systemctl --user" if "/run/user/" in host else "systemctl"
    return [
        f"{start} start podman.socket, or: podman system service --time 0 {host} &",
        "or unset DOCKER_HOST, and INVOKE_ENGINE=podman: Podman's own program needs no socket",
    ]


# -- looking


def _found(name: str) -> str:
    path = shutil.which(name) or ""
    if path and name == "docker":
        try:
            with open(path, "rb") as stream:
                return "" if is_stand_in(stream.read(400)) else path
        except OSError:  # may be started and not read
            return path
    return path


def client() -> tuple[str, str]:
    """The engine's name and program; see ``decided``."""
    named = os.environ.get("DOCKER_HOST") or os.environ.get("DOCKER_CONTEXT") or ""
    return decided(_chosen[0], _found("docker"), _found("podman"), named)


def at_once() -> list[str]:
    """What keeps ``podman rm --force`` from waiting 10 s for who does not hear SIGTERM."""
    return ["--time", "0"] if is_client() else []


def builder() -> str:
    """The program that builds at an engine that is Podman's, behind a socket."""
    path = _found("podman")
    if not path:
        raise SlipwayError(
            "no podman program, and the engine that DOCKER_HOST names is Podman",
            cause="it runs containers for a docker program, and builds images for podman only",
            fix=["install podman here too", "or use an engine that is Docker: unset DOCKER_HOST"],
        )
    return path


def name() -> str:
    """The engine's name, which is its program's: docker or podman."""
    return client()[0]


def is_client() -> bool:
    """Whether ``podman`` is the program that everything goes through."""
    return name() == "podman"


def socket() -> str:
    """Path of Podman's socket for this user, which need not be there: its program needs none."""
    uid = os.getuid() if hasattr(os, "getuid") else 0
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{uid}"
    return f"{runtime if uid else '/run'}/podman/podman.sock"


def init_program() -> str:
    """Path of what ``--init`` starts; empty when it is not there."""
    path = os.pathsep.join([os.environ.get("PATH", ""), *HELPERS])
    return shutil.which(INIT, path=path) or ""


def has_ids(user: str, uid: int, file: Path) -> bool:
    """Whether a user without root has a range of uids, or gids, in /etc/subuid or /etc/subgid."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return False
    return any(line.partition(":")[0] in (user, str(uid)) for line in lines)


def lacks(user: str, uid: int, etc: Path = Path("/etc")) -> Iterator[tuple[str, str]]:
    """What Podman needs and this machine lacks, each with its remedy."""
    if not init_program():
        yield f"podman has no {INIT}, which starts each container", f"apt-get install {INIT}"
    if uid:
        for name, flag in (("subuid", "--add-subuids"), ("subgid", "--add-subgids")):
            if not has_ids(user, uid, etc / name):
                what = f"{user} has no range in {etc / name}, without which podman needs root"
                yield what, f"sudo usermod {flag} {RANGE} {user}"


# -- acting


@functools.cache
def service() -> str:
    """Address of a service of our own, for who speaks Docker's API; it ends with this process."""
    import tempfile  # 5 ms that a build of nothing need not pay

    directory = tempfile.mkdtemp(prefix="slipway-podman-")
    path = Path(directory) / "podman.sock"
    log = path.with_name("log")
    argv = [client()[1], "system", "service", "--time", "0", f"unix://{path}"]
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=log.open("wb"),
        start_new_session=True,
    )

    def end() -> None:
        process.terminate()
        process.wait()
        shutil.rmtree(directory, ignore_errors=True)

    atexit.register(end)
    deadline = time.monotonic() + SERVICE_WAIT_S
    while not path.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            said = log.read_text(errors="replace").strip()
            raise SlipwayError(
                "podman's service did not start", cause=said, fix=["./go invoke doctor"]
            )
        time.sleep(0.02)
    return f"unix://{path}"

"""The book, served to its reader: one container, found again by its name, and a URL that logs in.

What happens inside is ``scripts/read-book``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shlex
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from msgspec.structs import replace

from slipway import base, console, engine, locks, outputs, processes, receipts
from slipway.engine import EVERYWHERE, Job, Mount
from slipway.errors import CANNOT_CREATE, UNAVAILABLE, SlipwayError
from slipway.project import Tree, find, resolve
from slipway.project import read as read_project
from slipway.records import Record
from slipway.settings import Workshop

LOOPBACK = "127.0.0.1"
INSIDE = 8888  # where JupyterLab answers in the container
WORK = "/work"
FIRST = "index.ipynb"  # what is open at first
TOKEN = "JUPYTER_TOKEN"  # noqa: S105  # the variable's name
PROJECT_LABEL = "slipway.read"
WORK_LABEL = "slipway.work"
PORTS = 100  # so many are tried, from the setting's on
PATIENCE_S = 60
LAST_LINES = "15"


class Reading(Record, frozen=True):
    """A book that is being served."""

    name: str
    """The container's."""
    port: int
    token: str
    work: Path
    """The reader's folder on this machine."""
    lan: bool
    image: str
    """Its image's id."""


def alias_of(tree: Tree) -> str:
    """``oar-book:1.2.0``: what people call the image."""
    return f"{tree.project.name}-book:{tree.version.tag}"


def receipt_of(workshop: Workshop, name: str) -> Path:
    """What says which image ``invoke book`` made last."""
    return workshop.out / name / "book" / "receipts" / "book.json"


def address(host: str, port: int, token: str) -> str:
    """The URL that logs in by itself."""
    return f"http://{host}:{port}/lab/tree/{FIRST}?token={quote(token, safe='')}"


def job_of(workshop: Workshop, name: str, folder: Path, *, port: int, lan: bool) -> Job:
    """The container that serves the book of project ``name`` at ``port``."""
    return Job(
        name=f"read-{name}",
        command=["read-book"],
        mounts=[Mount(folder, target=WORK)],
        env={"SLIPWAY_PORT": str(port)},
        workdir=WORK,
        network=True,
        ports=[f"{port}:{INSIDE}"],
        shm_size=workshop.settings.shm_size,
        stays=True,
        labels={PROJECT_LABEL: name, WORK_LABEL: str(folder)},
        lan=lan,
    )


def described(container: Mapping[str, Any]) -> Reading | None:
    """What an inspected container serves; None when it does not run."""
    if not container["State"]["Running"]:
        return None
    published = container["NetworkSettings"]["Ports"].get(f"{INSIDE}/tcp") or [{}]
    variables = dict(line.partition("=")[::2] for line in container["Config"]["Env"])
    return Reading(
        name=container["Name"].removeprefix("/"),
        port=int(published[0].get("HostPort", 0)),
        token=variables.get(TOKEN, ""),
        work=Path(container["Config"]["Labels"][WORK_LABEL]),
        lan=published[0].get("HostIp") != LOOPBACK,
        image=container["Image"],
    )


def refuse_other(found: Reading, folder: Path | None, *, lan: bool) -> None:
    """Say so when what is asked for is not how the book is served already.

    :param folder: what ``--work`` names; None when it says nothing.
    """
    words = []
    if lan and not found.lan:
        words.append("to this machine alone")
    if folder and folder != found.work:
        words.append(f"with the work folder {found.work}")
    if words:
        flags = [*(["--lan"] if lan else []), *(["--work", str(folder)] if folder else [])]
        raise SlipwayError(
            f"the book is being served already, {' and '.join(words)}",
            cause="what runs in its notebooks would be lost if it were started again unasked",
            fix=["invoke read --stop", shlex.join(["invoke", "read", *flags])],
            code=CANNOT_CREATE,
        )


def named(text: str) -> Path:
    """The folder that ``--work`` means, from the current directory."""
    return Path(text).expanduser().resolve()


def work_folder(workshop: Workshop, name: str, wanted: str) -> Path:
    """The reader's folder, made if it is not there; what cannot be written to is refused."""
    if not wanted:
        folder = workshop.out / "read" / name
        return folder if workshop.dry else outputs.make(folder, workshop.out)
    folder = named(wanted)
    why = "" if workshop.dry else _unusable(folder)
    if why:
        raise SlipwayError(
            f"the work folder {folder} cannot be used: {why}",
            cause="notebooks are written to it as you",
            fix=["invoke read --work DIR, with a folder of yours", "invoke read, for one in out/"],
            code=CANNOT_CREATE,
        )
    return folder


def _unusable(folder: Path) -> str:
    """Why a folder cannot be written to; empty when it can."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        return "it is a file"
    except NotADirectoryError as error:
        return f"{error.filename} is a file"
    except OSError as error:
        return f"{error.strerror}, {error.filename}"
    if os.access(folder, os.W_OK | os.X_OK):
        return ""
    if not hasattr(os, "getuid") or os.getuid() in (0, folder.stat().st_uid):
        return "it is read-only"
    return f"it belongs to uid {folder.stat().st_uid}, you are {os.getuid()}"


def opens(environ: Mapping[str, str], platform: str, *, terminal: bool) -> bool:
    """Whether a person is here, with a desktop on which a browser shows."""
    if not terminal or "SSH_CONNECTION" in environ:
        return False
    if platform in ("darwin", "win32"):
        return True
    return bool(environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY"))


def is_free(port: int, *, lan: bool) -> bool:
    """Whether nobody listens at a port of this machine."""
    with socket.socket() as attempt:
        if os.name == "posix":  # elsewhere it would take a port away from who listens
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind((EVERYWHERE if lan else LOOPBACK, port))
        except OSError as error:
            return error.errno != errno.EADDRINUSE
    return True


def is_taken(said: str) -> bool:
    """Whether docker refused a container for its port, taken since we looked or by its own."""
    low = said.lower()
    return "port is already allocated" in low or "address already in use" in low


def machine_address() -> str:
    """The address at which others on the network reach this machine; no packet is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # of the range for documentation: the default route's
            return str(probe.getsockname()[0])
        except OSError:
            return socket.gethostname()


def is_older(workshop: Workshop, name: str, found: Reading) -> bool:
    """Whether another image than the one being served has been made here since."""
    tag = str(receipts.facts(receipt_of(workshop, name)).get("tag", ""))
    made = engine.inspect_images(tag).get(tag) if tag else None
    return made is not None and made["Id"] != found.image


def choose_image(workshop: Workshop, project: str, name: str) -> str:
    """The book's image: the one made here, else one of its name, else pulled."""
    tag = str(receipts.facts(receipt_of(workshop, name)).get("tag", ""))
    if tag and tag in engine.inspect_images(tag):
        return tag
    alias = alias_of(resolve(workshop, project))
    source, tried = base.found_or_pulled(
        workshop, [*base.our_places(workshop, alias), *base.places(workshop, alias)]
    )
    if source:
        return source
    raise SlipwayError(
        f"there is no image of the book: {alias} was not made here, and no registry has it",
        cause="\n".join(tried),
        fix=["invoke book"],
        code=UNAVAILABLE,
    )


def answers(port: int, token: str) -> bool:
    """Whether JupyterLab answers at a port, and to this token."""
    import http.client  # 20 ms that no other task pays

    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=5)
    try:
        connection.request("GET", "/api/status", headers={"Authorization": f"token {token}"})
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):  # docker takes a connection before anybody answers
        return False
    finally:
        connection.close()


def wait(found: Reading) -> None:
    """Wait until the book answers; when its container dies, or it does not, show its last words."""
    deadline = time.monotonic() + PATIENCE_S
    while not answers(found.port, found.token):
        container = engine.inspect_container(found.name)
        state = container["State"] if container else {"Running": False}
        if not state["Running"]:
            status = int(state.get("ExitCode", 0))
            raise SlipwayError(
                f"the book ended at its start, with status {status}",
                cause=last_words(found.name),
                fix=["invoke book, which makes its image", "./go invoke doctor"],
                code=status or UNAVAILABLE,
            )
        if time.monotonic() > deadline:
            raise SlipwayError(
                f"the book has not answered at port {found.port} for {PATIENCE_S} s",
                cause=last_words(found.name),
                fix=["invoke read --stop, then invoke read"],
            )
        time.sleep(0.03)


def last_words(name: str) -> str:
    """The end of what a container has said."""
    answer = processes.look([engine.client(), "logs", "--tail", LAST_LINES, name])
    return (answer.stdout + answer.stderr).strip() or "it said nothing"


def start(workshop: Workshop, name: str, image: str, folder: Path, *, lan: bool) -> Reading | None:
    """Start the book at the first free port; with ``--dry`` say how, and nothing starts."""
    docker, first = engine.Docker(workshop), workshop.settings.book_port
    token = secrets.token_hex(24)
    for port in range(first, min(first + PORTS, 65536)):
        if not is_free(port, lan=lan):
            continue
        job = job_of(workshop, name, folder, port=port, lan=lan)
        job = replace(job, hidden={TOKEN: token})
        container = engine.container_name(job, workshop.checkout)
        said = docker.start(job, image)
        if workshop.dry:
            return None
        if not said:
            if port != first:
                console.say(f"port {first} is taken: this is {port}")
            return Reading(container, port, token, folder, lan, "")
        engine.remove_container(container)  # docker keeps what it could not start
        if not is_taken(said):
            raise engine.failure(said, "start the book")
    raise SlipwayError(
        f"no port from {first} on is free, of {PORTS} that were tried",
        fix=["set book_port in invoke.yaml to another"],
    )


def tell(workshop: Workshop, found: Reading, *, no_open: bool) -> None:
    """Say where the book is, and open it where a person would see it."""
    url = address(LOOPBACK, found.port, found.token)
    console.say(f"{console.bold('reading')} at {url}")
    if found.lan:
        outside = address(machine_address(), found.port, found.token)
        console.say(f"from the network at {outside}")
        console.say("who has this URL can run programs in it and write to the work folder")
    folder = console.shown(found.work, workshop.root)
    console.say(f"your notebooks are in {folder}; invoke read --stop ends it")
    if not no_open and opens(os.environ, sys.platform, terminal=sys.stdout.isatty()):
        import webbrowser

        webbrowser.open(url)


def stop(workshop: Workshop, name: str, container: Mapping[str, Any] | None) -> None:
    """End the book, and take its container away."""
    if container is None:
        console.say(f"the book of {name} is not being served")
        return
    called = container["Name"].removeprefix("/")
    argv = [engine.client(), "stop", called]
    console.show_command(argv)
    if workshop.dry:
        return
    processes.look(argv)  # whatever comes of it, it goes
    engine.remove_container(called)
    console.say(f"stopped; the notebooks are in {container['Config']['Labels'][WORK_LABEL]}")


def read(
    workshop: Workshop, project: str, work: str, *, no_open: bool, lan: bool, stop_it: bool
) -> None:
    """Serve the book of a project unless it is served already, and say where; or end that.

    :param work: the reader's folder; empty: ``out/read/PROJECT``.
    :param lan: for other machines too.
    """
    name = read_project(find(workshop, project)).name
    with contextlib.ExitStack() as stack:
        if not workshop.dry:
            directory = outputs.make(workshop.out / ".run" / f"read-{name}", workshop.out)
            stack.enter_context(locks.held(directory, "read"))
        _read(workshop, project, name, work, no_open=no_open, lan=lan, stop_it=stop_it)


def _read(
    workshop: Workshop,
    project: str,
    name: str,
    work: str,
    *,
    no_open: bool,
    lan: bool,
    stop_it: bool,
) -> None:
    called = engine.container_name(Job(name=f"read-{name}", command=[]), workshop.checkout)
    container = engine.inspect_container(called)
    if stop_it:
        stop(workshop, name, container)
        return
    found = described(container) if container else None
    if found:
        refuse_other(found, named(work) if work else None, lan=lan)
        wait(found)
        tell(workshop, found, no_open=no_open)
        if is_older(workshop, name, found):
            console.say("the book has been made again since: --stop, then read, shows the new one")
        return
    folder = work_folder(workshop, name, work)
    image = choose_image(workshop, project, name)
    if container and not workshop.dry:
        console.say(f"removing {called}, which has ended")
        engine.remove_container(called)
    with processes.undone(lambda: engine.remove_container(called)):
        begun = start(workshop, name, image, folder, lan=lan)
        if begun:
            wait(begun)
    if begun:
        tell(workshop, begun, no_open=no_open)

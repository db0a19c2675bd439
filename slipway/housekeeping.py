"""What of this checkout's is on this machine, and how it goes away: told by its label, ours only.

The docker SDK is imported here because looking at an engine's containers and disk, and removing, is
what it is for; it takes 80 ms to import, which other tasks do not pay.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, DockerException

from slipway import console, engine, locks, podman
from slipway.engine import LABEL
from slipway.images import ALIAS, KIND
from slipway.project import find, read
from slipway.receipts import files_below
from slipway.records import Record
from slipway.settings import Workshop

# Each may be built FROM one before it.
KINDS = ("base", "dev", "runtime", "prod", "reader", "book", "app")
READ = "read"  # below out/: what people wrote
HOMES = "ssh"  # and what they keep in their home where they log in
RUNS = "train"  # and what jobs took hours to make


def connect() -> Any:
    """A client of the engine that the ``docker`` program uses, contexts included."""
    host = podman.service() if podman.is_client() else engine.address()
    try:
        client = docker.DockerClient(base_url=host or None, timeout=60)
        client.ping()
    except (DockerException, OSError) as error:
        # The program says it in words that we know; the SDK's own go on for a hundred lines.
        engine.ask(["version", "--format", "{{.Server.Version}}"], "ask the engine")
        raise engine.failure(str(error), "connect to the engine") from error
    return client


def ours(workshop: Workshop, **more: Any) -> dict[str, Any]:
    """The filter that everything listed or removed goes through."""
    return {"filters": {"label": f"{LABEL}={workshop.checkout}"}, **more}


def size_of(directory: Path) -> int:
    """Bytes on disk below a directory, which need not be there."""
    total = 0
    for name, _, files in os.walk(directory):
        for file in files:
            try:
                total += os.lstat(os.path.join(name, file)).st_blocks * 512
            except OSError:  # gone meanwhile
                continue
    return total


def ps(workshop: Workshop) -> None:
    """Show containers, images, directories and the disk they take; everybody else's is left out."""
    client = connect()
    containers = client.containers.list(**ours(workshop, all=True))
    rows = [["CONTAINER", "STATUS", "IMAGE"]]
    rows += [[c.name, c.status, _name(c.image) if c.image else "-"] for c in containers]
    console.table(rows if containers else [["CONTAINER"], ["none"]])
    console.say()
    found = _listed(client, workshop)
    rows = [["IMAGE", "KIND", "SIZE", "ALSO CALLED"]]
    for image in found:
        rows.append(
            [
                _name(image),
                _kind(image),
                console.megabytes(image.attrs["Size"]),
                ", ".join(sorted(t for t in _plain(image) if not t.startswith("slipway-"))),
            ]
        )
    console.table(rows if found else [["IMAGE"], ["none"]])
    console.say()
    free = shutil.disk_usage(workshop.root).free
    console.table(
        [
            ["DISK", "SIZE"],
            *(
                [console.shown(p, workshop.root), console.megabytes(size_of(p))]
                for p in _places(workshop)
            ),
            [
                "images above (layers shared with others counted too)",
                console.megabytes(_sum(found)),
            ],
            ["free", console.megabytes(free)],
        ]
    )


def _places(workshop: Workshop) -> list[Path]:
    return [workshop.out, workshop.dist, workshop.cache]


def _sum(found: Iterable[Any]) -> int:
    return sum(int(i.attrs["Size"]) for i in found)


def _name(image: Any) -> str:
    tags = [t for t in _plain(image) if t.startswith("slipway-")] or _plain(image)
    return str(tags[0]) if tags else str(image.short_id)


def stop(workshop: Workshop) -> None:
    """Stop and remove this checkout's containers, and the networks that were made for them."""
    client = connect()
    containers = client.containers.list(**ours(workshop, all=True))
    for container in containers:
        what = f"container {container.name} ({container.status})"
        _take_away(workshop, what, lambda c=container: c.remove(force=True, v=True))
    networks = client.networks.list(**ours(workshop))
    for network in networks:
        _take_away(workshop, f"network {network.name}", network.remove)
    if not containers and not networks:
        console.say("nothing of this checkout is running")


def _take_away(workshop: Workshop, what: str, remove: Any) -> None:
    console.say(f"removing {what}")
    if not workshop.dry:
        _quietly_gone(remove)


def _quietly_gone(remove: Any) -> None:
    """Remove what may be going away by itself at this moment."""
    try:
        remove()
    except APIError as error:
        if error.status_code not in (404, 409):  # gone, or being removed
            raise engine.failure(error.explanation or str(error), "remove") from error


class Thing(Record, frozen=True):
    """Something of ours that takes disk and can be made again."""

    what: str
    size: int
    used_at: float
    remove: Any


def clean(
    workshop: Workshop, project: str, *, images: bool, everything: bool, caches: bool, keep: str
) -> None:
    """Remove build directories of one project; more when asked; or the oldest down to a size.

    :param images: production images of this checkout too.
    :param everything: all projects' output, dist/ too, and every image of this checkout.
    :param caches: compiler cache and downloads, which all checkouts of this user share.
    :param keep: size such as ``20GB``: what was used longest ago goes, until this much is left.
    """
    if caches:
        _remove(workshop, _directory(workshop.cache))
    if keep:
        limit = console.parse_size(keep, "invoke clean --keep 20GB")
        things = sorted(_things(workshop), key=lambda t: t.used_at)
        total = sum(t.size for t in things)
        console.say(f"{console.megabytes(total)} are ours, {console.megabytes(limit)} may stay")
        for thing in things:
            if total <= limit:
                break
            _remove(workshop, thing)
            total -= thing.size
        return
    if everything:
        stop(workshop)
        for thing in _things(workshop):
            _remove(workshop, thing)
        for volume in connect().volumes.list(**ours(workshop)):
            _take_away(workshop, f"volume {volume.name}", volume.remove)
        _remove(workshop, _directory(workshop.out))
        return
    if caches and not images:
        return
    name = read(find(workshop, project)).name
    _remove(workshop, _directory(workshop.out / name))
    if images:
        for thing in _images(workshop, kinds=KINDS[KINDS.index("runtime") :]):
            _remove(workshop, thing)


def _things(workshop: Workshop) -> list[Thing]:
    things = _images(workshop, kinds=())
    for project in sorted(workshop.out.glob("[!.]*")):
        if project.name in (READ, HOMES, RUNS):  # a person's: nobody can make them again
            continue
        things += [_directory(v) for v in sorted(project.iterdir()) if v.is_dir()]
    things += [_directory(d) for d in sorted(workshop.dist.glob("[!.]*"))]
    return [t for t in things if t.size]


def _directory(path: Path) -> Thing:
    newest = max((f.lstat().st_mtime for f in files_below(path)), default=0.0)

    def remove() -> None:
        with contextlib.ExitStack() as stack:
            for lock in sorted(path.rglob(".lock")):  # nothing that a build is writing to
                stack.enter_context(locks.held(lock.parent, "clean"))
            shutil.rmtree(path)

    return Thing(str(path), size_of(path), newest, remove)


def _images(workshop: Workshop, kinds: tuple[str, ...]) -> list[Thing]:
    """Images of this checkout, what is built FROM another before that other."""
    client = connect()
    things = []
    for image in reversed(_listed(client, workshop)):
        if kinds and _kind(image) not in kinds:
            continue
        created = datetime.fromisoformat(image.attrs["Created"][:19] + "+00:00").timestamp()

        def remove(image: Any = image) -> None:
            for tag in _our_tags(image) or [image.id]:
                _quietly_gone(lambda t=tag: client.images.remove(t))

        size = int(image.attrs["Size"])
        things.append(Thing(f"image {_name(image)}", size, created, remove))
    return things


def _listed(client: Any, workshop: Workshop) -> list[Any]:
    """Images of this checkout, what is built FROM another after that other.

    One without any name is ours too: another checkout has made the same since, and has the name.
    """
    found = [i for i in client.images.list(**ours(workshop)) if _our_tags(i) or not i.tags]
    return sorted(found, key=lambda i: (*KINDS, _kind(i)).index(_kind(i)))


def _our_tags(image: Any) -> list[str]:
    """The names that we gave an image. Others are a person's, and keep the image when ours go; an
    image built FROM one of ours has its labels, and only such names.
    """
    alias = image.labels.get(ALIAS)
    plain = zip(image.tags, _plain(image), strict=True)
    return [tag for tag, name in plain if name.startswith("slipway-") or name == alias]


def _plain(image: Any) -> list[str]:
    """The names of an image as they were given."""
    return [podman.plain_name(tag) for tag in image.tags]


def _kind(image: Any) -> str:
    return str(image.labels.get(KIND))


def _remove(workshop: Workshop, thing: Thing) -> None:
    if not thing.size:
        return
    console.say(f"removing {thing.what} ({console.megabytes(thing.size)})")
    if not workshop.dry:
        thing.remove()

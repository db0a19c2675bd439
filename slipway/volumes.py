"""An engine that does not see this machine's files: source travels, what is made comes back.

Each directory that a job would have mounted is a volume there, at the same place inside. Before a
job what changed here is sent; after it what changed there is fetched. A listing of both is kept
here, so that nothing travels twice. The compiler cache stays there: who loses it loses time.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import socket
import stat
import struct
import sys
import tarfile
import tempfile
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any

import msgspec

from slipway import console, engine, outputs, podman, processes
from slipway.engine import LABEL, Mount, client, path_inside
from slipway.errors import IO_ERROR, SlipwayError
from slipway.receipts import write_whole
from slipway.records import Record
from slipway.settings import Workshop

SOURCE = "slipway.source"  # label of a volume: the directory here that it stands for
IDENTITY = "slipway.identity"  # another one's, once it was removed and made again
# What says that we are in a container, Docker's and Podman's; some machines keep one.
CONTAINER_MARKS = ("/.dockerenv", "/run/.containerenv")
LARGE = 50_000_000  # bytes: what is more takes a while, so it is told before
NONCE = "/run/slipway-nonce"
LISTING = "tmp/.slipway-listing"
GONE = "tmp/.slipway-gone"
NEWER = "tmp/.slipway-newer"
# Takes what is new, and deletes what is not here any more. What was changed gets the time there: by
# the time here, if the clocks differ, an edited file could be older than what was made of it.
SEND = f"""\
set -e
# Nothing is known of these: what a volume holds from before goes, but for what is mounted in it.
for place; do find "$place" -xdev -mindepth 1 -delete 2>/dev/null || true; done
cd /
tar --extract --preserve-permissions --numeric-owner --file -
if [ -e {NEWER} ]; then xargs --null touch --no-create --no-dereference -- <{NEWER}; fi
if [ -e {GONE} ]; then xargs --null rm -rf -- <{GONE}; fi
date +%s.%N
"""
# A listing of all, and of each directory what was written since its time; by ctime, which nothing
# sets back.
FETCH = f"""\
set -e
now=$(date +%s.%N)
printf '%s\\0' "$now" >/{LISTING}
while [ $# -gt 0 ]; do
  find "$2" -printf '%p\\0' >>/{LISTING}
  find "$2" ! -type s -newerct "@$1" -print0 >>/tmp/changed
  shift 2
done
tar --create --absolute-names --numeric-owner --hard-dereference --no-recursion --file - \\
  --directory / {LISTING} --null --files-from /tmp/changed
"""

Entry = tuple[int, int, int, str]
Known = dict[str, Entry]


class Kept(Record, frozen=True):
    """What was in step at last, here and there."""

    at: tuple[str, str] = ("", "")
    """The engine's address, and which volume it was."""
    files: Known = msgspec.field(default_factory=dict)
    clock: str = "0"
    """The time there until which all that was written has come, in seconds."""


class Place(Record, frozen=True):
    """A directory of this machine and the volume that stands for it."""

    source: Path
    target: str
    volume: str
    comes_back: bool
    travels: bool = True


# -- deciding


def is_elsewhere(root: Path) -> bool:
    """Whether the engine may have other files than we at ``root``: it is another machine's, or we
    are inside a container that was given its socket.
    """
    if podman.is_client() and not podman.is_remote(os.environ, sys.platform):
        return False
    address = engine.local_socket()
    if not address:
        return True
    return any(map(os.path.exists, CONTAINER_MARKS)) and not is_shared(root, address)


def is_shared(directory: Path, address: str) -> bool:
    """Whether who listens at a socket of this machine has the same ``directory``, as far as it can
    be seen: root can, where the engine's process is among ours.
    """
    if not hasattr(socket, "SO_PEERCRED"):
        return False
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(address)
            answer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        pid = struct.unpack("3i", answer)[0]
        return os.path.samestat(directory.stat(), os.stat(f"/proc/{pid}/root{directory}"))
    except OSError:
        return False


def volume_name(source: Path, checkout: str) -> str:
    """The same for a directory each time."""
    mark = hashlib.sha256(str(source).encode()).hexdigest()[:10]
    return f"slipway-{checkout}-{mark}"


def places_of(mounts: Sequence[Mount], workshop: Workshop) -> list[Place]:
    """The directories among the mounts; files of their own go into the container itself."""
    return [
        Place(
            source=mount.source,
            target=target_of(mount, workshop),
            volume=volume_name(mount.source, workshop.checkout),
            comes_back=not mount.readonly and not mount.stays_there,
            travels=not mount.stays_there,
        )
        for mount in mounts
        if not mount.source.is_file()
    ]


def places_in(container: Mapping[str, Any]) -> list[Place]:
    """The places that a container has written to.

    :param container: what ``inspect_container`` says.
    """
    written = [m for m in container["Mounts"] if m["Type"] == "volume" and m["RW"]]
    sources = labelled(SOURCE, [mount["Name"] for mount in written])
    return [
        Place(Path(source), mount["Destination"], mount["Name"], comes_back=True)
        for mount in written
        if (source := sources.get(mount["Name"]))
    ]


def labelled(label: str, volumes: Sequence[str]) -> dict[str, str]:
    """What a label says of each of those volumes that are there; empty where it has none."""
    if not volumes:
        return {}
    text = engine.ask(["volume", "inspect", *volumes], "look at the volumes", missing_ok=True)
    rows = json.loads(text or "[]")
    return {str(row["Name"]): str((row["Labels"] or {}).get(label, "")) for row in rows}


def target_of(mount: Mount, workshop: Workshop) -> str:
    """Where a mount stands inside."""
    return mount.target or path_inside(mount.instead_of or mount.source, workshop.root)


def entry(path: Path) -> Entry:
    """What tells whether a file is as it was: kind and mode, size, time, and where a link leads."""
    status = path.lstat()
    if stat.S_ISDIR(status.st_mode):
        return (status.st_mode, 0, 0, "")
    link = os.readlink(path) if stat.S_ISLNK(status.st_mode) else ""
    return (status.st_mode, status.st_size, status.st_mtime_ns, link)


def listing(top: Path, leave_out: Iterable[Path]) -> Known:
    """All that is below ``top``, which is ``.`` itself: relative name to ``entry``."""
    left_out = frozenset(leave_out)
    found: Known = {".": entry(top)}
    for name, folders, files in os.walk(top):
        here = Path(name)
        folders[:] = sorted(f for f in folders if here / f not in left_out)
        for each in (*folders, *files):
            path = here / each
            try:
                what = entry(path)
            except FileNotFoundError:  # gone meanwhile
                continue
            if stat.S_ISREG(what[0]) or stat.S_ISDIR(what[0]) or stat.S_ISLNK(what[0]):
                found[path.relative_to(top).as_posix()] = what
    return found


def difference(known: Mapping[str, Entry], now: Mapping[str, Entry]) -> tuple[list[str], list[str]]:
    """Names that are new or changed, and names that are gone, the deepest first."""
    changed = [name for name, what in now.items() if known.get(name) != what]
    return changed, sorted((name for name in known if name not in now), reverse=True)


# -- acting


class Carrier:
    """The way of one job's files, there and back.

    :param image: whose ``tar`` and ``find`` are used there.
    """

    def __init__(
        self, workshop: Workshop, image: str, places: Sequence[Place], files: Sequence[Mount] = ()
    ) -> None:
        self.workshop, self.image, self.places, self.files = workshop, image, places, files
        self._state = workshop.out / ".run" / "volumes"
        self._address = engine.address()

    def arguments(self, *, readonly: bool = True) -> list[str]:
        """What mounts the volumes."""
        argv = []
        for place in self.places:
            only = readonly and place.travels and not place.comes_back
            argv += ["--mount", engine.mount_argument(place.volume, place.target, only, "volume")]
        return argv

    def send(self) -> None:
        """Bring what is there up to date; volumes are made when they are first wanted."""
        ids = self._made_volumes()
        kept = {place: self._kept(place, ids) for place in self.places}
        here = {place: self._listing(place) for place in self.places}
        sides = {place: difference(kept[place].files, here[place]) for place in self.places}
        if not any(new or gone for new, gone in sides.values()):
            return
        all_new = [here[place][name] for place, (new, _) in sides.items() for name in new]
        files = [entry for entry in all_new if not stat.S_ISDIR(entry[0])]
        size = sum(entry[1] for entry in files)
        what = (
            f"{len(files)} files, {console.megabytes(size)}, to the engine at "
            f"{self._address}, which does not see this machine's"
        )
        if size > LARGE:
            console.say(f"sending {what}")
        folder = outputs.make(self._state, self.workshop.out)
        with tempfile.TemporaryFile(dir=folder) as archive:
            first = [place for place in self.places if not kept[place].files]
            pack(archive, sides, first)
            emptied = (place.target for place in first if place.travels)
            now = self._there(self._command(SEND, "send", *emptied), archive)
        for place, listed in here.items():
            self._keep(place, ids, listed, now if place in first else kept[place].clock)
        console.say(f"sent {what}")

    def fetch(self) -> None:
        """Bring back what was written there, and remove here what was removed there."""
        ids = labelled(IDENTITY, [place.volume for place in self.places])
        back = {place: self._kept(place, ids) for place in self.places if place.comes_back}
        if not back:
            return
        words = (word for place, kept in back.items() for word in (kept.clock, place.target))
        argv = self._command(FETCH, "fetch", *words)
        with processes.reading(argv) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
            now, names, count = self._unpack(tar, back)
        for place, kept in back.items():
            self._keep(place, ids, self._tidied(place, kept.files, names), now)
        if count:
            console.say(f"fetched {count} files from the engine at {self._address}")

    def put_files(self, container: str) -> None:
        """Put the files that are no directory's into a container that was not started yet."""
        if not self.files:
            return
        with tempfile.TemporaryFile() as archive:
            with tarfile.open(fileobj=archive, mode="w") as tar:
                for mount in self.files:
                    add(tar, mount.source, target_of(mount, self.workshop))
            archive.seek(0)
            status = processes.call([client(), "cp", "-", f"{container}:/"], stdin=archive)
        if status:
            raise SlipwayError(f"docker cp failed: status {status}", code=IO_ERROR)

    def _unpack(
        self, tar: tarfile.TarFile, back: Iterable[Place]
    ) -> tuple[str, frozenset[str], int]:
        """The other clock, the names of all that is there, and how many files have come."""
        now, names, count = "0", frozenset[str](), 0
        for member in tar:
            if member.name == LISTING:
                stream = tar.extractfile(member)
                now, *all_names = (stream.read() if stream else b"").decode().split("\0")
                names = frozenset(all_names)
                continue
            target = f"/{member.name.lstrip('/')}"
            for place in back:
                if target == place.target or target.startswith(f"{place.target}/"):
                    relative = PurePosixPath(target[len(place.target) + 1 :])
                    count += extract(tar, member, place.source, relative)
                    break
        return now, names, count

    def _tidied(self, place: Place, known: Known, names: frozenset[str]) -> Known:
        """What is here, once what was removed there is gone, unless it was changed here."""
        now = self._listing(place)
        for name in sorted(now, reverse=True):
            there = f"{place.target}/{name}" in names or name == "."
            if there or known.get(name) != now[name]:
                continue
            path = place.source / name
            if not path.is_dir() or path.is_symlink():
                path.unlink()
            elif not any(path.iterdir()):
                path.rmdir()
            else:
                continue
            del now[name]
        return now

    def _listing(self, place: Place) -> Known:
        """What is here; of what does not travel only the directory itself."""
        if not place.travels:
            return {".": entry(place.source)}
        own = (self.workshop.out, self.workshop.dist, self.workshop.root / ".venv")
        others = (p.source for p in self.places if p is not place)
        return listing(place.source, {*own, *others} - {place.source})

    def _made_volumes(self) -> dict[str, str]:
        """Which volume each is, once all are there; when one was made would not tell, as docker
        takes the time of its directory for that.
        """
        ids = labelled(IDENTITY, [place.volume for place in self.places])
        for place in self.places:
            if place.volume not in ids:
                ids[place.volume] = uuid.uuid4().hex
                labels = {LABEL: self.workshop.checkout, IDENTITY: ids[place.volume]}
                if place.travels:
                    labels[SOURCE] = str(place.source)
                words = (word for k, v in labels.items() for word in ("--label", f"{k}={v}"))
                engine.ask(["volume", "create", *words, place.volume], "make a volume")
        return ids

    def _file(self, place: Place) -> Path:
        return self._state / f"{place.volume}.json"

    def _kept(self, place: Place, ids: Mapping[str, str]) -> Kept:
        """What both sides had at last; nothing of a volume that is another one's by now."""
        try:
            kept = msgspec.json.decode(self._file(place).read_bytes(), type=Kept)
        except (OSError, msgspec.MsgspecError):
            return Kept()
        identity = ids.get(place.volume)
        return kept if identity and kept.at == (self._address, identity) else Kept()

    def _keep(self, place: Place, ids: Mapping[str, str], files: Known, clock: str) -> None:
        kept = Kept((self._address, ids.get(place.volume, "")), files, clock)
        write_whole(self._file(place), msgspec.json.encode(kept).decode() + "\n")

    def _command(self, script: str, *words: str) -> list[str]:
        """The command that runs a script there, beside the volumes."""
        label = ["--label", f"{LABEL}={self.workshop.checkout}"]
        name = f"slipway-{self.workshop.checkout}-carry-{uuid.uuid4().hex[:8]}"
        argv = [client(), "run", "--rm", "--interactive", "--network", "none", "--user", "0:0"]
        argv += [*label, "--name", name, *self.arguments(readonly=False)]
        return [*argv, "--entrypoint", "sh", self.image, "-c", script, *words]

    def _there(self, argv: Sequence[str], archive: IO[bytes]) -> str:
        """Run a command with an archive as its input; its output."""
        heard = processes.Heard()
        with tempfile.TemporaryFile() as said:
            status = processes.call(argv, stdin=archive, stdout=said, heard=heard)
            said.seek(0)
            output = said.read().decode().strip()
        if status:
            full = "no space left" in heard.text.lower()
            raise SlipwayError(
                f"the files could not be sent to the engine at {self._address}",
                cause="its disk is full" if full else "its words are above",
                fix=["make room there, then the same command" if full else "./go invoke doctor"],
                code=IO_ERROR,
            )
        return output


def pack(
    archive: IO[bytes],
    sides: Mapping[Place, tuple[Sequence[str], Sequence[str]]],
    first: Collection[Place],
) -> None:
    """Write an archive of what is new here, with the names of what is gone.

    :param sides: for each place the names that are new or changed, and those that are gone.
    :param first: places to which nothing was sent before.
    """
    gone, newer = list[str](), list[str]()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for place, (new, lost) in sides.items():
            for name in new:
                add(tar, place.source / name, f"{place.target}/{name}")
            gone += [f"{place.target}/{name}" for name in lost]
            newer += [f"{place.target}/{name}" for name in new if place not in first]
        for file, names in ((GONE, gone), (NEWER, newer)):
            if names:
                add_text(tar, file, "".join(f"{name}\0" for name in names))
    archive.seek(0)


def add(tar: tarfile.TarFile, path: Path, name: str) -> None:
    """Add a file, directory or link as it is; one that went away meanwhile is left out."""
    tar.inodes.clear()  # type: ignore[attr-defined]  # or a second name would be a link to the first
    try:
        info = tar.gettarinfo(path, name.lstrip("/").removesuffix("/."))
    except FileNotFoundError:
        return
    if info.isreg():
        with path.open("rb") as stream:
            tar.addfile(info, stream)
    elif info.isdir() or info.issym():
        tar.addfile(info)


def add_text(tar: tarfile.TarFile, name: str, text: str) -> None:
    """Add a file that is not here."""
    content = text.encode()
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def extract(
    tar: tarfile.TarFile, member: tarfile.TarInfo, top: Path, relative: PurePosixPath
) -> bool:
    """Write what has come to its place here; whether it is a file."""
    if ".." in relative.parts:
        return False
    path = top / relative
    for length in range(1, len(relative.parts) + member.isdir()):
        folder = top.joinpath(*relative.parts[:length])
        if folder.is_symlink() or folder.is_file():  # what is there now is a directory
            folder.unlink()
    if member.isdir():
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(member.mode)
        return False
    if not (member.isreg() or member.issym()):
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.unlink(missing_ok=True)
    if member.issym():
        beside.symlink_to(member.linkname)
    else:
        stream = tar.extractfile(member)
        with beside.open("wb") as file:
            while stream and (block := stream.read(1 << 20)):
                file.write(block)
        beside.chmod(member.mode)
        seconds = float(member.mtime)
        os.utime(beside, (seconds, seconds))
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    beside.replace(path)
    return True


def are_needed(workshop: Workshop, image: str) -> bool:
    """Whether the engine sees other files than we at the same path, as a file of chance shows.

    A path that it lacks is mounted as an empty directory by many engines, in silence.
    """
    if workshop.dry or not is_elsewhere(workshop.root):
        return False
    where = (engine.address(), workshop.root)
    if where not in _answers:
        _answers[where] = _ask(workshop, image)
    return _answers[where]


_answers: dict[tuple[str, Path], bool] = {}


def _ask(workshop: Workshop, image: str) -> bool:
    nonce = uuid.uuid4().hex
    with tempfile.TemporaryDirectory(
        dir=outputs.make(workshop.out / ".run", workshop.out)
    ) as directory:
        (Path(directory) / nonce).write_text(nonce)
        mount = engine.mount_argument(directory, NONCE, True)
        argv = [client(), "run", "--rm", "--network", "none", "--mount", mount]
        argv += ["--name", f"slipway-{workshop.checkout}-nonce-{nonce[:8]}"]
        argv += ["--label", f"{LABEL}={workshop.checkout}", "--entrypoint", "cat"]
        answer = processes.look([*argv, image, f"{NONCE}/{nonce}"])
    if answer.stdout == nonce:
        return False
    low = answer.stderr.lower()
    if "no such file" in low or "does not exist" in low or "bind source path" in low:
        return True
    raise engine.failure(answer.stderr, "see whether the engine sees this machine's files")

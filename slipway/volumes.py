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
import stat
import tarfile
import tempfile
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any

from slipway import console, engine, outputs, processes
from slipway.engine import LABEL, Mount, client, path_inside
from slipway.errors import IO_ERROR, SlipwayError
from slipway.receipts import NOT_OURS, write_whole
from slipway.records import Record
from slipway.settings import Workshop

NONCE = "/run/slipway-nonce"
LISTING = ".slipway-listing"
GONE = "tmp/.slipway-gone"
# Deletes what is not here any more, then takes what is new.
SEND = (
    "cd / && tar --extract --preserve-permissions --numeric-owner --file - && "
    f"if [ -e {GONE} ]; then xargs --null --no-run-if-empty rm -rf -- <{GONE}; fi"
)
# A listing of all, and the files that were written since a time; by ctime, which nothing sets back.
FETCH = f"""\
set -e
since=$1; shift
now=$(date +%s.%N)
{{ printf '%s\\0' "$now"; find "$@" -printf '%p\\0'; }} >/tmp/{LISTING}
find "$@" ! -type s -newerct "@$since" -print0 >/tmp/changed
tar --create --numeric-owner --hard-dereference --no-recursion --file - --transform 's,^tmp/,,' \\
  --directory / --null tmp/{LISTING} --files-from /tmp/changed
"""

Known = dict[str, list[Any]]


class Place(Record, frozen=True):
    """A directory of this machine and the volume that stands for it."""

    source: Path
    target: str
    volume: str
    comes_back: bool
    travels: bool = True


# -- deciding


def is_elsewhere() -> bool:
    """Whether the engine may have other files than we: it is another machine's, or we are inside
    a container that was given its socket.
    """
    return not engine.local_socket() or Path("/.dockerenv").exists()


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


def target_of(mount: Mount, workshop: Workshop) -> str:
    """Where a mount stands inside."""
    return mount.target or path_inside(mount.instead_of or mount.source, workshop.root)


def entry(path: Path) -> list[Any]:
    """What tells whether a file is as it was: kind and mode, size, time, and where a link leads."""
    status = path.lstat()
    if stat.S_ISDIR(status.st_mode):
        return [status.st_mode, 0, 0, ""]
    link = os.readlink(path) if stat.S_ISLNK(status.st_mode) else ""
    return [status.st_mode, status.st_size, status.st_mtime_ns, link]


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


def difference(known: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Names that are new or changed, and names that are gone, the deepest first."""
    changed = [name for name, what in now.items() if known.get(name) != what]
    return changed, sorted((name for name in known if name not in now), reverse=True)


# -- acting


class Carrier:
    """The way of one job's files, there and back.

    :param image: whose ``tar`` and ``find`` are used there.
    """

    def __init__(self, workshop: Workshop, mounts: Sequence[Mount], image: str) -> None:
        self.workshop, self.image = workshop, image
        self.places = places_of(mounts, workshop)
        self.files = [mount for mount in mounts if mount.source.is_file()]
        self._state = workshop.out / ".run" / "volumes"

    def arguments(self, *, readonly: bool = True) -> list[str]:
        """What mounts the volumes."""
        argv = []
        for place in self.places:
            only = ",readonly" if readonly and place.travels and not place.comes_back else ""
            argv += ["--mount", f'type=volume,source={place.volume},"target={place.target}"{only}']
        return argv

    def send(self) -> None:
        """Bring what is there up to date; volumes are made when they are first wanted."""
        label = ["--label", f"{LABEL}={self.workshop.checkout}"]
        for place in self.places:
            engine.ask(["volume", "create", *label, place.volume], "make a volume")
        ids = self._created()
        with tempfile.TemporaryFile(dir=outputs.make(self._state, self.workshop.out)) as archive:
            listings, count, gone = {}, 0, list[str]()
            with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
                for place in self.places:
                    known = self._known(place, ids)
                    now = self._listing(place)
                    changed, lost = difference(known, now)
                    for name in changed:
                        add(tar, place.source / name, f"{place.target}/{name}")
                    gone += [f"{place.target}/{name}" for name in lost]
                    count += len(changed)
                    listings[place] = now
                if gone:
                    add_text(tar, GONE, "".join(f"{name}\0" for name in gone))
            if not count and not gone:
                return
            size = archive.tell()
            archive.seek(0)
            self._there(SEND, stdin=archive)
        for place, now in listings.items():
            self._keep(place, ids, now)
        console.say(
            f"sent {count} files, {console.megabytes(size)}, to the engine at {engine.address()}, "
            "which does not see this machine's"
        )

    def fetch(self) -> None:
        """Bring back what was written there, and remove here what was removed there."""
        back = [place for place in self.places if place.comes_back]
        if not back:
            return
        ids = self._created()
        clock = self._state / "clocks.json"
        clocks = read_json(clock)
        key = ",".join(sorted(f"{place.volume}@{ids.get(place.volume)}" for place in back))
        since = str(clocks.get(key, "0"))
        argv = self._command(FETCH, "fetch", since, *(place.target for place in back))
        with processes.reading(argv) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
            now, names, count = self._unpack(tar, back)
        for place in back:
            self._tidy(place, ids, names)
        write_whole(clock, json.dumps({key: now}) + "\n")
        if count:
            console.say(f"fetched {count} files from the engine at {engine.address()}")

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
        self, tar: tarfile.TarFile, back: Sequence[Place]
    ) -> tuple[str, frozenset[str], int]:
        """The other clock, the names of all that is there, and how many files have come."""
        now, names, count = "0", frozenset[str](), 0
        for member in tar:
            if member.name == LISTING:
                stream = tar.extractfile(member)
                now, *all_names = (stream.read() if stream else b"").decode().split("\0")
                names = frozenset(all_names)
                continue
            target = f"/{member.name}"
            for place in back:
                if target == place.target or target.startswith(f"{place.target}/"):
                    relative = PurePosixPath(target[len(place.target) + 1 :])
                    count += extract(tar, member, place.source, relative)
                    break
        return now, names, count

    def _tidy(self, place: Place, ids: Mapping[str, str], names: frozenset[str]) -> None:
        """Remove what was removed there, unless it was changed here; keep what both have now."""
        known, now = self._known(place, ids), self._listing(place)
        for name in sorted(now, reverse=True):
            if name in known and f"{place.target}/{name}" not in names and name != ".":
                path = place.source / name
                if known[name] != now[name]:
                    continue
                if path.is_dir() and not path.is_symlink():
                    if not any(path.iterdir()):
                        path.rmdir()
                else:
                    path.unlink()
                del now[name]
        self._keep(place, ids, now)

    def _listing(self, place: Place) -> Known:
        """What is here; of what does not travel only the directory itself."""
        if not place.travels:
            return {".": entry(place.source)}
        own = (self.workshop.out, self.workshop.dist, self.workshop.root / ".venv")
        others = (p.source for p in self.places if p is not place)
        return listing(place.source, {*own, *others} - {place.source})

    def _created(self) -> dict[str, str]:
        """When each volume was made: one that was removed and made again is empty."""
        names = [place.volume for place in self.places]
        text = engine.ask(["volume", "inspect", *names], "look at the volumes")
        return {str(row["Name"]): str(row["CreatedAt"]) for row in json.loads(text)}

    def _known(self, place: Place, ids: Mapping[str, str]) -> Known:
        """What both sides had at last."""
        kept = read_json(self._state / f"{place.volume}.json")
        fresh = kept.get("at") != [engine.address(), ids[place.volume]]
        return {} if fresh else dict(kept["files"])

    def _keep(self, place: Place, ids: Mapping[str, str], files: Known) -> None:
        at = [engine.address(), ids[place.volume]]
        write_whole(
            self._state / f"{place.volume}.json", json.dumps({"at": at, "files": files}) + "\n"
        )

    def _command(self, script: str, *words: str) -> list[str]:
        """The command that runs a script there, beside the volumes."""
        label = ["--label", f"{LABEL}={self.workshop.checkout}"]
        name = f"slipway-{self.workshop.checkout}-carry-{uuid.uuid4().hex[:8]}"
        argv = [client(), "run", "--rm", "--interactive", "--network", "none", "--user", "0:0"]
        argv += [*label, "--name", name, *self.arguments(readonly=False)]
        return [*argv, "--entrypoint", "sh", self.image, "-c", script, *words]

    def _there(self, script: str, *, stdin: IO[bytes]) -> None:
        heard = processes.Heard()
        status = processes.call(self._command(script), stdin=stdin, heard=heard)
        if status:
            full = "no space left" in heard.text.lower()
            raise SlipwayError(
                f"the files could not be sent to the engine at {engine.address()}",
                cause="its disk is full" if full else "its words are above",
                fix=[
                    "make room there, then the same command: what has arrived is not sent again"
                    if full
                    else "./go invoke doctor"
                ],
                code=IO_ERROR,
            )


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
    beside.replace(path)
    return True


def read_json(file: Path) -> dict[str, Any]:
    """What was kept; nothing where that cannot be read."""
    try:
        return dict(json.loads(file.read_text()))
    except (OSError, *NOT_OURS):
        return {}


def are_needed(workshop: Workshop, image: str) -> bool:
    """Whether the engine sees other files than we at the same path, as a file of chance shows.

    A path that it lacks is mounted as an empty directory by many engines, in silence.
    """
    if workshop.dry or not is_elsewhere():
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
        argv += ["--label", f"{LABEL}={workshop.checkout}", "--entrypoint", "cat"]
        answer = processes.look([*argv, image, f"{NONCE}/{nonce}"])
    if answer.stdout == nonce:
        return False
    low = answer.stderr.lower()
    if "no such file" in low or "does not exist" in low or "bind source path" in low:
        return True
    raise engine.failure(answer.stderr, "see whether the engine sees this machine's files")

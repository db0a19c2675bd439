"""Archives of other people's making, unpacked so that nothing lands outside.

The rules are those of tarfile's ``data`` filter, and stricter: what that filter mends silently is
refused here by name. They hold for every Python that runs Slipway, for tar and for zip. What would
be written is decided from the list of members alone, before the first byte is written, and symbolic
links are made last, so no member is ever written through one.

Kept: contents, whether a file is executable, links, times (they are what SOURCE_DATE_EPOCH of a
tree that is not in git comes from). Not kept: owners, setuid, and any other permission, so that
what is unpacked does not depend on who packed or unpacks it.
"""

from __future__ import annotations

import calendar
import os
import re
import shlex
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from lzma import LZMAError
from pathlib import Path
from typing import IO, Literal

from slipway.errors import BAD_DATA, SlipwayError

SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar", ".zip")

Kind = Literal["file", "dir", "link", "hardlink", "device", "fifo", "other"]
MAX_HOPS = 40  # links on the way through one path, as in the kernel
DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    LZMAError,
    EOFError,
    OSError,  # "Not a gzipped file", "Invalid data stream"
    RuntimeError,  # an encrypted zip
    NotImplementedError,  # a zip's unknown compression
    UnicodeDecodeError,
)


@dataclass(frozen=True)
class Member:
    """One entry of an archive, whatever its format."""

    path: str
    """As the archive spells it."""
    kind: Kind
    mtime: float
    is_executable: bool = False
    target: str = ""
    """Where a link points: from its own directory, for a hard link from the archive's top."""
    open: Callable[[], IO[bytes]] | None = None


class Refused(ValueError):  # noqa: N818  # as it reads where it is raised
    """An archive that would reach outside the directory it is unpacked into, or is no sense."""


def unpack(archive: Path, directory: Path) -> Path:
    """Unpack a tar or zip archive into an empty directory, and return the tree in it.

    That is the archive's one top directory where there is only one, else ``directory`` itself.

    :raises SlipwayError: a member would escape, is a device, or the archive is damaged.
    """
    try:
        if archive.name.endswith(".zip"):
            with zipfile.ZipFile(archive) as source:
                return _write(plan(_of_zip(source)), directory)
        with tarfile.open(archive) as tar:
            return _write(plan(_of_tar(tar)), directory)
    except Refused as error:
        raise SlipwayError(
            f"{archive.name} is not unpacked: {error}",
            cause="its maker made a mistake, or means harm; nothing of it was written",
            fix=[f"look at it: {_list_command(archive)}"],
            code=BAD_DATA,
        ) from None
    except DAMAGED as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's refusal, not the archive's fault
        raise SlipwayError(
            f"{archive.name} is damaged, or no archive",
            cause=f"{type(error).__name__}: {error}",
            fix=[f"look at it: {_list_command(archive)}"],
            code=BAD_DATA,
        ) from error


def _list_command(archive: Path) -> str:
    tool = ["unzip", "-l"] if archive.name.endswith(".zip") else ["tar", "-tvf"]
    return shlex.join([*tool, str(archive)])


# -- deciding: pure functions


@dataclass(frozen=True)
class Plan:
    """What is written where, relative to the directory."""

    members: Mapping[str, Member]
    """By clean path; files, directories and links only, hard links replaced by what they name."""
    top: str
    """The one directory that holds all else; empty where there are several, or a file."""


def plan(members: Iterable[Member]) -> Plan:
    """What an archive's members come to, or ``Refused`` with the member's name.

    Of two files with one path the later counts, as when tar appends to an archive.
    """
    found: dict[str, Member] = {}
    for member in members:
        path = clean(member.path)
        if not path:  # the directory itself
            continue
        if member.kind in ("device", "fifo", "other"):
            what = {"device": "a device", "fifo": "a named pipe"}.get(
                member.kind, "of no known kind"
            )
            raise Refused(f"'{member.path}' is {what}")
        if member.kind == "hardlink":
            member = _named_by(member, found)
        before = found.get(path)
        if before and before.kind != member.kind:
            raise Refused(f"'{member.path}' is in it twice, as {before.kind} and as {member.kind}")
        found[path] = member
    tops = {path.partition("/")[0] for path in found}
    top = tops.pop() if len(tops) == 1 else ""
    if top and top in found and found[top].kind != "dir":
        top = ""
    links = {path: member.target for path, member in found.items() if member.kind == "link"}
    for path, member in found.items():
        _check_parents(path, found)
        if member.kind == "link":
            _check_link(path, links, top)
    return Plan(found, top)


def clean(path: str) -> str:
    """A member's path without ``.`` and double slashes; refused where it leads out.

    Backslashes count as slashes in this, so that the answer is the same on every system.
    """
    if re.match(r"[/\\]|[A-Za-z]:[/\\]", path):
        raise Refused(f"'{path}' is an absolute path")
    if ".." in re.split(r"[/\\]", path):
        raise Refused(f"'{path}' escapes by '..'")
    return "/".join(part for part in path.split("/") if part not in ("", "."))


def _named_by(member: Member, found: Mapping[str, Member]) -> Member:
    """The member that a hard link names: a copy is made of it, lest one write changes two."""
    try:
        named = found.get(clean(member.target))
    except Refused:
        named = None
    if named is None or named.kind not in ("file", "link"):
        raise Refused(f"'{member.path}' is a hard link out of it, to '{member.target}'")
    return replace(named, path=member.path)


def _check_parents(path: str, found: Mapping[str, Member]) -> None:
    """Everything above a member is a directory."""
    parts = path.split("/")
    for count in range(1, len(parts)):
        above = found.get("/".join(parts[:count]))
        if above and above.kind != "dir":
            raise Refused(f"'{path}' goes through the {above.kind} '{above.path}'")


def _check_link(path: str, links: Mapping[str, str], top: str) -> None:
    """Follow a link as the system will, through other links, and refuse where it leaves the tree.

    By the names alone ``a/../b`` is ``b``; where ``a`` is a link it is not.
    """
    target = links[path]
    here = path.split("/")[:-1]
    floor = [top] if top else []  # the top directory gets another name and place
    todo = target.split("/")
    hops = 0
    if re.match(r"[/\\]|[A-Za-z]:[/\\]", target):
        raise Refused(f"'{path}' is a link to an absolute path, '{target}'")
    while todo:
        part = todo.pop(0)
        if part in ("", "."):
            continue
        if part == "..":
            if here == floor or not here:
                raise Refused(f"'{path}' is a link out of it, to '{target}'")
            here.pop()
            continue
        onward = links.get("/".join([*here, part]))
        if onward is None:
            here.append(part)
            continue
        hops += 1
        if hops > MAX_HOPS:
            raise Refused(f"'{path}' is a link that leads in a circle")
        todo = onward.split("/") + todo


# -- reading the two formats


def _of_tar(archive: tarfile.TarFile) -> Iterable[Member]:
    for info in archive:

        def reader(info: tarfile.TarInfo = info) -> IO[bytes]:
            stream = archive.extractfile(info)
            if stream is None:
                raise tarfile.TarError(f"no content for {info.name}")
            return stream

        yield Member(
            path=info.name,
            kind=_tar_kind(info),
            mtime=info.mtime,
            is_executable=bool(info.mode & 0o111),
            target=info.linkname,
            open=reader,
        )


def _tar_kind(info: tarfile.TarInfo) -> Kind:
    if info.isdir():
        return "dir"
    if info.issym():
        return "link"
    if info.islnk():
        return "hardlink"
    if info.isfifo():
        return "fifo"
    if info.isdev():
        return "device"
    return "file" if info.isreg() else "other"


def _of_zip(archive: zipfile.ZipFile) -> Iterable[Member]:
    for info in archive.infolist():
        mode = info.external_attr >> 16
        kind = _zip_kind(info, mode)

        def reader(info: zipfile.ZipInfo = info) -> IO[bytes]:
            return archive.open(info)

        yield Member(
            path=info.filename,
            kind=kind,
            # Local time of an unknown zone: taken as UTC, it is at least the same everywhere.
            mtime=calendar.timegm((*info.date_time, 0, 0, 0)),
            is_executable=bool(mode & 0o111),
            target=archive.read(info).decode() if kind == "link" else "",
            open=reader,
        )


def _zip_kind(info: zipfile.ZipInfo, mode: int) -> Kind:
    if info.is_dir():
        return "dir"
    if stat.S_ISLNK(mode):
        return "link"
    if stat.S_ISFIFO(mode):
        return "fifo"
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        return "device"
    return "file"


# -- writing


def _write(planned: Plan, directory: Path) -> Path:
    """Carry a plan out in an empty directory."""
    links = {p: m for p, m in planned.members.items() if m.kind == "link"}
    directories = {p: m for p, m in planned.members.items() if m.kind == "dir"}
    for path, member in planned.members.items():
        place = directory / path
        if member.kind == "dir":
            place.mkdir(parents=True, exist_ok=True)
        if member.open is None or member.kind != "file":
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        with member.open() as source, place.open("xb") as copy:
            shutil.copyfileobj(source, copy, 1 << 20)
        place.chmod(0o755 if member.is_executable else 0o644)
        os.utime(place, (member.mtime, member.mtime))
    for path, member in links.items():
        place = directory / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(member.target)
        if os.utime in os.supports_follow_symlinks:
            os.utime(place, (member.mtime, member.mtime), follow_symlinks=False)
    # The deepest first: each entry that is made changes the time of the directory it is in.
    for path, member in sorted(directories.items(), reverse=True):
        (directory / path).chmod(0o755)
        os.utime(directory / path, (member.mtime, member.mtime))
    return directory / planned.top

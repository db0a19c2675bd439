"""A copy of a source tree for builds that write where they stand, kept up to date file by file.

The caller's tree is never written to. setuptools, make and most scripts write beside their sources,
so they get a copy, mounted at the source's own path; what they have made in it stays, so the next
build does only what changed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
from collections.abc import Container
from pathlib import Path

from slipway.receipts import NOT_OURS, files_below, write_whole

State = list[int | str]
"""What tells that a file was written to: size, time, mode, and where a link points."""


def sync(source: Path, copy: Path, leave_out: Container[Path] = ()) -> list[str]:
    """Bring ``copy`` up to date with ``source``; the names of files that were copied or removed.

    A file of the source that changed is copied again, one that has gone is removed; whatever else
    the copy holds was built in it and stays. Which is which stands beside the copy, so that one
    broken off in the middle is taken up again.

    :param leave_out: directories of the source that are none.
    """
    memory = copy.with_name(f"{copy.name}.json")
    before = _read(memory)
    now: dict[str, State] = {}
    for path in files_below(source, leave_out):
        status = path.lstat()
        if stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):  # else somebody's socket
            state: State = [
                status.st_size,
                status.st_mtime_ns,
                status.st_mode,
                _target(path, source),
            ]
            now[str(path.relative_to(source))] = state
    gone = before.keys() - now.keys()
    for name in gone:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
            (copy / name).unlink()
    copy.mkdir(parents=True, exist_ok=True)
    stale = [n for n, s in now.items() if before.get(n) != s or not os.path.lexists(copy / n)]
    for name in stale:
        _copy(source / name, copy / name, str(now[name][-1]))
    if before != now:
        write_whole(memory, json.dumps(now))
    return [*gone, *stale]


def remove(copy: Path) -> None:
    """Remove a copy with all that was built in it."""
    copy.with_name(f"{copy.name}.json").unlink(missing_ok=True)
    if copy.exists():
        shutil.rmtree(copy)


def _read(memory: Path) -> dict[str, State]:
    try:
        return dict(json.loads(memory.read_text()))
    except (OSError, *NOT_OURS):
        return {}


def _target(path: Path, source: Path) -> str:
    """Where a link points: one that leads out of the tree, by its absolute path."""
    if not path.is_symlink():
        return ""
    given = os.readlink(path)
    leads_to = os.path.normpath(path.parent / given)
    return given if Path(leads_to).is_relative_to(source) else leads_to


def _copy(path: Path, to: Path, target: str) -> None:
    """Copy one file or link over whatever is there; its owner may write to it."""
    to.parent.mkdir(parents=True, exist_ok=True)
    if to.is_dir() and not to.is_symlink():
        shutil.rmtree(to)
    to.unlink(missing_ok=True)
    if target:
        to.symlink_to(target)
        return
    shutil.copy2(path, to)
    to.chmod(stat.S_IMODE(to.stat().st_mode) | stat.S_IWUSR)

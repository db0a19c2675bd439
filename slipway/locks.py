"""One holder at a time for a directory that jobs write to, named to whoever else wants it."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from slipway import console
from slipway.errors import TEMPORARY, SlipwayError


@contextlib.contextmanager
def held(directory: Path, doing: str) -> Iterator[None]:
    """Hold the lock of an existing directory, or say who holds it.

    The operating system lets go of it when the process ends, however it ends.

    :param doing: the task, for the message that another process gets.
    """
    with (directory / ".lock").open("a+") as stream:
        if not _lock(stream):
            stream.seek(0)
            holder = stream.read().strip() or "another process"
            raise SlipwayError(
                f"{directory} is in use by {holder}",
                fix=["wait for it to end, or end it, then try again"],
                code=TEMPORARY,
            )
        stream.seek(0)
        stream.truncate()
        since = console.moment(time.time())
        stream.write(f"process {os.getpid()} ('invoke {doing}', since {since})")
        stream.flush()
        yield


def _lock(stream: IO[str]) -> bool:
    """Take the lock of an open file without waiting."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True

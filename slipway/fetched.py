"""What is fetched once: alone, beside its place, then renamed; and how it is spoken of."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from slipway import console
from slipway.errors import TEMPORARY, SlipwayError
from slipway.locks import held

LOOK_AGAIN_S = 0.2


@contextlib.contextmanager
def alone(directory: Path, doing: str = "build") -> Iterator[None]:
    """Hold the lock of a directory, which is made; wait while another process holds it.

    Two tasks that need the same source want it fetched once, not one of them to fail.
    """
    said = False
    while True:
        with contextlib.ExitStack() as stack:
            directory.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(held(directory, doing))
            except SlipwayError as busy:
                if busy.code != TEMPORARY:
                    raise
                if not said:
                    console.say(f"waiting: {busy.what}")
                    said = True
            else:
                yield
                return
        time.sleep(LOOK_AGAIN_S)


def make_whole(final: Path, fill: Callable[[Path], Path]) -> bool:
    """Make the directory ``final`` whole or not at all; False when it is there meanwhile.

    :param fill: gets an empty directory on the same disk and returns what in it, or itself,
        becomes ``final``. What a killed process left of it is removed by the next one.
    """
    work = final.parent / ".work" / final.name
    with alone(work):
        if final.exists():
            return False
        partial = work / "partial"
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir()
        try:
            fill(partial).rename(final)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        # Whoever waits for the lock of what is removed here finds that final is there.
        shutil.rmtree(work, ignore_errors=True)
    return True


def replace_whole(final: Path, fill: Callable[[Path], Path]) -> None:
    """Make a file or directory anew; the one of before stays until the new one is whole.

    :param fill: as for ``make_whole``.
    """
    work = final.parent / ".work" / final.name
    before = work / "before"
    with alone(work, "release"):
        if before.exists() and not final.exists():
            before.rename(final)  # a process was killed between the two renames
        for left in (before, *work.glob("partial-*")):
            shutil.rmtree(left, ignore_errors=True)
        # Another one each time: a container of a killed process may still write to its own.
        partial = Path(tempfile.mkdtemp(dir=work, prefix="partial-"))
        try:
            made = fill(partial)
            if final.is_dir():
                final.rename(before)
            made.replace(final)
        except BaseException:
            if before.exists() and not final.exists():
                before.rename(final)
            shutil.rmtree(partial, ignore_errors=True)
            raise
        shutil.rmtree(work, ignore_errors=True)
        with contextlib.suppress(OSError):  # somebody else works there too
            work.parent.rmdir()


def without_credentials(text: str) -> str:
    """A URL, or any text with URLs in it, as it may be printed or stored.

    For http everything before the @ can be a secret; ``ssh://git@`` is needed and is none.
    """
    text = re.sub(r"(https?://)[^/\s]*@", r"\1", text, flags=re.IGNORECASE)
    return re.sub(r"(\w://[^/\s:@]*):[^/\s]*@", r"\1@", text)


def close_to(name: str, known: Sequence[str], count: int = 5) -> list[str]:
    """The names that are most like ``name``, best first; the last ones where none is like it."""
    close = difflib.get_close_matches(name, known, n=count, cutoff=0.5)
    return close or list(known[-count:])


def sha256(file: Path) -> str:
    """The digest of a file's content, as ``sha256sum`` prints it."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()

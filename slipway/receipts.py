"""What was done with which inputs, so that what is unchanged is said to be, and not done again.

A receipt is written after a step has succeeded and holds the fingerprint of all that went in. It is
never counted as the step having been run: the summary says "unchanged since" and when.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

import msgspec

from slipway.images import file_hash, fingerprint
from slipway.records import Record

# What reading JSON that is not ours, or was cut off, may raise.
NOT_OURS = (ValueError, TypeError, KeyError, AttributeError)


class Receipt(Record, frozen=True):
    """One step that succeeded."""

    inputs: str
    made_at: float
    facts: dict[str, Any] = msgspec.field(default_factory=dict)
    """What later steps and the summary need: names, counts; ``files``, each with its hash."""


def read(file: Path, inputs: str) -> Receipt | None:
    """The receipt in ``file`` if it is for the same inputs and what it names is still there."""
    try:
        receipt = Receipt(**json.loads(file.read_text()))
        made = receipt.facts.get("files", {})
        kept = all(file_hash(Path(file)) == digest for file, digest in made.items())
    except (OSError, *NOT_OURS):
        return None
    return receipt if kept and receipt.inputs == inputs else None


def facts(file: Path) -> dict[str, Any]:
    """What a receipt says, whatever the inputs are now; empty when there is none."""
    try:
        return dict(json.loads(file.read_text())["facts"])
    except (OSError, *NOT_OURS):
        return {}


def code_of(*modules: str) -> str:
    """Changes with modules of ours by which a step judges, so that it judges again."""
    here = Path(__file__)
    return fingerprint([file_hash(here.with_name(f"{name}.py")) for name in modules])


def write(file: Path, inputs: str, facts: dict[str, Any]) -> Receipt:
    """Write a receipt, whole or not at all."""
    receipt = Receipt(inputs, time.time(), facts)
    text = {"inputs": inputs, "made_at": receipt.made_at, "facts": facts}
    write_whole(file, json.dumps(text, indent=1) + "\n")
    return receipt


def write_whole(file: Path, text: str) -> None:
    """Write beside, then rename: nobody ever finds half a file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(file)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise


def files_below(top: Path, leave_out: Container[Path] = ()) -> Iterator[Path]:
    """Every file of a tree in a fixed order, or ``top`` itself where that is a file.

    Version control's own directories are left out, and the directories named in ``leave_out``.
    """
    if top.is_file():
        yield top
    for name, folders, files in os.walk(top):
        here = Path(name)
        kept = (f for f in folders if f not in (".git", "__pycache__"))
        folders[:] = sorted(f for f in kept if here / f not in leave_out)
        links = (f for f in folders if (here / f).is_symlink())  # os.walk does not follow them
        yield from (here / f for f in sorted([*files, *links]))


def tree_fingerprint(top: Path, leave_out: Container[Path] = ()) -> str:
    """Changes when a file of the tree is added, removed, renamed, resized or written to.

    Names, sizes, modes and times, not contents: a large tree must not cost seconds to look at.
    """
    rows = []
    for path in files_below(top, leave_out):
        status = path.lstat()
        rows.append([str(path), status.st_size, status.st_mode, status.st_mtime_ns])
    return fingerprint(rows)

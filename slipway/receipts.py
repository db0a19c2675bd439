"""What was done with which inputs, so that what is unchanged is said to be, and not done again.

A receipt is written after a step has succeeded and holds the fingerprint of all that went in. It is
never counted as the step having been run: the summary says "unchanged since" and when.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slipway.images import file_hash, fingerprint


@dataclass(frozen=True)
class Receipt:
    """One step that succeeded."""

    inputs: str
    made_at: float
    facts: dict[str, Any] = field(default_factory=dict)
    """What later steps and the summary need: names, sizes, counts."""


def read(file: Path, inputs: str) -> Receipt | None:
    """The receipt in ``file`` if it is for the same inputs and what it names is still there."""
    try:
        receipt = Receipt(**json.loads(file.read_text()))
    except (OSError, ValueError, TypeError):
        return None
    if receipt.inputs != inputs:
        return None
    made = receipt.facts.get("file")
    if made and not (Path(made).is_file() and file_hash(Path(made)) == receipt.facts["hash"]):
        return None
    return receipt


def facts(file: Path) -> dict[str, Any]:
    """What a receipt says, whatever the inputs are now; empty when there is none."""
    try:
        found = json.loads(file.read_text())["facts"]
    except (OSError, ValueError, KeyError):
        return {}
    return dict(found)


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


def files_below(directory: Path) -> Iterator[Path]:
    """Every file of a tree in a fixed order, version control's own directories left out."""
    for name, folders, files in os.walk(directory):
        folders[:] = sorted(f for f in folders if f not in (".git", "__pycache__", "out", "dist"))
        yield from (Path(name) / f for f in sorted(files))


def tree_fingerprint(directory: Path) -> str:
    """Changes when a file of the tree is added, removed, renamed, resized or written to.

    Names, sizes, modes and times, not contents: a large tree must not cost seconds to look at.
    """
    rows = []
    for path in files_below(directory):
        status = path.lstat()
        rows.append([str(path), status.st_size, status.st_mode, status.st_mtime_ns])
    return fingerprint(rows)

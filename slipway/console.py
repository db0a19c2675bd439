"""What a person reads: plain lines, colours only on a terminal."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from slipway.errors import USAGE, SlipwayError

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def _styled(text: str, code: str) -> str:
    if sys.stdout.isatty() and "NO_COLOR" not in os.environ:
        return f"\033[{code}m{text}\033[0m"
    return text


def bold(text: str) -> str:
    """``text`` in bold on a terminal, unchanged elsewhere."""
    return _styled(text, "1")


def dim(text: str) -> str:
    """``text`` in grey on a terminal, unchanged elsewhere."""
    return _styled(text, "2")


def coloured(text: str, number: int) -> str:
    """``text`` in one of six colours on a terminal, the same for the same number."""
    return _styled(text, str(31 + (number + 1) % 6))


def say(text: str = "") -> None:
    """One line on standard output, in order with what child processes write there."""
    print(text, flush=True)


def show_command(argv: Sequence[str], env: Mapping[str, str] | None = None) -> None:
    """The command that runs next, quoted so that it can be pasted into a shell."""
    variables = [f"{key}={shlex.quote(value)} " for key, value in (env or {}).items()]
    # The short name where a shell would find the same program by it.
    program = Path(argv[0]).name if shutil.which(Path(argv[0]).name) == argv[0] else argv[0]
    say(dim(f"$ {''.join(variables)}{shlex.join([program, *argv[1:]])}"))


def seconds(value: float) -> str:
    """A duration for people: ``0.4 s``, ``12 s``, ``3 min 20 s``."""
    if value < 10:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def megabytes(size: float) -> str:
    """A size in MB of 10^6 bytes, as docker counts; kB below 1 MB."""
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"


def parse_size(text: str, example: str) -> int:
    """Bytes that ``20GB``, ``500M`` or ``1.5 g`` mean (powers of ten, as docker counts).

    :param example: a command that has a size in it.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)b?\s*", text, re.IGNORECASE)
    if not match:
        raise SlipwayError(f"'{text}' is no size", fix=[example], code=USAGE)
    return int(float(match.group(1)) * UNITS[match.group(2).upper()])


def moment(stamp: float) -> str:
    """A point in time, local, to the minute."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(stamp))


def shown(path: Path, start: Path) -> str:
    """``path`` relative to the checkout ``start`` when it lies below it."""
    return str(path.relative_to(start)) if path.is_relative_to(start) else str(path)


def table(rows: Iterable[Sequence[str]]) -> None:
    """Columns as wide as they need to be, the first row being the head."""
    lines = [list(row) for row in rows]
    widths = [max(len(row[i]) for row in lines) for i in range(len(lines[0]))]
    for number, row in enumerate(lines):
        text = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        say(bold(text.rstrip()) if number == 0 else text.rstrip())

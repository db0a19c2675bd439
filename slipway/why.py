"""Why something was done again: image, configuration, source file or compiler, in a few lines.

CMake's part is told by what was configured with then and now, which ``scripts/build`` keeps beside
the build; Ninja's by its own ``-d explain``.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from slipway.engine import hides_image
from slipway.receipts import NOT_OURS

EXPLAINED = ".slipway-explained"  # what scripts/build leaves of Ninja's explanations
IMAGE, CONFIGURATION, SOURCE, COMPILER = "image", "configuration", "source file", "compiler"
MOST = 8  # lines of one kind that are shown

Reason = tuple[str, str]
"""Its kind, one of the four above, and the rest of the line."""

# Ninja's words, the same from 1.11 to 1.13.
_OLDER = re.compile(r"(?:.* of |output )(.+) older than most recent input (.+) \(-?\d+ vs -?\d+\)")
_GONE = re.compile(r"output (.+?)(?: of phony edge with no inputs)? doesn't exist")
_COMMAND = re.compile(r"command line (changed|not found in log) for (.+)")
_DEPENDENCIES = re.compile(
    r"(?:stored )?deps (?:info out of date )?for '?(.+?)'?(?: are missing| \()"
)


def stamp(file: Path) -> str:
    """What a directory was configured with the last time; empty when it was not."""
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def of_configuration(before: str, now: str, mode: str) -> list[Reason]:
    """What has changed since a directory was configured.

    :param before: the stamp of then, empty when there is none.
    :param now: the stamp that ``builds.configure_mode`` has made.
    :param mode: what it has decided; ``no``: nothing has changed.
    """
    if mode == "no":
        return []
    try:
        old, new = json.loads(before), json.loads(now)
        changes = [
            *_differing(old["toolchain"], new["toolchain"]),
            *((CONFIGURATION, text) for text in _options(old["options"], new["options"])),
        ]
    except NOT_OURS:
        return [(CONFIGURATION, "this directory has not been configured yet, or not to the end")]
    return changes or [(CONFIGURATION, "what Ninja reads was not there")]


# What each part of a stamp is to a person; the flags are shown word by word.
_PARTS = {
    "image": (IMAGE, "{new}, before {old}"),
    "source": (CONFIGURATION, "the source is {new}, before {old}"),
    "build": (CONFIGURATION, "build in project.yaml says {new}, before {old}"),
}


def _differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterable[Reason]:
    for key, value in new.items():
        was = old.get(key)
        if value == was:
            continue
        if key in _PARTS:
            kind, text = _PARTS[key]
            yield kind, text.format(new=_plain(value), old=_plain(was))
        else:
            yield CONFIGURATION, f"{key} {_words(str(was or ''), str(value))}"


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return json.dumps(value)
    return str(value or "none: in place")


def _words(old: str, new: str) -> str:
    """What of a line of flags is new, and what has gone: ``+-O1 -(-O2)``."""
    before, now = Counter(old.split()), Counter(new.split())
    gained, lost = list((now - before).elements()), list((before - now).elements())
    said = [f"gained {' '.join(gained)}"] if gained else []
    said += [f"lost {' '.join(lost)}"] if lost else []
    return ", ".join(said) or "are in another order"


def _options(old: Mapping[str, str], new: Mapping[str, str]) -> Iterable[str]:
    for key in sorted({*old, *new}):
        if key not in new:
            yield f"{key} is not set any more, before {old[key] or 'empty'}"
        elif key not in old:
            yield f"{key} is {new[key] or 'empty'}, before not set"
        elif old[key] != new[key]:
            yield f"{key} is {new[key] or 'empty'}, before {old[key] or 'empty'}"


def of_ninja(said: str, source: str, *, afresh: bool = False) -> list[Reason]:
    """The causes in what ``ninja -d explain`` has said, each with how much was made for it.

    What is only made because something before it was is left out.

    :param source: the source tree, as the compiler knows it.
    :param afresh: CMake has just removed what was made, which is no cause of its own.
    """
    newer: dict[str, set[str]] = {}
    gone: set[str] = set()
    commands: set[str] = set()
    for line in dict.fromkeys(said.splitlines()):
        text = line.removeprefix("ninja explain: ")
        if match := _OLDER.fullmatch(text):
            newer.setdefault(match[2], set()).add(match[1])
        elif match := _GONE.fullmatch(text):
            gone.add(match[1])
        elif match := _COMMAND.fullmatch(text):
            (commands if match[1] == "changed" else gone).add(match[2])
        elif match := _DEPENDENCIES.match(text):
            gone.add(match[1])
    made = {*gone, *commands, *(o for outputs in newer.values() for o in outputs)}
    reasons: list[Reason] = []
    for path in sorted(newer, key=lambda p: (-len(newer[p]), p)):
        if path in made:
            continue
        what = "for CMake" if newer[path] == {"build.ninja"} else _made(newer[path])
        shown = path.removeprefix(f"{source}/")
        reasons.append((_kind(path, source), f"{shown} has changed, {what}"))
    commands -= gone
    if commands:
        reasons.append((CONFIGURATION, f"the commands have changed, {_made(commands)}"))
    if gone and not afresh:
        reasons.append((CONFIGURATION, f"nothing was there, {_made(gone)}"))
    return reasons


def _made(outputs: set[str]) -> str:
    if len(outputs) == 1:
        return f"for {next(iter(outputs)).rpartition('/')[2]}"
    return f"for {len(outputs)} files"


def _kind(path: str, source: str) -> str:
    if path.startswith(f"{source}/"):
        named = path.rpartition("/")[2]
        return CONFIGURATION if named == "CMakeLists.txt" or named.endswith(".cmake") else SOURCE
    return COMPILER if hides_image(path) else SOURCE


def of_copy(changed: Sequence[str]) -> list[Reason]:
    """The files of a source tree that were copied again, or removed."""
    return [(SOURCE, f"{name} has changed") for name in sorted(changed)]


def read(build: Path, source: str, *, afresh: bool) -> list[Reason]:
    """What Ninja has left in a build directory; it is read once."""
    file = build / EXPLAINED
    try:
        said = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    file.unlink()
    return of_ninja(said, source, afresh=afresh)


def lines(title: str, reasons: Sequence[Reason]) -> list[str]:
    """What a person reads."""
    if not reasons:
        return [f"why {title}: no image, configuration, compiler or source file has changed"]
    shown = [f"why {title} was done again:"]
    for kind in (IMAGE, CONFIGURATION, COMPILER, SOURCE):
        texts = [text for k, text in reasons if k == kind]
        shown += [f"  {kind}: {text}" for text in texts[:MOST]]
        if len(texts) > MOST:
            shown.append(f"  {kind}: and {len(texts) - MOST} more")
    return shown

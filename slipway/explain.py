"""What the last words of a tool mean, when it failed because a rule of ours was in its way."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice

from slipway.records import Record


class Sign(Record, frozen=True):
    """Words by which a failure is known."""

    words: str
    """Regular expression, for text in small letters."""
    means: str
    """What it means; empty: the tool's own words say it."""
    fix: str
    """What to do."""
    lines: int = 1
    """How many of the tool's lines are shown, from the one with the words on."""


BUILDING = (
    Sign(
        r"read-only file system",
        "the build writes into its source, which is mounted read-only",
        "write build: {writable: true} into project.yaml: the build then gets a copy of the source",
        2,
    ),
    Sign(
        r"could not resolve host|name resolution|name or service not known|network is unreachable"
        r"|failed to establish a new connection",
        "it wants the network, and compiling has none",
        "name what it fetches under build.apt or build.pip in project.yaml, "
        "or write build: {network: true} there",
    ),
    Sign(
        r"some build dependencies for .* are missing|cannot import '\w+[\w.]*'",
        "its build needs Python packages that the image does not have",
        "name them under build.pip in project.yaml",
    ),
    Sign(
        r"could not find a package configuration file provided by|could not find \S+ \(missing:"
        r"|dependency .* not found|fatal error: \S+\.h(pp)?: no such file",
        "its build needs a package that the image does not have",
        "name Debian's package of it under build.apt in project.yaml",
    ),
    Sign(
        r"killed signal terminated program|fatal error: killed",
        "the memory was used up",
        "invoke build --jobs 1",
    ),
)

PACKING = (
    Sign(
        r"has no install rules|no rule to make target .install",
        "the project has no install rules, or none for what is packaged",
        "add install(TARGETS ...) to CMakeLists.txt or an install target to the Makefile; "
        "or name Python modules under package.python in project.yaml",
    ),
    Sign(
        r"two packages would hold the same file", "", "mend package in project.yaml, as it says", 3
    ),
    Sign(
        r"^deb: \S+ needs \S+, (which is not locked|not \S+)$",
        "the prebuilt wheel needs what project.yaml does not lock",
        "uv pip compile --generate-hashes, and name the file under package.requirements",
        6,
    ),
    Sign(
        r"holds no python module",
        "there is nothing for Python to import, so no wheel can be made",
        "name modules under package.python in project.yaml; or invoke deb, for what is no Python",
        2,
    ),
    Sign(r"fits none of the", "", "mend the pattern in project.yaml", 6),
    Sign(r"nothing is left for", "", "mend it as it says", 2),
    Sign(r"go into no package", "", "mend package.files in project.yaml", 6),
    Sign(
        r"^e: \S+: \S+",
        "lintian calls that an error",
        "mend it, or override it with a reason under package.lintian in project.yaml",
        4,
    ),
)


def explain(said: str, signs: Iterable[Sign]) -> tuple[str, str]:
    """The likely cause of a failure, and what to do; empty where nothing is known."""
    low = said.lower()
    for sign in signs:
        match = re.search(sign.words, low, re.MULTILINE)
        if match:
            start = low.rfind("\n", 0, match.start()) + 1
            lines = filter(None, map(str.strip, said[start:].splitlines()))
            shown = "\n".join(line[:300] for line in islice(lines, sign.lines))
            words = shown.removeprefix("deb: ")
            return f"{sign.means}:\n{words}" if sign.means else words, sign.fix
    return "", ""

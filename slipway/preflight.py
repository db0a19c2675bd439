"""What a program says on a CPU that lacks its variant's instructions, and what to take instead.

Decided from the variants' table alone. A production image says it as it starts
(``scripts/preflight.c``), a library as it is imported (the placeholder ``{refusal}``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from slipway.variants import LEVEL_FLAGS, LEVEL_WORDS

if TYPE_CHECKING:
    from slipway.project import Tree

LEVELS = tuple(LEVEL_FLAGS)


def too_low(tree: Tree, variant: str) -> tuple[str, ...]:
    """The levels at which a CPU does not run the variant, lowest first.

    None where the row's ``isa`` is no level of the psABI: nobody can tell, so nothing is asked.
    """
    isa = tree.variants[variant].isa
    return LEVELS[: LEVELS.index(isa)] if isa in LEVELS else ()


def instead(tree: Tree, variant: str, level: str) -> str:
    """The project's best variant on a CPU of ``level``; empty where none runs.

    One with CUDA is no answer to who has one without; one without is, where nothing else runs.
    """
    rows = tree.variants
    able = {
        name: (bool(row.cuda), LEVELS.index(row.isa))
        for name, row in rows.items()
        if row.isa in LEVELS[: LEVELS.index(level) + 1] and (rows[variant].cuda or not row.cuda)
    }
    return max(able, key=able.__getitem__, default="")


def sentences(tree: Tree, variant: str) -> dict[str, str]:
    """What to say on a CPU, by its highest level: one sentence for each that is too low."""
    said = {}
    for level in too_low(tree, variant):
        other = instead(tree, variant, level)
        advice = _use(tree, variant, other) or f"no variant of {tree.project.name} runs on it"
        said[level] = f"{_needs(tree, variant)}, and this one has {level}: {advice}"
    return said


def refusal(tree: Tree, variant: str) -> str:
    """One sentence for all CPUs that are too low, for who cannot tell what they have; or nothing.

    It has no quotes and no semicolon, which CMake and shells would take apart.
    """
    lower = too_low(tree, variant)
    if not lower:
        return ""
    others = dict.fromkeys(instead(tree, variant, level) for level in reversed(lower))
    advice = []
    for other in filter(None, others):
        isa = tree.variants[other].isa
        advice.append(f"on one with {isa} ({LEVEL_WORDS[isa]}) {_use(tree, variant, other)}")
    if "" in others:
        advice.append(f"no variant of {tree.project.name} runs on {'less' if advice else 'it'}")
    return f"{_needs(tree, variant)}, which this one lacks: {', and '.join(advice)}"


def _needs(tree: Tree, variant: str) -> str:
    isa = tree.variants[variant].isa
    name = f"{tree.package_name(variant)} {tree.version.pep440}"
    return f"{name} needs a CPU with {isa} ({LEVEL_WORDS[isa]})"


def _use(tree: Tree, variant: str, other: str) -> str:
    if not other:
        return ""
    rows = tree.variants
    without = ", which is without CUDA" if rows[variant].cuda and not rows[other].cuda else ""
    return f"use the package {tree.package_name(other)} or the image {tree.alias(other)}{without}"


def header(said: Mapping[str, str]) -> str:
    """The levels, lowest first, as ``scripts/preflight.c`` includes them.

    :param said: level to sentence; a level without one is enough.
    """
    rows = [f"LEVEL({json.dumps(level)}, {json.dumps(said.get(level, ''))})\n" for level in LEVELS]
    return "/* Made by slipway/preflight.py from the variants' table. */\n" + "".join(rows)

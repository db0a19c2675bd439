"""A plan is shown before it is carried out, and a person is asked."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from slipway import console, engine
from slipway.errors import SlipwayError


def agree(title: str, plan: Sequence[str], *, leave: bool, again: str, refused: str) -> None:
    """Show what is about to be done, and go on only with leave.

    :param leave: it is given already, by ``--yes``.
    :param again: the command that was typed, to be typed again.
    :param refused: what is said to who does not agree: "nothing was installed".
    :raises SlipwayError: the answer was no, or nobody is there to be asked.
    """
    console.say(title)
    for step in plan:
        console.say(f"  - {step}")
    if leave:
        return
    if not engine.on_terminal():
        raise SlipwayError(
            "nobody is here to agree to this plan",
            cause="standard input is no terminal",
            fix=[f"{again} --yes"],
        )
    console.say("go on? [y/N] ")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise SlipwayError(refused, fix=[f"{again}, when you are ready"])

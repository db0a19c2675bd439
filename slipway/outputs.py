"""Directories that are written to: made by us, as the caller, before docker makes them as root."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from slipway.errors import CANNOT_CREATE, SlipwayError


def make(directory: Path, top: Path) -> Path:
    """Make ``directory``, and say whose it is where an earlier run as another user is in the way.

    :param top: ``out/`` or ``dist/``, which has to be given back as a whole.
    """
    missing = [directory, *directory.parents]
    for existing in (p for p in missing if p.is_relative_to(top) and p.exists()):
        if not os.access(existing, os.W_OK | os.X_OK):
            raise SlipwayError(
                f"cannot write {existing}: it belongs to uid {existing.stat().st_uid}, "
                f"you are {os.getuid()}",
                cause="an earlier run as another user, such as root, made it",
                fix=[f'sudo chown -R "$(id -u):$(id -g)" {shlex.quote(str(top))}'],
                code=CANNOT_CREATE,
            )
    directory.mkdir(parents=True, exist_ok=True)
    return directory

"""gdb's command line."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence

from slipway import builds, engine
from slipway.builds import Site
from slipway.errors import UNAVAILABLE, SlipwayError

CAPABILITIES = ("SYS_PTRACE",)
PATIENCE_S = 120  # for a test that died, when it runs again
FRAMES = 40


def lacks(s: Site, tool: str) -> SlipwayError | None:
    """What is wrong where ``tool`` is not on this machine and jobs run in place."""
    if s.image or shutil.which(tool, path=engine.path_in_place(s.workshop)):
        return None
    return SlipwayError(
        f"no {tool} on this machine", fix=[f"sudo apt-get install {tool}"], code=UNAVAILABLE
    )


def quoted(text: str) -> str:
    """``text`` as one word of a gdb command."""
    return re.sub(r"([\s'\"\\])", r"\\\1", text)


def substitutions(s: Site) -> list[str]:
    """gdb commands that say what the paths in the debug symbols of a release build stand for.

    See ``builds.prefix_maps``. The longest comes first, since the first that fits counts.
    """
    maps = sorted(builds.prefix_maps(s).items(), key=lambda pair: len(pair[1]), reverse=True)
    return [f"set substitute-path {name} {quoted(path)}" for path, name in maps]


def gdb(s: Site, *arguments: str) -> list[str]:
    """The command line of gdb."""
    commands = [
        "set disable-randomization off",
        "set breakpoint pending on",
        "set filename-display absolute",  # as an editor opens them
        *substitutions(s),
    ]
    options = [word for command in commands for word in ("-iex", command)]
    return ["gdb", "-q", *options, *arguments]


def again(s: Site, core: str, command: Sequence[str]) -> list[str]:
    """The command line that runs a test that died, to show where, and keep a core.

    gdb writes the core: the kernel's own go where the host's core_pattern says.

    :param core: where it goes, inside.
    """
    steps = ["run", f"backtrace {FRAMES}", f"generate-core-file {core}"]
    # In the foreground, since gdb needs the terminal.
    limit = ["timeout", "--foreground", "--kill-after=10", str(PATIENCE_S)]
    executed = [word for step in steps for word in ("-ex", step)]
    return [*limit, *gdb(s, "-nx", "-batch", *executed, "--args", *command)]

"""What goes wrong, in words: one family of errors, each with its exit code.

Every error says what failed, the likely cause, and the next command to type. The codes are those of
BSD's ``sysexits.h``, 64 to 78, so that a script can tell ours from the exit status of a program
that ran inside a container, which is passed through unchanged.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from invoke.exceptions import Exit

USAGE = 64  # a name or flag on the command line that does not exist
BAD_DATA = 65  # what a build produced is not what it should be
NO_INPUT = 66  # a source tree, script or file that is not there
UNAVAILABLE = 69  # no engine, or not everything could be made
SOFTWARE = 70  # a bug of ours
CANNOT_CREATE = 73  # out/ or dist/ cannot be written: owner, full disk
IO_ERROR = 74  # a read or write failed half way
TEMPORARY = 75  # somebody else holds the build directory: try again
NO_PERMISSION = 77  # the engine's socket may not be used by this user
BAD_CONFIG = 78  # invoke.yaml, project.yaml or an INVOKE_* variable is wrong


class SlipwayError(Exit):
    """An error that a user can act on; ``invoke`` prints its message and exits with its code.

    :param what: one line: what failed.
    :param cause: the likely cause, or the words of the tool that failed.
    :param fix: the next commands to type, each shown on a line of its own.
    :param code: the exit status: one of the constants above, or the status of the program that ran.
    """

    def __init__(
        self, what: str, *, cause: str = "", fix: Sequence[str] = (), code: int = UNAVAILABLE
    ) -> None:
        self.what = what
        self.cause = cause
        self.fix = tuple(fix)
        lines = [f"error: {what}"]
        if cause:
            lines += [f"  {line}" for line in cause.strip().splitlines()]
        lines += [f"  try: {command}" for command in self.fix]
        super().__init__("\n".join(lines), code)


def nearest(name: str, known: Iterable[str]) -> str:
    """The sentence that helps after a mistyped name: the nearest known one, then all of them."""
    import difflib  # only an error needs it

    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"{hint}known: {', '.join(names)}"

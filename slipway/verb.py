"""What turns a plain function into a task that fails well."""

from __future__ import annotations

import errno
import functools
import logging
import os
import shlex
import sys
import traceback
from collections.abc import Callable
from typing import Any

from invoke.context import Context
from invoke.exceptions import Exit

from slipway import podman, settings
from slipway.errors import CANNOT_CREATE, IO_ERROR, SOFTWARE, SlipwayError
from slipway.processes import watch_signals


def verb(function: Callable[..., None]) -> Callable[..., None]:
    """``function(workshop, ...)`` as the body of an invoke task.

    Signals end what was started, and an error is a few lines and an exit code of ours; with
    invoke's ``--debug`` its traceback is shown too.
    """

    @functools.wraps(function)
    def body(context: Context, *arguments: Any, **flags: Any) -> None:
        watch_signals()
        try:
            workshop = settings.load(context.config)
            podman.choose("auto")  # what another task of this command line has said
            podman.choose(workshop.settings.engine)
            function(workshop, *arguments, **flags)
        except Exit:
            _trace()
            raise
        except BrokenPipeError:
            # The reader of our output has gone (| head): nobody is left to tell.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise Exit(code=128 + 13) from None
        except OSError as error:
            _trace()
            raise _of_system(error) from error
        except Exception as error:
            _trace()
            raise SlipwayError(
                f"Slipway itself failed: {type(error).__name__}: {error}",
                cause="this is a bug",
                fix=[f"invoke --debug {function.__name__} ... shows where"],
                code=SOFTWARE,
            ) from error

    return body


def _trace() -> None:
    if logging.getLogger("invoke").isEnabledFor(logging.DEBUG):
        traceback.print_exc()


def _of_system(error: OSError) -> SlipwayError:
    """What the operating system's refusal means to the person who typed the command."""
    name = str(error.filename or "a file")
    if error.errno == errno.ENOSPC:
        return SlipwayError(
            f"the disk is full: {name}",
            fix=["invoke clean --keep 5GB", f"df -h {shlex.quote(os.path.dirname(name) or '.')}"],
            code=IO_ERROR,
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return SlipwayError(
            f"cannot use {name}: {error.strerror}",
            cause="it belongs to another user, or the file system is read-only",
            fix=[f'sudo chown -R "$(id -u):$(id -g)" {shlex.quote(name)}'],
            code=CANNOT_CREATE,
        )
    return SlipwayError(f"{error.strerror}: {name}", fix=["./go invoke doctor"], code=IO_ERROR)


def arguments_after_dashes() -> list[str]:
    """What the user typed after ``--``, word for word; invoke's own remainder loses the quoting."""
    return sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []

"""Child processes and signals: whatever is started is also ended.

invoke turns SIGINT into exit status 1 and dies of SIGTERM and SIGHUP without cleaning up, so tasks
install handlers of their own, which raise ``Interrupted`` where the main thread stands.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, Any, TypeVar

from slipway.errors import SlipwayError

T = TypeVar("T")

STOPPING = [
    s for s in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, s)
]  # no SIGHUP on Windows
NO_ANSWER = 124  # status of a look-up that took too long, as timeout(1) has it
GRACE_S = 8  # a child that has been asked to end is killed after this


class Interrupted(SlipwayError):  # noqa: N818  # as KeyboardInterrupt is none either
    """SIGINT, SIGTERM or SIGHUP arrived; the exit status is 128 plus its number, as in a shell."""

    def __init__(self, signum: int) -> None:
        self.signum = signum
        super().__init__(f"stopped by {signal.Signals(signum).name}", code=128 + signum)


class _Watch:
    """Turns stopping signals into ``Interrupted``, at once or when ``deferred`` has ended."""

    def __init__(self) -> None:
        self.pending = 0
        self.depth = 0

    def handle(self, signum: int, _frame: FrameType | None) -> None:
        self.pending = self.pending or signum
        self.check()

    def check(self) -> None:
        if self.pending and not self.depth:
            signum, self.pending = self.pending, 0
            raise Interrupted(signum)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        self.depth += 1
        try:
            yield
        finally:
            self.depth -= 1


_watch = _Watch()


def watch_signals() -> None:
    """From now on a stopping signal raises ``Interrupted``; one ignored so far (nohup) stays so."""
    for name in STOPPING:
        number = getattr(signal, name)
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _watch.handle)


@contextlib.contextmanager
def undone(undo: Callable[[], None]) -> Iterator[None]:
    """When what is inside fails or is stopped, ``undo``, to its end whatever signals come."""
    try:
        yield
    except BaseException:
        with _watch.deferred():
            undo()
        raise


@contextlib.contextmanager
def at_the_end(tidy: Callable[[], None]) -> Iterator[None]:
    """However what is inside ends, ``tidy``, to its end whatever signals come."""
    try:
        yield
    finally:
        with _watch.deferred():
            tidy()
    _watch.check()


class Heard:
    """The last of what a child said, for an error that explains it; it is shown all the same."""

    LAST = 100_000  # bytes: the words that matter stand near the end

    def __init__(self) -> None:
        self._last = b""

    def add(self, block: bytes) -> None:
        """One more block of output."""
        self._last = (self._last + block)[-self.LAST :]

    @property
    def text(self) -> str:
        """What has been kept."""
        return self._last.decode(errors="replace")


def call(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: int | IO[Any] | None = subprocess.DEVNULL,
    stdout: int | IO[Any] | None = None,
    show: Callable[[str], str] | None = None,
    heard: Heard | None = None,
    own_group: bool = False,
    on_stop: Callable[[], None] | None = None,
) -> int:
    """Run ``argv`` to its end, its output going where ours goes, and return its exit status.

    :param env: added to the environment of this process.
    :param show: applied to each line of output (both streams) before it is shown.
    :param stdout: where its output goes instead; ``heard`` is then told of its errors alone.
    :param heard: is told the output too. On a terminal the child still has one, so that it draws
        and colours as it would.
    :param own_group: give the child a process group of its own, which is ended as a whole.
    :param on_stop: what ends the work that the child only stands for (a container), when a signal
        stops us; runs to its end whatever further signals come.
    """
    piped = show is not None
    relay = _Relay(heard) if heard is not None and not piped else None
    ours = relay.stdout if relay and stdout is None else stdout
    try:
        with _watch.deferred():  # between fork and assignment a signal would orphan the child
            process = subprocess.Popen(
                list(argv),
                env={**os.environ, **env} if env else None,
                cwd=cwd,
                stdin=stdin,
                stdout=subprocess.PIPE if piped else ours,
                stderr=subprocess.STDOUT if piped else relay.stderr if relay else None,
                start_new_session=own_group,
                text=piped,
                errors="replace" if piped else None,
            )
    except FileNotFoundError as error:
        raise SlipwayError(
            f"no program '{argv[0]}' on this machine", fix=["./go invoke doctor"]
        ) from error
    if relay:
        relay.start()
    try:
        _watch.check()
        if show is not None and process.stdout is not None:
            for line in process.stdout:
                if heard is not None:
                    heard.add(line.encode())
                print(show(line), end="", flush=True)
        status = process.wait()
        if relay:
            relay.finish()
    except BaseException:
        with _watch.deferred():
            _end(process, own_group)
            if on_stop:
                on_stop()
        raise
    return 128 - status if status < 0 else status  # as a shell counts a death by signal


class _Relay:
    """Hands a child's output on, block by block, to where ours goes, and to ``heard``.

    Where ours goes to a terminal, the child's goes to a pseudo-terminal of the same size.
    """

    def __init__(self, heard: Heard) -> None:
        self.heard = heard
        self.sources: list[tuple[int, int]] = []
        self.is_terminal = os.name == "posix" and os.isatty(1) and os.isatty(2)
        if self.is_terminal:
            ours, self.stdout = os.openpty()
            self.stderr = self.stdout
            self.sources = [(ours, 1)]
            self._resize()
        else:
            out, self.stdout = os.pipe()
            err, self.stderr = os.pipe()
            self.sources = [(out, 1), (err, 2)]
        self.threads = [
            threading.Thread(target=self._copy, args=pair, daemon=True) for pair in self.sources
        ]

    def start(self) -> None:
        """The child has its ends now."""
        for end in {self.stdout, self.stderr}:
            os.close(end)
        for thread in self.threads:
            thread.start()

    def finish(self) -> None:
        """Wait for the last of it: what the child has left running may still hold its ends."""
        for thread in self.threads:
            thread.join(timeout=GRACE_S)

    def _copy(self, source: int, target: int) -> None:
        with contextlib.suppress(OSError):  # a pseudo-terminal's end, or nobody reads us any more
            while block := os.read(source, 1 << 16):
                self.heard.add(block)
                if self.is_terminal:
                    self._resize()
                while block:
                    block = block[os.write(target, block) :]
        os.close(source)

    def _resize(self) -> None:
        import fcntl
        import termios

        with contextlib.suppress(OSError):
            size = fcntl.ioctl(1, termios.TIOCGWINSZ, b"\0" * 8)
            fcntl.ioctl(self.sources[0][0], termios.TIOCSWINSZ, size)


def _end(process: subprocess.Popen[Any], own_group: bool) -> None:
    """Ask a child to end, then make it."""
    for signum in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if own_group:
                os.killpg(process.pid, signum)
            else:
                process.send_signal(signum)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=GRACE_S)
            return


@contextlib.contextmanager
def reading(argv: Sequence[str]) -> Iterator[IO[bytes]]:
    """Start a program and read its output while it runs; it is ended when the reader gives up."""
    with _watch.deferred():
        process = subprocess.Popen(list(argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    try:
        _watch.check()
        stream = process.stdout
        if stream is None:
            raise AssertionError("a pipe was asked for")
        yield stream
        while stream.read(1 << 20):  # an archive has an end before that of its stream
            pass
        status = process.wait()
    except BaseException:
        with _watch.deferred():
            _end(process, own_group=False)
        raise
    finally:
        if process.stdout:
            process.stdout.close()
    if status:
        raise SlipwayError(
            f"'{argv[0]}' failed: status {status}",
            cause="its words are above",
            fix=["./go invoke doctor"],
            code=status,
        )


class Voices:
    """What several programs say, line by line as it comes; none of them outlives the block.

    :param commands: the programs; each is spoken of by its number in this list.
    """

    def __init__(self, commands: Sequence[Sequence[str]]) -> None:
        self._commands = commands
        self._said: queue.SimpleQueue[tuple[int, str | None]] = queue.SimpleQueue()
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Voices:
        with undone(self._end):
            for number, argv in enumerate(self._commands):
                with _watch.deferred():
                    process = subprocess.Popen(
                        list(argv),
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.PIPE,
                        stderr=subprocess.STDOUT,
                        text=True,
                        errors="replace",
                    )
                    self._processes.append(process)
                _watch.check()
                threading.Thread(target=self._read, args=(number, process), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with _watch.deferred():
            self._end()

    def next(self, timeout: float | None = None) -> tuple[int, str | None] | None:
        """A program's number and a line of it, or with None that it has said all; None: nobody
        has said anything for ``timeout`` seconds.
        """
        try:
            return self._said.get(timeout=timeout)
        except queue.Empty:
            return None

    def _read(self, number: int, process: subprocess.Popen[str]) -> None:
        if process.stdout is not None:
            with process.stdout as stream:
                for line in stream:
                    self._said.put((number, line.rstrip("\n")))
        self._said.put((number, None))

    def _end(self) -> None:
        for process in self._processes:
            _end(process, own_group=False)


def meanwhile(function: Callable[[], T]) -> Callable[[], T]:
    """Start a look-up in a thread; what is returned waits for its result, or raises its error."""
    results: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(function())
        except BaseException as error:  # noqa: BLE001  # raised again where it is waited for
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()

    def result() -> T:
        thread.join()
        if errors:
            raise errors[0]
        return results[0]

    return result


def look(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 60,
    typed: str = "",
) -> subprocess.CompletedProcess[str]:
    """Run a look-up that changes nothing, and return its output; ``--dry`` runs these too.

    A program that is not there or does not answer within ``timeout`` seconds counts as failed,
    with status 127 or 124 and a sentence on standard error.

    :param typed: its standard input.
    """
    try:
        return subprocess.run(
            list(argv),
            env={**os.environ, **env} if env else None,
            cwd=cwd,
            input=typed,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
            # What tidies up is not ended by a second Ctrl-C, which a terminal gives to the group.
            start_new_session=_watch.depth > 0,
        )
    except FileNotFoundError:
        return subprocess.CompletedProcess(list(argv), 127, "", f"no program '{argv[0]}'")
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(
            list(argv), NO_ANSWER, "", f"'{argv[0]}' gave no answer within {timeout:g} s"
        )

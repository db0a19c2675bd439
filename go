#!/usr/bin/env python3
"""Run a tool of the locked environment: ``./go TOOL ARGS`` (on Windows ``py go TOOL ARGS``).

The environment is ``.venv`` beside this file. It is made from ``requirements.txt``, and made again
when the lock, the Python or the checkout's place has changed. Standard library only: this is what
runs on a machine that has nothing yet.
"""

import sys

if sys.version_info < (3, 10):  # noqa: UP036 - an older Python has to get this far to be told so
    found = f"{sys.executable} is Python {sys.version.split()[0]}"
    print(f"error: Slipway needs Python 3.10 or later, and {found}.", file=sys.stderr)
    sys.exit(69)

import hashlib
import importlib.util
import os
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path
from typing import IO, NoReturn

# Exit codes; the same as in slipway/errors.py, which needs the environment that is made here.
USAGE = 64
NO_INPUT = 66
UNAVAILABLE = 69
CANNOT_CREATE = 73

HERE = Path(__file__).resolve().parent
LOCK = HERE / "requirements.txt"
STAMP = "slipway-stamp"  # in the environment, written last: without it the making was interrupted
BIN, EXE = ("Scripts", ".exe") if os.name == "nt" else ("bin", "")

# The dev image has this file, and brings invoke and its packages system-wide.
IMAGE_MARK = Path("/etc/slipway-dev")
IMAGE_BIN = Path("/usr/local/bin")

# Would send the environment's Python to another standard library, or put other packages first.
FOREIGN = ("PYTHONHOME", "PYTHONPATH", "__PYVENV_LAUNCHER__")

# What comes with every environment, and is no tool of ours.
BOILERPLATE = re.compile(r"activate|deactivate|pip|python", re.IGNORECASE)

HELP = """\
usage: ./go TOOL [ARGS...]      (on Windows: py go TOOL [ARGS...])

Runs TOOL from .venv beside this file, which is made from requirements.txt first if need be.

  ./go invoke --list        what Slipway can do
  ./go invoke all           make everything there is to make
  ./go tox                  what the CI checks: lint, unit and integration tests
  ./go pytest tests/unit    one tool alone"""

# What pip says (in small letters), what that most often means, what to type. The first row counts
# that matches.
PIP_TROUBLES = (
    (
        "do not match the hashes",
        "a mirror or cache gave another file than the one that was locked",
        "PIP_NO_CACHE_DIR=1 ./go invoke --list",
    ),
    (
        "no space left on device",
        "the disk is full",
        "df -h .",
    ),
    (
        "certificate",
        "Python does not trust the index's certificate; a company's proxy often has its own CA",
        "PIP_CERT=/path/to/ca.pem ./go invoke --list",
    ),
    (
        "",
        "no route to a package index that has these files (offline? a proxy? a mirror to name?)",
        "PIP_INDEX_URL=https://MIRROR/simple https_proxy=http://PROXY:PORT ./go invoke --list",
    ),
)


def main(argv: list[str]) -> NoReturn:
    """Become the tool that the command line names."""
    if not argv or argv[0] in ("-h", "--help"):
        print(HELP, file=sys.stdout if argv else sys.stderr)
        sys.exit(0 if argv else USAGE)
    tool, *args = argv
    in_image = IMAGE_MARK.exists()
    program = program_in(IMAGE_BIN, tool) if in_image else None
    if program:
        become(program, args, dict(os.environ))
    # A container that mounts the checkout sees the host's .venv, whose Python it does not have.
    venv = place_of(".venv-image" if in_image else ".venv")
    ensure_venv(venv)
    program = program_in(venv / BIN, tool)
    if not program:
        paths = sorted(path for path in (venv / BIN).iterdir() if os.access(path, os.X_OK))
        known = [path.name.removesuffix(EXE) for path in paths]
        fail(
            USAGE,
            f"{venv} has no tool '{tool}'",
            "known: " + ", ".join(name for name in known if not BOILERPLATE.match(name)),
            "./go --help",
        )
    become(program, args, environment(venv))


def fail(code: int, what: str, cause: str, fix: str) -> NoReturn:
    """Say what failed, why, and what to type; in the form of slipway.errors.SlipwayError."""
    say(f"error: {what}\n  {cause}\n  try: {fix}")
    sys.exit(code)


def say(text: str) -> None:
    """Print to stderr: stdout belongs to the tool."""
    print(text, file=sys.stderr, flush=True)


def program_in(folder: Path, tool: str) -> Path | None:
    """The program of that plain name in a folder, if there is one."""
    program = folder / (tool + EXE)
    named = tool == Path(tool).name and program.is_file() and os.access(program, os.X_OK)
    return program if named else None


def place_of(name: str) -> Path:
    """Where the environment of this checkout stands.

    It is beside this file, unless the path has the separator of PATH in it: such an environment
    could not be on PATH, so venv refuses to make it, and the user's cache takes it.
    """
    if os.pathsep not in str(HERE):
        return HERE / name
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "slipway" / hashlib.sha256(os.fsencode(HERE)).hexdigest()[:16] / name


def base_python() -> str:
    """The Python that an environment is made from, also when this one runs inside another's venv.

    So .venv outlives tox's environments, and is the same from within them and from without.
    """
    python: str = getattr(sys, "_base_executable", sys.executable)
    # Before 3.11 that is the venv's own link on POSIX. On Windows the name is right, and what a
    # store's alias links to must not be run.
    return python if os.name == "nt" else os.path.realpath(python)


def stamp_for(venv: Path) -> str:
    """What the environment depends on: the lock, the Python, and the path in its scripts."""
    try:
        lock = LOCK.read_bytes()
    except OSError as error:
        fail(NO_INPUT, f"{LOCK} cannot be read", str(error), "git checkout requirements.txt")
    facts = (base_python(), sys.version, getattr(sys.implementation, "_multiarch", ""), str(venv))
    return hashlib.sha256(lock + "\n".join(facts).encode(errors="surrogateescape")).hexdigest()


def is_fresh(venv: Path, stamp: str) -> bool:
    """Whether the environment was made to the end, from this lock by this Python."""
    try:
        return (venv / STAMP).read_text() == stamp
    except OSError:
        return False


def ensure_venv(venv: Path) -> None:
    """Make the environment unless it is fresh; of several at once, one makes it and all use it."""
    stamp = stamp_for(venv)
    if is_fresh(venv, stamp):
        return
    try:
        venv.parent.mkdir(parents=True, exist_ok=True)
        with lock_of(venv).open("a") as lock:
            hold(lock, venv)
            if not is_fresh(venv, stamp):
                make_venv(venv, stamp)
    except OSError as error:
        places = [path for path in (venv, lock_of(venv), venv.parent) if path.exists()]
        denied = shlex.join(str(path) for path in places if not os.access(path, os.W_OK))
        fail(
            CANNOT_CREATE,
            f"{venv} is missing or out of date, and cannot be made",
            str(error),
            f'sudo chown -R "$(id -u)" {denied}' if denied else f"df -h {shlex.quote(str(HERE))}",
        )


def lock_of(venv: Path) -> Path:
    """The file whose lock belongs to the one who makes the environment."""
    return venv.with_name(f"{venv.name}.lock")


def hold(lock: IO[str], venv: Path) -> None:
    """Wait until this process alone holds the lock, which falls when the file is closed."""
    said = False
    while not try_lock(lock):
        if not said:
            say(f"waiting: another ./go is making {venv}")
            said = True
        time.sleep(0.1)
    # Inherited, so that the lock also outlives a killed ./go until its pip has stopped writing.
    os.set_inheritable(lock.fileno(), True)


def try_lock(lock: IO[str]) -> bool:
    """Take the lock if nobody has it."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(lock.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # POSIX says the former, Windows the latter
        return False
    return True


def make_venv(venv: Path, stamp: str) -> None:
    """Make the environment from the lock, over whatever stands there."""
    python = base_python()
    for module in ("venv", "ensurepip"):
        if importlib.util.find_spec(module) is None:
            fail(
                UNAVAILABLE,
                f"{venv} cannot be made: {python} has no module '{module}'",
                "Debian and Ubuntu keep it in a package of its own",
                "sudo apt install python3-venv",
            )
    packages = len(set(re.findall(r"^([\w.-]+)==", LOCK.read_text(encoding="utf-8"), re.MULTILINE)))
    say(f"making {venv} (once; about {packages} packages)...")
    (venv / STAMP).unlink(missing_ok=True)
    status, words = run([python, "-I", "-m", "venv", "--clear", str(venv)])
    if status:
        fail(
            UNAVAILABLE,
            f"{venv} cannot be made: {python} -m venv ended with status {status}",
            last(words),
            shlex.join([python, "-m", "venv", "--clear", str(venv)]),
        )
    pip = [str(venv / BIN / f"python{EXE}"), "-I", "-m", "pip", "--disable-pip-version-check"]
    options = ["--no-input", "--no-user", "--progress-bar=off", "--require-hashes"]
    status, words = run([*pip, "install", *options, "--requirement", str(LOCK)])
    if status:
        cause, fix = next(rest for sign, *rest in PIP_TROUBLES if sign in words.lower())
        fail(UNAVAILABLE, f"pip could not install {LOCK}", f"{last(words)}\n  likely: {cause}", fix)
    (venv / STAMP).write_text(stamp)


def run(command: list[str]) -> tuple[int, str]:
    """Run a command; return its status and, to be shown when it failed, its words."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        close_fds=False,  # the lock goes along, see hold()
    )
    return done.returncode, done.stdout


def last(words: str) -> str:
    """The end of what a command said, indented as part of an error."""
    return "\n  ".join(words.splitlines()[-8:])


def environment(venv: Path) -> dict[str, str]:
    """The tool's variables: what it starts by name comes from the same environment."""
    env = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    env["VIRTUAL_ENV"] = str(venv)
    env["PATH"] = os.pathsep.join([str(venv / BIN), env.get("PATH", os.defpath)])
    return env


def become(program: Path, args: list[str], env: dict[str, str]) -> NoReturn:
    """Hand this process over to the program; on Windows, which cannot, run it and wait."""
    command = [str(program), *args]
    if sys.platform == "win32":
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the program's to answer
        sys.exit(subprocess.call(command, env=env))
    os.execve(program, command, env)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(130)

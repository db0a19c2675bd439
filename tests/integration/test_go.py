"""``go`` in copies of the checkout, with a lock of one small wheel that needs no network."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import http.server
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BASE_PYTHON = os.path.realpath(Path(sys.base_prefix, "bin", "python3"))
POSIX_ONLY = pytest.mark.skipif(os.name == "nt", reason="signals, owners and shebangs of POSIX")

# What the wheel's console script does: it shows how it was started, and exits as it is told.
TINY = """\
import json, os, shutil, sys
def main():
    json.dump({"argv": sys.argv[1:], "prefix": sys.prefix, "env": dict(os.environ),
               "which": shutil.which("tiny")}, sys.stdout)
    return int(os.environ.get("TINY_STATUS", "0"))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("wheels") / "tiny-1.0-py3-none-any.whl"
    info = "tiny-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny.py", TINY)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/entry_points.txt", "[console_scripts]\ntiny = tiny:main\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


class Checkout:
    """A folder with ``go`` and a lock, and the surroundings in which it is run."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        shutil.copy(ROOT / "go", folder)
        self.lock(hashlib.sha256(wheel.read_bytes()).hexdigest())
        foreign = ("PIP_", "PYTHON", "VIRTUAL_ENV", "XDG_")
        self.env = {name: os.environ[name] for name in os.environ if not name.startswith(foreign)}
        self.env |= {
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_FIND_LINKS": str(wheel.parent),
            "PIP_NO_INDEX": "1",
        }

    def lock(self, sha256: str, comment: str = "") -> None:
        (self.folder / "requirements.txt").write_text(
            f"tiny==1.0 --hash=sha256:{sha256}  # {comment}\n"
        )

    def start(
        self, *arguments: str, python: str = sys.executable, **env: str
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [python, str(self.folder / "go"), *arguments],
            env=self.env | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def go(
        self, *arguments: str, python: str = sys.executable, **env: str
    ) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments, python=python, **env)
        out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.fixture
def checkout(tmp_path: Path, wheel: Path) -> Checkout:
    return Checkout(tmp_path / "checkout", wheel)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Checkout:
    """A checkout whose environment stands; the tests only use it."""
    checkout = Checkout(tmp_path_factory.mktemp("made") / "checkout", wheel)
    done = checkout.go("tiny")
    assert done.returncode == 0, done.stderr
    assert "/checkout/.venv (once; about 1 packages)..." in done.stderr
    return checkout


# -- the tool that runs


def test_the_tool_gets_its_arguments_and_the_environment_of_the_lock(made: Checkout) -> None:
    arguments = ["--help", "a b", "it's", "", "*", "--", "-x"]
    done = made.go("tiny", *arguments)
    seen = json.loads(done.stdout)
    venv = made.folder / ".venv"
    assert seen["argv"] == arguments
    assert seen["prefix"] == seen["env"]["VIRTUAL_ENV"] == str(venv)
    assert Path(seen["which"]).parent == venv / "bin"


def test_the_exit_status_is_the_tools(made: Checkout) -> None:
    assert made.go("tiny", TINY_STATUS="3").returncode == 3


def test_a_fresh_environment_is_used_without_a_word(made: Checkout) -> None:
    assert made.go("tiny").stderr == ""


def test_nothing_else_is_written(made: Checkout) -> None:
    names = {path.name for path in made.folder.iterdir()}
    assert names == {"go", "requirements.txt", ".venv", ".venv.lock"}


def test_it_is_the_same_environment_from_within_a_venv_and_from_without(made: Checkout) -> None:
    inner = str(made.folder / ".venv" / "bin" / "python")
    for python in (BASE_PYTHON, inner):
        done = made.go("tiny", python=python)
        assert (done.returncode, done.stderr) == (0, "")
    settings = (made.folder / ".venv" / "pyvenv.cfg").read_text()
    assert f"home = {Path(BASE_PYTHON).parent}\n" in settings


def test_variables_of_another_python_stay_outside(made: Checkout, tmp_path: Path) -> None:
    (tmp_path / "tiny.py").write_text("raise SystemExit('not the locked tiny')")
    done = made.go("tiny", PYTHONPATH=str(tmp_path), PYTHONHOME=sys.base_prefix)
    assert done.returncode == 0, done.stderr
    assert not {"PYTHONPATH", "PYTHONHOME"} & set(json.loads(done.stdout)["env"])


def test_an_unknown_tool_is_told_the_known_ones(made: Checkout) -> None:
    done = made.go("tinny")
    assert done.returncode == 64
    assert "has no tool 'tinny'" in done.stderr
    assert "known: tiny\n" in done.stderr


@pytest.mark.parametrize("path", ["/bin/sh", "../bin/tiny", "", ".."])
def test_a_path_is_no_tool(made: Checkout, path: str) -> None:
    assert made.go(path).returncode == 64


def test_without_a_tool_it_teaches(made: Checkout) -> None:
    done = made.go()
    assert (done.returncode, done.stdout) == (64, "")
    assert "./go invoke all" in done.stderr
    assert made.go("--help").stdout == done.stderr
    assert made.go("--help").returncode == 0


# -- when the environment is made


def test_it_is_made_again_when_the_checkout_moves_or_the_lock_changes(
    made: Checkout, checkout: Checkout, wheel: Path
) -> None:
    venv = checkout.folder / ".venv"
    shutil.copytree(made.folder / ".venv", venv, symlinks=True)
    checkout_moved = checkout.go("tiny")
    assert json.loads(checkout_moved.stdout)["prefix"] == str(venv)
    assert "making" in checkout_moved.stderr
    (venv / "leftover").touch()
    checkout.lock(hashlib.sha256(wheel.read_bytes()).hexdigest(), "changed")
    lock_changed = checkout.go("tiny")
    assert lock_changed.returncode == 0, lock_changed.stderr
    assert "making" in lock_changed.stderr
    assert not (venv / "leftover").exists()


@POSIX_ONLY
@pytest.mark.parametrize("name", ["a b,c-é'd", "long-" + "x" * 140])
def test_any_name_of_a_folder_will_do(tmp_path: Path, wheel: Path, name: str) -> None:
    checkout = Checkout(tmp_path / name, wheel)
    done = checkout.go("tiny")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["prefix"] == str(tmp_path / name / ".venv")


@POSIX_ONLY
def test_in_a_folder_that_path_cannot_name_the_cache_takes_it(tmp_path: Path, wheel: Path) -> None:
    checkout = Checkout(tmp_path / "a b:c,d-é", wheel)
    cache = tmp_path / "cache"
    done = checkout.go("tiny", XDG_CACHE_HOME=str(cache))
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert Path(seen["prefix"]).is_relative_to(cache)
    assert Path(seen["which"]).is_relative_to(cache)
    assert {path.name for path in checkout.folder.iterdir()} == {"go", "requirements.txt"}


def test_of_two_at_once_one_makes_it_and_the_other_waits(checkout: Checkout) -> None:
    processes = [checkout.start("tiny") for _ in range(2)]
    words = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(said.split(" ")[0] for said in words) == ["making", "waiting:"]


@POSIX_ONLY
def test_a_killed_one_leaves_nothing_that_is_used(checkout: Checkout) -> None:
    process = checkout.start("tiny")
    wait_for(checkout.folder / ".venv" / "bin" / "python")
    process.kill()
    process.communicate()
    done = checkout.go("tiny")
    assert done.returncode == 0, done.stderr
    assert "making" in done.stderr


@POSIX_ONLY
def test_ctrl_c_ends_it_without_a_traceback(checkout: Checkout) -> None:
    process = checkout.start("tiny")
    wait_for(checkout.folder / ".venv")
    process.send_signal(signal.SIGINT)
    _, words = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in words
    assert not (checkout.folder / ".venv" / "slipway-stamp").exists()


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.01)


# -- when it cannot be made


def test_a_file_that_the_index_does_not_have(checkout: Checkout) -> None:
    done = checkout.go("tiny", PIP_FIND_LINKS="")
    assert done.returncode == 69
    assert "No matching distribution found for tiny==1.0" in done.stderr
    assert "likely: no route to a package index" in done.stderr
    assert "PIP_INDEX_URL=" in done.stderr


def test_a_file_that_is_not_the_locked_one(checkout: Checkout) -> None:
    checkout.lock("0" * 64)
    done = checkout.go("tiny")
    assert done.returncode == 69
    assert "likely: a mirror or cache gave another file" in done.stderr
    assert not (checkout.folder / ".venv" / "slipway-stamp").exists()


def test_an_index_with_an_unknown_certificate(checkout: Checkout, tmp_path: Path) -> None:
    with https_server(tmp_path) as url:
        del checkout.env["PIP_NO_INDEX"]
        done = checkout.go("tiny", PIP_FIND_LINKS="", PIP_INDEX_URL=url, PIP_RETRIES="0")
    assert done.returncode == 69
    assert "likely: Python does not trust the index's certificate" in done.stderr
    assert "PIP_CERT=" in done.stderr


@contextlib.contextmanager
def https_server(folder: Path) -> Iterator[str]:
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*make, *files], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    handler = http.server.BaseHTTPRequestHandler
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"https://localhost:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


@POSIX_ONLY
def test_a_python_without_ensurepip_is_told_the_package(checkout: Checkout, tmp_path: Path) -> None:
    """As on a Debian without python3-venv: the interpreter that runs this, less one module."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for folder in (f"lib/{version}", "bin"):
        (tmp_path / folder).mkdir(parents=True)
    for entry in Path(os.__file__).parent.iterdir():
        if entry.name != "ensurepip":
            (tmp_path / "lib" / version / entry.name).symlink_to(entry)
    python = shutil.copy(BASE_PYTHON, tmp_path / "bin" / version)
    library = str(Path(sys.base_prefix, "lib"))
    done = checkout.go("tiny", python=str(python), LD_LIBRARY_PATH=library)
    assert done.returncode == 69
    assert f"{python} has no module 'ensurepip'" in done.stderr
    assert "try: sudo apt install python3-venv" in done.stderr
    assert len(done.stderr.splitlines()) == 3


def test_an_old_python_is_told_so_in_one_sentence() -> None:
    source = (ROOT / "go").read_text()
    ast.parse(source, feature_version=(3, 6))
    pretend = "import runpy, sys; sys.version_info = (3, 9, 2); runpy.run_path(sys.argv[1])"
    command = [sys.executable, "-c", pretend, str(ROOT / "go")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 69
    assert done.stderr.startswith("error: Slipway needs Python 3.10 or later, and ")
    assert len(done.stderr.splitlines()) == 1


def test_a_checkout_without_its_lock(checkout: Checkout) -> None:
    (checkout.folder / "requirements.txt").unlink()
    done = checkout.go("tiny")
    assert done.returncode == 66
    assert "requirements.txt cannot be read" in done.stderr


@contextlib.contextmanager
def read_only(*folders: Path) -> Iterator[list[str]]:
    """Take away write permission; yields what to put before a command so that root obeys it too."""
    for folder in folders:
        folder.chmod(0o555)
    drop = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"]
    try:
        yield drop if os.geteuid() == 0 else []
    finally:
        for folder in folders:
            folder.chmod(0o755)


@POSIX_ONLY
def test_a_folder_that_cannot_be_written(checkout: Checkout) -> None:
    with read_only(checkout.folder) as prefix:
        done = run_plainly(checkout, prefix)
    assert done.returncode == 73
    assert "Permission denied" in done.stderr
    assert f'try: sudo chown -R "$(id -u)" {checkout.folder}\n' in done.stderr
    assert len(done.stderr.splitlines()) == 3


@POSIX_ONLY
def test_a_stale_environment_that_cannot_be_written(checkout: Checkout) -> None:
    (checkout.folder / ".venv").mkdir()
    (checkout.folder / ".venv" / "slipway-stamp").write_text("of another lock")
    with read_only(checkout.folder / ".venv") as prefix:
        done = run_plainly(checkout, prefix)
    assert done.returncode == 73
    assert f'try: sudo chown -R "$(id -u)" {checkout.folder / ".venv"}\n' in done.stderr


@POSIX_ONLY
def test_a_fresh_environment_that_cannot_be_written_is_used(made: Checkout) -> None:
    with read_only(made.folder, made.folder / ".venv") as prefix:
        done = run_plainly(made, prefix)
    assert (done.returncode, done.stderr) == (0, "")


def run_plainly(checkout: Checkout, prefix: list[str]) -> subprocess.CompletedProcess[str]:
    command = [*prefix, sys.executable, str(checkout.folder / "go"), "tiny"]
    return subprocess.run(command, env=checkout.env, capture_output=True, text=True, timeout=60)


# -- inside the dev image

# Runs go's main with the marks of the dev image in a folder, as if /etc and /usr/local were there.
INSIDE = """\
import importlib.machinery, importlib.util, pathlib, sys
folder, go, *argv = sys.argv[1:]
loader = importlib.machinery.SourceFileLoader("go", go)
module = importlib.util.module_from_spec(importlib.util.spec_from_loader("go", loader))
sys.dont_write_bytecode = True
loader.exec_module(module)
module.IMAGE_MARK, module.IMAGE_BIN = (pathlib.Path(folder, name) for name in ("mark", "bin"))
module.main(argv)
"""


@POSIX_ONLY
def test_the_dev_image_brings_its_own_tools(checkout: Checkout, tmp_path: Path) -> None:
    (tmp_path / "mark").touch()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "invoke").write_text('#!/bin/sh\necho "the image\'s invoke: $*"\n')
    (tmp_path / "bin" / "invoke").chmod(0o755)
    inside = [sys.executable, "-c", INSIDE, str(tmp_path), str(checkout.folder / "go")]

    def go(*arguments: str) -> str:
        command = [*inside, *arguments]
        return subprocess.run(
            command, env=checkout.env, check=True, capture_output=True, text=True, timeout=120
        ).stdout

    assert go("invoke", "--list") == "the image's invoke: --list\n"
    assert not (checkout.folder / ".venv-image").exists()
    assert json.loads(go("tiny"))["prefix"] == str(checkout.folder / ".venv-image")
    assert not (checkout.folder / ".venv").exists()


# -- the lock itself


@pytest.mark.full
@POSIX_ONLY
@pytest.mark.parametrize("name", ["plain", "a b,c-é", "a b:c,d-é"])
def test_the_real_lock_brings_every_tool(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    (folder / "tests" / "unit").mkdir(parents=True)
    for file in ("go", "requirements.txt", "tox.ini", "pyproject.toml"):
        shutil.copy(ROOT / file, folder)
    (folder / "tests" / "unit" / "test_one.py").write_text("def test_one() -> None:\n    pass\n")
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    env["XDG_CACHE_HOME"] = str(tmp_path / "cache")

    def go(*arguments: str) -> str:
        done = subprocess.run(
            [BASE_PYTHON, "go", *arguments], cwd=folder, env=env, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    tools = "codespell hadolint invoke mypy pre-commit pytest ruff shellcheck shfmt tox"
    for tool in tools.split():
        assert go(tool, "--version").strip()
    assert "1 passed" in go("tox", "-e", "unit")

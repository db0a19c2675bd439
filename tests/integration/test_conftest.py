"""The tests' own guards, each on a test suite of one file."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent


def run_pytest(
    folder: Path, conftest: Path, test: str, *options: str, ci: str = "", cluster: str = ""
) -> subprocess.CompletedProcess[str]:
    shutil.copy(conftest, folder)
    shutil.copy(TESTS.parent / "pyproject.toml", folder)
    (folder / "tests").mkdir()
    (folder / "tests" / "test_it.py").write_text(f"import os, socket, subprocess, pytest\n{test}")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options],
        cwd=folder,
        env={**os.environ, "CI": ci, "KUBECONFIG": cluster},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    "call",
    [
        "subprocess.run(['true'])",
        "os.system('true')",
        "os.fork()",
        "os.posix_spawn('/bin/true', ['true'], {})",
        "os.execv('/bin/true', ['true'])",
        "socket.create_connection(('127.0.0.1', 9))",
        "socket.socket(socket.AF_UNIX).connect('/nowhere')",
    ],
)
def test_a_unit_test_cannot_leave_its_process(tmp_path: Path, call: str) -> None:
    done = run_pytest(tmp_path, TESTS / "unit" / "conftest.py", f"def test_it():\n    {call}\n")
    assert done.returncode == 1
    assert "a unit test stays in its process" in done.stdout


SKIP = "def test_it():\n    pytest.skip('no engine')\n"


def test_a_skipped_test_fails_the_ci_and_is_named(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, TESTS / "conftest.py", SKIP, ci="true")
    assert done.returncode == 1
    assert "which the CI counts as failed" in done.stdout
    assert "tests/test_it.py::test_it" in done.stdout


def test_a_skipped_module_fails_the_ci_and_is_named(tmp_path: Path) -> None:
    skip = "pytest.skip('no engine', allow_module_level=True)"
    done = run_pytest(tmp_path, TESTS / "conftest.py", skip, ci="true")
    assert done.returncode == 1
    assert "which the CI counts as failed" in done.stdout


def test_a_skipped_test_passes_at_home(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, TESTS / "conftest.py", SKIP)
    assert done.returncode == 0
    assert "counts as failed" not in done.stdout


def test_an_expected_failure_is_no_skip(tmp_path: Path) -> None:
    test = "@pytest.mark.xfail\ndef test_it():\n    assert 0\n"
    done = run_pytest(tmp_path, TESTS / "conftest.py", test, ci="true")
    assert done.returncode == 0, done.stdout


def test_the_ci_names_what_is_not_run_for_want_of_a_machine(tmp_path: Path) -> None:
    test = "@pytest.mark.gpu\ndef test_gpu(): pass\ndef test_it(): pass\n"
    options = ("-m", "not gpu")
    done = run_pytest(tmp_path, TESTS / "conftest.py", test, *options, ci="true")
    assert done.returncode == 0
    assert "tests/test_it.py::test_gpu (gpu)" in done.stdout


def test_a_test_of_a_cluster_runs_where_one_is_named_and_else_is_named(tmp_path: Path) -> None:
    test = "@pytest.mark.cluster\ndef test_apply(): print('applied')\ndef test_it(): pass\n"
    for cluster, ran in (("", False), ("/config", True)):
        folder = tmp_path / f"at{cluster.replace('/', '-')}"
        folder.mkdir()
        done = run_pytest(folder, TESTS / "conftest.py", test, "-s", ci="true", cluster=cluster)
        assert done.returncode == 0, done.stdout
        assert ("applied" in done.stdout) is ran
        assert ("tests/test_it.py::test_apply (cluster)" in done.stdout) is not ran

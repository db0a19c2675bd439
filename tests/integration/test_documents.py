"""The plain docker lines of CONTRIBUTING.md, pasted into one shell in a clone."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from slipway import base
from slipway.engine import build_client
from slipway.settings import Settings, Workshop
from slipway.testing import read_reports

ROOT = Path(__file__).parents[2]
NAMES = ["dev", "build", "test", "deb"]


def twins() -> dict[str, str]:
    """The fenced blocks that a marker stands before, by its name."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    found = re.findall(r"^<!-- twin: (\w+) -->\n```sh\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return dict(found)


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone with what is not committed yet."""
    folder = tmp_path / "clone"
    git(ROOT, "clone", "--quiet", ".", str(folder))
    for name in git(ROOT, "ls-files", "-z", "--modified", "--others", "--exclude-standard").split(
        "\0"
    ):
        source, target = ROOT / name, folder / name
        if name and source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    return folder


@pytest.fixture
def image() -> Iterator[str]:
    """A name for the dev image that is made by hand, and that goes afterwards."""
    name = f"twin-dev-{secrets.token_hex(4)}"
    yield name
    subprocess.run(["docker", "rmi", "--force", name], check=True, capture_output=True)


def test_the_docker_lines_of_contributing_do_what_the_tasks_do(clone: Path, image: str) -> None:
    blocks = twins()
    assert list(blocks) == NAMES
    before = git(clone, "status", "--porcelain")
    reference = base.ensure_base(Workshop(root=ROOT, settings=Settings())).reference
    # The readers' docker can build; on a machine with several, the first that can.
    path = f"{Path(build_client()[0][0]).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-eu", "-c", "\n".join(blocks.values())],
        cwd=clone,
        env={**os.environ, "PATH": path, "BASE": reference, "IMAGE": image},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-4000:]

    out = clone / "out" / "twin" / "oar" / "cpu"
    reports = {name: out / "reports" / f"{name}.xml" for name in ("ctest", "pytest")}
    assert all(file.is_file() for file in reports.values())
    tested = read_reports(reports)
    assert tested.executed > 100
    assert tested.failed == 0
    debs = list((out / "deb" / "finished").iterdir())
    assert [re.sub(r"deb\d+", "debN", deb.name) for deb in debs] == ["oar_0.1.0+debN_amd64.deb"]
    assert debs[0].name in done.stdout
    assert debs[0].read_bytes().startswith(b"!<arch>\n")

    owners = {path.lstat().st_uid for path in (clone / "out").rglob("*")}
    assert owners == {os.getuid()}
    assert git(clone, "status", "--porcelain") == before

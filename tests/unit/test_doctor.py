"""What a machine has and lacks, read from what it says of itself."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from slipway import doctor, engine
from slipway.doctor import Finding, apt_candidates, can_run_engine, is_debian, missing_tools
from slipway.errors import UNAVAILABLE, SlipwayError
from slipway.settings import ROOT, Workshop
from tests.unit.fakes import make_workshop


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands in for each file of /proc and /etc that is read."""
    found = tmp_path / "file"
    monkeypatch.setattr(doctor, "Path", lambda _: found)
    return found


@pytest.mark.parametrize(
    ("bounding", "able"),
    [
        ("000001ffffffffff", True),  # a machine, or a privileged container
        ("0000000000200000", True),  # CAP_SYS_ADMIN alone
        ("00000000a80425fb", False),  # docker's default
        ("0000000000000000", False),
    ],
)
def test_an_engine_needs_the_right_to_mount(file: Path, bounding: str, able: bool) -> None:
    file.write_text(f"Name:\tpython3\nCapEff:\t0000000000000000\nCapBnd:\t{bounding}\n")
    assert (can_run_engine() == "") is able


def test_another_system_than_linux_installs_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    assert "by hand" in can_run_engine()


@pytest.mark.parametrize(
    ("release", "apt", "expected"),
    [
        ("ID=debian\n", True, True),
        ("ID=ubuntu\nID_LIKE=debian\n", True, True),
        ("ID=linuxmint\nID_LIKE=ubuntu\n", True, True),
        ("ID=debian\n", False, False),
        ("ID=fedora\n", True, False),
    ],
)
def test_debian_is_told_by_its_release_and_apt(
    file: Path, monkeypatch: pytest.MonkeyPatch, release: str, apt: bool, expected: bool
) -> None:
    file.write_text(release)
    monkeypatch.setattr("shutil.which", lambda _: "/usr/bin/apt-get" if apt else None)
    assert is_debian() is expected


def test_a_system_without_a_release_file_is_no_debian(file: Path) -> None:
    assert not file.exists()
    assert not is_debian()


POLICY = """\
docker-cli:
  Installed: (none)
  Candidate: 26.1.5+dfsg1-9+b7
  Version table:
     26.1.5+dfsg1-9+b7 500
docker-buildx:
  Installed: (none)
  Candidate: (none)
  Version table:
libc6:amd64:
  Installed: 2.41-12
  Candidate: 2.41-12
"""


def test_only_packages_that_the_archive_offers_are_candidates(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def look(argv: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        assert argv == ["apt-cache", "policy", "docker-cli", "docker-buildx", "libc6:amd64"]
        return subprocess.CompletedProcess(argv, 0, POLICY, "")

    monkeypatch.setattr("slipway.processes.look", look)
    asked = ["docker-cli", "docker-buildx", "libc6:amd64"]
    assert apt_candidates(asked) == ["docker-cli", "libc6:amd64"]


def test_missing_tools_are_named_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workshop = make_workshop(tmp_path)
    python = workshop.cache / "host" / "bin" / "python3"
    python.parent.mkdir(parents=True)
    python.touch()
    have = set(doctor.TOOLS) - {"mold", "lintian"}
    monkeypatch.setattr("shutil.which", lambda tool, **_: tool if tool in have else None)
    assert missing_tools(workshop) == ["mold", "lintian"]
    python.unlink()
    if not Path("/opt/slipway/bin/python3").exists():
        assert missing_tools(workshop)[-1] == "Python packages of requirements-image.txt"


def test_the_tools_are_those_that_the_scripts_call() -> None:
    scripts = " ".join((ROOT / "scripts" / name).read_text() for name in ("build", "test", "deb"))
    called = scripts + " -fuse-ld=mold g++"
    assert [tool for tool in doctor.TOOLS if tool not in called] == []


@pytest.mark.usefixtures("capsys")
def test_a_finding_is_printed_with_its_fix_and_a_problem_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    findings = [Finding("ok", "fine"), Finding("note", "hm", "do a"), Finding("problem", "no", "b")]

    def look(_: Workshop) -> Iterator[Finding]:
        yield from findings

    monkeypatch.setattr(doctor, "look", look)
    workshop = make_workshop(tmp_path)
    with pytest.raises(SlipwayError, match="1 problem found") as caught:
        doctor.doctor(workshop)
    assert caught.value.code == UNAVAILABLE
    assert capsys.readouterr().out == (
        "ok       fine\nnote     hm\n         try: do a\nproblem  no\n         try: b\n"
    )
    del findings[2]
    doctor.doctor(workshop)


def test_inside_the_dev_image_no_engine_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "marker"
    marker.touch()
    monkeypatch.setattr(engine, "MARKER", marker)
    found = list(doctor.look(make_workshop(tmp_path)))
    assert {finding.level for finding in found} == {"ok"}
    assert "in place" in found[-1].what

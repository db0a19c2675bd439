"""The locks: whole, free of any host, and agreed on what both have."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = (
    *("requirements.txt", "requirements-image.txt", "requirements-browser.txt"),
    *("requirements-book.txt", "requirements-cuda.txt"),
    *("requirements-cluster.txt", "requirements-validate.txt"),
)


def entries(name: str) -> list[str]:
    """The lock's entries, each on one line."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / name).read_text(), flags=re.MULTILINE)
    return text.replace("\\\n", " ").splitlines()


def pins(name: str) -> set[tuple[str, str]]:
    return {(found[1], found[2]) for found in re.finditer(PIN, "\n".join(entries(name)))}


PIN = re.compile(r"^([\w.-]+)==(\S+)", re.MULTILINE)


@pytest.mark.parametrize("name", LOCKS)
def test_every_line_pins_a_version_and_its_hashes(name: str) -> None:
    assert entries(name)
    assert [
        line for line in entries(name) if not (PIN.match(line) and " --hash=sha256:" in line)
    ] == []


def test_the_image_has_the_versions_of_the_host() -> None:
    host, image = (pins(name) for name in LOCKS[:2])
    shared = {name for name, _ in host} & {name for name, _ in image}
    assert {"invoke", "docker", "requests", "msgspec", "pyyaml", "packaging"} <= shared
    assert {pin for pin in image if pin[0] in shared} <= host


@pytest.mark.parametrize("name", LOCKS)
def test_the_lock_has_what_its_source_asks_for(name: str) -> None:
    source = (ROOT / name).with_suffix(".in").read_text()
    asked = {found.lower() for found in re.findall(r"^([A-Za-z][\w-]*)", source, re.MULTILINE)}
    # What the images have from Debian bounds what is locked, and is not in the lock.
    left_out = set(re.findall(r"--no-emit-package (\S+)", source))
    assert asked - left_out <= {package for package, _ in pins(name)}

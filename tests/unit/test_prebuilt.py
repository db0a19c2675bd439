"""Prebuilt wheels as projects: what is locked, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from slipway.errors import BAD_CONFIG, NO_INPUT, SlipwayError
from slipway.prebuilt import others_of
from tests.unit.fakes import make_tree

HASH = "--hash=sha256:" + "a" * 64
LOCK = f"""\
# made by a tool
alpha==1.0 \\
    {HASH} \\
    {HASH}
    # via Some_Wheel
some.wheel==2.0 ; python_version >= '3' \\
    {HASH}
    # via -r x
zeta==3.0 \\
    {HASH}
"""


def lock(tmp_path: Path, text: str) -> str:
    parts = {"wheel": "Some_Wheel", "version": "2.0", "sha256": "a" * 64}
    tree = make_tree(tmp_path, source=parts, package={"requirements": "lock.txt"})
    (tmp_path / "lock.txt").write_text(text)
    return others_of(tree)


def test_the_wheel_itself_may_be_in_the_lock_and_is_left_out(tmp_path: Path) -> None:
    others = lock(tmp_path, LOCK)
    assert "some.wheel" not in others
    assert "-r x" not in others
    assert [line for line in others.splitlines() if "==" in line] == [
        "alpha==1.0 \\",
        "zeta==3.0 \\",
    ]


def test_a_wheel_may_need_nothing(tmp_path: Path) -> None:
    parts = {"wheel": "x", "version": "2.0", "sha256": "a" * 64}
    assert others_of(make_tree(tmp_path, source=parts)) == ""


def test_a_lock_without_hashes_locks_nothing(tmp_path: Path) -> None:
    with pytest.raises(SlipwayError, match="locks nothing: it has no hashes") as caught:
        lock(tmp_path, "alpha==1.0\n")
    assert caught.value.code == BAD_CONFIG


def test_a_lock_that_is_not_there(tmp_path: Path) -> None:
    parts = {"wheel": "x", "version": "2.0", "sha256": "a" * 64}
    tree = make_tree(tmp_path, source=parts, package={"requirements": "lock.txt"})
    with pytest.raises(SlipwayError, match=r"no file .*lock\.txt") as caught:
        others_of(tree)
    assert caught.value.code == NO_INPUT

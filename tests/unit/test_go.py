"""What ``go`` repeats, because it runs before the packages are there."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from slipway import errors

GO = Path(__file__).parents[2] / "go"


@pytest.mark.parametrize("name", ["USAGE", "NO_INPUT", "UNAVAILABLE", "CANNOT_CREATE"])
def test_the_exit_codes_are_those_of_slipway(name: str) -> None:
    assert runpy.run_path(str(GO))[name] == getattr(errors, name)

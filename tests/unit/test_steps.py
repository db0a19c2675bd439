"""What came of the steps of a tree, for a person and for a manifest."""

from __future__ import annotations

import time
from pathlib import Path

from slipway import receipts, steps, testing
from slipway.manifest import TestRun
from slipway.production import Image
from slipway.steps import Passed, Summary
from tests.unit.fakes import make_site

NOW = Passed(5, ("a.gpu",), "5 tests executed", 1.0, fresh=True)
BEFORE = Passed(5, ("a.gpu",), "", 1.0, fresh=False)


def test_tests_of_before_are_never_counted_as_run_now() -> None:
    assert NOW.said(NOW.summary) == "5 tests executed"
    said = BEFORE.said(BEFORE.summary)
    assert said.startswith("unchanged since 1970-01-01")
    assert said.endswith(", 1 GPU tests never, none run now")


def test_the_table_and_the_manifest_tell_the_same(tmp_path: Path) -> None:
    s, summary = make_site(tmp_path), Summary()
    summary.passed("test", s, "built", BEFORE, "", time.monotonic())
    image = Image("slipway-oar:1", "oar:1.2.0", 2_000_000, 1.0, fresh=True)
    summary.made("image", "cpu", image.alias, image, image.size, time.monotonic())
    head, tested, made = summary.rows
    assert head[0] == "STEP"
    assert "none run now" in tested[2]
    assert made[:4] == ["image", "cpu", "oar:1.2.0", "2.0 MB"]
    assert [(step.name, step.is_unchanged) for step in summary.steps] == [
        ("test", True),
        ("image", False),
    ]
    assert summary.tests == [TestRun("built", "cpu", 5, ("a.gpu",), 1.0)]


def test_tests_run_once_with_the_same_inputs(tmp_path: Path) -> None:
    s = make_site(tmp_path)
    asked = []

    def run() -> testing.Tested:
        asked.append("run")
        return testing.Tested(5, 0, ("a.gpu", "b"), "CTest 5", ("a.gpu",))

    first = steps.unless_known(s, "test", "inputs", run)
    again = steps.unless_known(s, "test", "inputs", run)
    assert (first.fresh, again.fresh, len(asked)) == (True, False, 1)
    assert again.not_run == first.not_run == ("a.gpu",)
    assert again.made_at == first.made_at == receipts_time(s.out / "receipts" / "test.json")
    assert steps.unless_known(s, "test", "others", run).fresh


def receipts_time(file: Path) -> float:
    known = receipts.read(file, "inputs")
    assert known
    return known.made_at

"""``invoke docs``: pages of all that there is, and a mistake in one is told by file and line."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from slipway.errors import BAD_DATA, NO_INPUT
from tests.integration.workbench import Checkout, refused, snapshot, strangers, succeed, tree


class Desk:
    """A clone in which the documentation is written."""

    def __init__(self, checkout: Checkout) -> None:
        self.checkout = checkout

    def docs(self, *arguments: str) -> str:
        return succeed(self.checkout.invoke("docs", *arguments))

    def page(self, name: str) -> str:
        return (self.checkout.out / "docs" / f"{name}.html").read_text()

    def refused(self, *words: str) -> str:
        return refused(self.checkout.invoke("docs"), BAD_DATA, "in the documentation", *words)


@pytest.fixture(scope="module")
def desk(cloned: Callable[[str], Checkout]) -> Desk:
    return Desk(cloned("desk"))


@pytest.fixture(scope="module")
def first(desk: Desk) -> str:
    """What was said when it was first made, the image aside; nothing but out/ was written to."""
    before = {k: v for k, v in snapshot(desk.checkout.root).items() if not k.startswith("out")}
    desk.docs()
    # Once more from nothing, in the image that is there now.
    for name in ("docs", "oar/docs"):
        shutil.rmtree(desk.checkout.out / name)
    said = desk.docs()
    after = {k: v for k, v in snapshot(desk.checkout.root).items() if not k.startswith("out")}
    assert after == before
    return said


def test_the_pages_say_what_the_code_says(desk: Desk, first: str) -> None:
    assert re.search(r"^documented out/docs/index\.html, \d", first, re.MULTILINE)
    assert "docs/index.html" in (desk.checkout.out / "docs" / "index.html").read_text()
    assert "A variant is a row" in desk.page("docs/explanation")
    assert "--ctest-filter" in desk.page("generated/tasks")
    assert "book_port" in desk.page("generated/settings")
    assert "budget_mb" in desk.page("generated/project")
    # Slipway's own modules, the tree's, as they are imported where it was built, and its headers.
    assert 'id="slipway.variants.choose"' in desk.page("generated/slipway/variants")
    assert 'id="oar.ops.linear"' in desk.page("generated/tree/oar.ops")
    header = desk.page("generated/tree/oar-oar.h")
    assert "LinearForward" in header
    assert "a null bias counts as zeros" in header
    assert "OAR_API" not in re.sub(r"<[^>]+>", "", header).split("LinearForward", 1)[1][:400]


def test_what_is_made_is_the_caller_s_and_asks_no_server(desk: Desk, first: str) -> None:
    assert first
    assert strangers(desk.checkout.out / "docs", os.getuid()) == []
    for name in ("docs/index", "generated/tasks"):
        assert (
            re.findall(r"<(?:script|link)\b[^>]*(?:src|href)=\"(?:https?:)?//", desk.page(name))
            == []
        )


def test_after_one_page_only_what_changed_is_made(desk: Desk, first: str) -> None:
    assert first
    others = desk.checkout.out / "docs" / "generated" / "slipway" / "builds.html"
    before = others.stat().st_mtime_ns
    page = desk.checkout.root / "docs" / "explanation.md"
    page.write_text(page.read_text() + "\nOne more sentence.\n")
    desk.docs()
    assert "One more sentence." in desk.page("docs/explanation")
    assert others.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        pytest.param(
            "docs/explanation.md",
            "# Explanation\n",
            "# Explanation\n\nSee [it](gone.md).\n",
            "docs/explanation.md:3: ",
            id="a page that is not there",
        ),
        pytest.param(
            "docs/explanation.md",
            "# Explanation\n",
            "# Explanation\n\n\nSee [it](tutorial.md#gone).\n",
            "docs/explanation.md:4: ",
            id="a section that is not there",
        ),
        pytest.param(
            "slipway/console.py",
            '"""``text`` in bold on a terminal, unchanged elsewhere."""',
            '"""``text`` in bold, see :func:`slipway.console.gone`."""',
            "slipway/console.py:",
            id="a function that is not there",
        ),
        pytest.param(
            "examples/oar/include/oar/oar.h",
            "// dx = dy where x > 0, else 0.",
            "// dx = dy where x > 0, else 0. See \\ref Gone.",
            "examples/oar/include/oar/oar.h:",
            id="a reference of a header",
        ),
    ],
)
def test_a_broken_reference_is_an_error_until_it_is_mended(
    desk: Desk, first: str, file: str, old: str, new: str, words: str
) -> None:
    assert first
    path = desk.checkout.root / file
    right = path.read_text()
    assert old in right
    path.write_text(right.replace(old, new))
    try:
        desk.refused(words)
        desk.refused(words)  # what did not change since is still wrong
    finally:
        path.write_text(right)
    desk.docs()


def test_a_section_that_goes_breaks_the_links_to_it(desk: Desk, first: str) -> None:
    """The page with the link did not change, and is not made again: its link is looked at still."""
    assert first
    page = desk.checkout.root / "docs" / "your-own-library.md"
    right = page.read_text()
    assert "(#on-a-cpu-that-lacks-it)" in right
    readme = desk.checkout.root / "README.md"
    whole = readme.read_text()
    assert "README.md#requirements" in right
    readme.write_text(whole.replace("## Requirements", "## What it needs"))
    try:
        desk.refused("docs/your-own-library.md:", "requirements")
    finally:
        readme.write_text(whole)
    desk.docs()


def test_headers_that_are_not_there_are_told_before_anything_is_made(
    desk: Desk, area: Path
) -> None:
    other = tree(area / "trees" / "undocumented", project="docs: {headers: [incldue]}\n")
    (other / "include").mkdir()
    done = desk.checkout.invoke("docs", "--project", str(other))
    refused(done, NO_INPUT, "docs.headers", "did you mean 'include'?")


def test_nothing_starts_with_dry(desk: Desk, first: str) -> None:
    assert first
    before = snapshot(desk.checkout.out / "docs")
    said = succeed(desk.checkout.invoke("--dry", "docs"))
    assert "/scripts/docs" in said
    assert snapshot(desk.checkout.out / "docs") == before

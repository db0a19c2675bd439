"""Every recipe of the documentation, typed in a clone: none can rot."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from slipway import base
from slipway.engine import build_client
from slipway.settings import Settings, Workshop
from tests.integration.test_book import chapter
from tests.integration.workbench import ROOT, Checkout, Done, succeed

DOCS = ROOT / "docs"
PAGES = [DOCS / "tutorial.md", *sorted((DOCS / "recipes").glob("[!i]*.md"))]
RECIPE = re.compile(r"^```bash recipe\n(.*?)^```$", re.DOTALL | re.MULTILINE)
BY_HAND = ["by-hand", "by-hand-python", "digits-by-hand", "my-dev"]
# The book of a test: what the settings name there is a directory with less in it.
BOOKS = {"writer": "book", "reader": "chapters"}


def script_of(page: Path) -> str:
    """The recipes of a page as one script, which says before each of them where it stands."""
    text = page.read_text()
    lines = []
    for match in RECIPE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        lines += [f"echo 'recipe {page.name}:{line}'", match[1]]
    return "\n".join(lines)


def failed_recipe(done: Done) -> str:
    """Page and line of the recipe at which a script ended; empty where it did not fail."""
    begun = re.findall(r"^recipe (\S+:\d+)$", done.stdout, re.MULTILINE)
    return begun[-1] if done.returncode else ""


@pytest.fixture(scope="module")
def kitchen(cloned: Callable[[str], Checkout]) -> Checkout:
    """A clone that has a short book beside the real one."""
    checkout = cloned("kitchen")
    (checkout.root / "chapters" / "01.add").mkdir(parents=True)
    text = chapter("1. Add", "print(1 + 1)")
    (checkout.root / "chapters" / "01.add" / "index.md").write_text(text)
    return checkout


@pytest.fixture(scope="module")
def surroundings() -> Iterator[dict[str, str]]:
    """What a reader's shell has: a docker that can build, and the base of the other images."""
    reference = base.ensure_base(Workshop(root=ROOT, settings=Settings())).reference
    path = f"{Path(build_client()[0][0]).parent}:{os.environ['PATH']}"
    yield {"BASE": reference, "PATH": path}
    # A recipe that fails leaves what it would have taken away; one names the dev image.
    subprocess.run(["docker", "rmi", "--force", *BY_HAND], check=False, capture_output=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_s_recipes_work_as_they_stand(
    page: Path, kitchen: Checkout, surroundings: dict[str, str]
) -> None:
    script = script_of(kitchen.root / page.relative_to(ROOT))
    assert script
    settings = {**surroundings, "INVOKE_BOOK": BOOKS.get(page.stem, "")}
    done = kitchen.typed("bash", "-euc", script, env=settings, timeout=900)
    assert failed_recipe(done) == "", done.stdout[-4000:]
    succeed(done)


def test_a_recipe_that_fails_is_told_by_page_and_line(tmp_path: Path, kitchen: Checkout) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Page\n\n```bash recipe\ntrue\n```\n\n```bash recipe\nfalse\ntrue\n```\n")
    done = kitchen.typed("bash", "-euc", script_of(page))
    assert failed_recipe(done) == "page.md:7"
    assert done.returncode == 1


def test_no_recipe_is_left_out() -> None:
    """A fence that looks like a recipe and is not taken for one would never be typed."""
    for page in DOCS.rglob("*.md"):
        text = page.read_text()
        assert len(RECIPE.findall(text)) == len(re.findall(r"^\s*`{3,}.*\brecipe", text, re.M)), (
            page
        )
        if RECIPE.search(text):
            assert page in PAGES

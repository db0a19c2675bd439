"""A reader's browser: Debian's Chromium, driven by Playwright.

The picture in the README is made of a book that is being served, with

    .venv/bin/python -m tests.integration.browser URL CHAPTER docs/book.png
"""

from __future__ import annotations

import contextlib
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

try:
    from playwright.sync_api import Locator, Page, expect, sync_playwright
except ModuleNotFoundError as error:
    raise pytest.UsageError(
        "no Playwright: ./go python -m pip install --require-hashes -r requirements-browser.txt"
    ) from error

PATIENCE_MS = 60_000  # for what takes seconds where nothing is broken


def chromium() -> str:
    """The browser of this machine; Playwright fetches none."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        found = shutil.which(name)
        if found:
            return found
    pytest.fail("no Chromium here: apt-get install --no-install-recommends chromium")


@contextlib.contextmanager
def browsing(height: int = 860) -> Iterator[Page]:
    """A page of a browser that knows nothing yet."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium())
        try:
            page = browser.new_page(viewport={"width": 1280, "height": height})
            page.set_default_timeout(PATIENCE_MS)
            yield page
        finally:
            browser.close()


def open_book(page: Page, url: str) -> None:
    """Go where ``invoke read`` says, and wait until the contents are shown."""
    page.goto(url)
    shown(page).locator(".jp-RenderedMarkdown").first.wait_for()


def shown(page: Page) -> Locator:
    """The notebook in front."""
    return page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)")


def open_chapter(page: Page, title: str) -> None:
    """Follow the link in the contents, and wait for the kernel."""
    shown(page).get_by_role("link", name=title).first.click()
    shown(page).get_by_role("heading", name=title).first.wait_for()
    # A kernel that is started again while it starts has not run anything yet.
    expect(page.locator("#jp-main-statusbar")).to_contain_text("Idle", timeout=PATIENCE_MS)


def run_all(page: Page) -> None:
    """Restart the kernel and run all cells, by the menu; wait for what they put out."""
    # What a cell put out before is told from what it puts out now by a mark.
    mark = "nodes => nodes.forEach(node => { node.dataset.before = 'yes' })"
    shown(page).locator(".jp-OutputArea-child").evaluate_all(mark)
    page.get_by_role("menuitem", name="Kernel", exact=True).click()
    page.get_by_role("menuitem", name="Restart Kernel and Run All Cells").click()
    page.get_by_role("button", name="Confirm Kernel Restart").click()
    old = shown(page).locator(".jp-OutputArea-child[data-before]")
    expect(old).to_have_count(0, timeout=PATIENCE_MS)
    numbers = shown(page).locator(".jp-CodeCell .jp-InputArea-prompt")
    expect(numbers.last).to_have_text(re.compile(r"\[\d+\]"), timeout=PATIENCE_MS)


def main(url: str, chapter: str, file: str) -> None:
    """Save a picture of a chapter that has just been run."""
    with browsing(height=1000) as page:
        open_book(page, url)
        open_chapter(page, chapter)
        run_all(page)
        shown(page).locator(".jp-OutputArea img").last.scroll_into_view_if_needed()
        page.wait_for_timeout(1000)
        page.screenshot(path=Path(file))


if __name__ == "__main__":
    main(*sys.argv[1:])

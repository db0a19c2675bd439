"""The page about a release, in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest

from slipway import report, sbom
from slipway.sbom import Part
from tests.integration.browser import browsing
from tests.unit.fakes import EPOCH, make_manifest

LONG = "1.2.0.dev1234+g0123456.rehearsal"  # as versions of every day are

# Boxes of the texts of a picture which cover one another, or leave it.
OVERLAPS = """svg => {
  const all = [...svg.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect()])
  const box = svg.getBoundingClientRect()
  const bars = [...svg.querySelectorAll('rect')].map(r => ['a bar', r.getBoundingClientRect()])
  const outside = [...svg.querySelectorAll('text:not(.inside)')].map(
    t => [t.textContent, t.getBoundingClientRect()])
  const bad = all.filter(([, a]) => a.right > box.right + 1 || a.left < box.left - 1)
  const meet = (a, b) =>
    a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom
  for (const [i, [name, a]] of all.entries())
    for (const [other, b] of all.slice(i + 1)) if (meet(a, b)) bad.push([name, other])
  for (const [name, a] of outside)
    for (const [other, b] of bars) if (meet(a, b)) bad.push([name, other])
  return bad.map(String)
}"""


@pytest.fixture
def page_file(tmp_path: Path) -> Path:
    parts = [
        Part(name, "1.2", sbom.debian_purl("debian", name, "1.2"), licenses=("GPL-2.0-or-later",))
        for name in ("libc6", "libstdc++6", "python3")
    ]
    main = Part("oar", "1.2.0", "", kind="container", needs=sbom.roots(parts))
    (tmp_path / "sbom").mkdir()
    bill = sbom.document(main, parts, EPOCH)
    (tmp_path / "sbom" / sbom.file_name("oar:1.2.0")).write_text(bill)
    file = tmp_path / report.NAME
    file.write_text(report.page(tmp_path, make_manifest(LONG), make_manifest("1.1.0"), tmp_path))
    return file


def test_the_page_shows_pictures_and_tables_and_asks_nobody_for_anything(page_file: Path) -> None:
    asked: list[str] = []
    said: list[str] = []
    with browsing() as page:
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.goto(page_file.as_uri())
        assert page.get_by_role("heading", name=f"oar {LONG}").is_visible()
        pictures = page.locator("svg")
        assert pictures.count() == 3
        for number in range(3):
            assert pictures.nth(number).evaluate(OVERLAPS) == []
        page.get_by_role("link", name="Bills of materials").click()
        part = page.get_by_role("cell", name="libstdc++6", exact=True)
        assert not part.is_visible()
        page.get_by_text("oar-1.2.0 3 parts").click()
        assert part.is_visible()
        assert "GPL-2.0-or-later" in page.locator("#parts").inner_text()
        # A phone scrolls within tables and pictures, never the page itself.
        page.set_viewport_size({"width": 400, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") == 400
    assert asked == [page_file.as_uri()]
    assert said == []


def test_the_page_is_dark_where_the_reader_likes_it_dark(page_file: Path) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    ink = "getComputedStyle(document.querySelector('svg text')).fill"
    with browsing() as page:
        page.goto(page_file.as_uri())
        light = page.evaluate(paper), page.evaluate(ink)
        page.emulate_media(color_scheme="dark")
        dark = page.evaluate(paper), page.evaluate(ink)
    assert light[0] == "rgb(255, 255, 255)"
    assert sum(map(int, dark[0][4:-1].split(","))) < 100
    assert sum(map(int, dark[1][4:-1].split(","))) > 600

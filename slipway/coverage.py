"""What the tests reach: one report of the lines that ran, compiled and Python.

``scripts/coverage`` makes the pages of both; the page that leads to them is made here.
"""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from slipway import console, images, outputs, receipts
from slipway.builds import Site
from slipway.engine import Mount
from slipway.errors import BAD_DATA, SlipwayError
from slipway.records import Record

PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>body {{ font: 1rem/1.6 system-ui, sans-serif; margin: 2rem auto; max-width: 40rem; }}
td, th {{ padding: .2rem 1.2rem .2rem 0; text-align: left; }}</style></head>
<body><h1>{title}</h1>
<table><tr><th>what</th><th>lines that ran</th><th>of</th><th></th></tr>
{rows}
</table></body></html>
"""


class Reached(Record, frozen=True):
    """The lines of one language."""

    what: str
    ran: int
    lines: int
    page: str
    """Relative to the report."""

    @property
    def percent(self) -> str:
        """``87.5 %``."""
        return f"{100 * self.ran / self.lines:.1f} %" if self.lines else "no lines"


def read(directory: Path) -> list[Reached]:
    """What gcovr and coverage.py have counted."""
    found = []
    cxx, python = directory / "cxx.json", directory / "python.json"
    if cxx.is_file():
        facts: dict[str, Any] = json.loads(cxx.read_text(encoding="utf-8"))
        ran, lines = int(facts["line_covered"]), int(facts["line_total"])
        found.append(Reached("C and C++", ran, lines, "cxx/index.html"))
    if python.is_file():
        totals: dict[str, Any] = json.loads(python.read_text(encoding="utf-8"))["totals"]
        ran, lines = int(totals["covered_lines"]), int(totals["num_statements"])
        found.append(Reached("Python", ran, lines, "python/index.html"))
    return found


def page(title: str, found: list[Reached]) -> str:
    """The page that leads to both."""
    rows = [
        f'<tr><td><a href="{one.page}">{html.escape(one.what)}</a></td><td>{one.ran}</td>'
        f"<td>{one.lines}</td><td>{one.percent}</td></tr>"
        for one in found
    ]
    return PAGE.format(title=html.escape(title), rows="\n".join(rows))


def prepared(s: Site) -> Site:
    """A site whose image has gcovr and coverage.py, and whose build counts lines."""
    return replace(s, coverage=True, image=images.ensure_coverage(s.workshop, s.image))


def settings(sources: Sequence[str]) -> str:
    """What coverage.py is told, as TOML: elsewhere a comma ends the name of a directory."""
    return f"[tool.coverage.run]\nsource = {json.dumps(sources, ensure_ascii=False)}\n"


def watch(s: Site, sources: Sequence[str]) -> Path:
    """The file that names the directories whose Python lines are counted; paths inside."""
    file = s.reports / "coverage.toml"
    if not s.workshop.dry:
        receipts.write_whole(file, settings(sources))
    return file


def report(s: Site) -> None:
    """Make the report of the last tests, and say what it says."""
    out = s.out / "coverage"
    if not s.workshop.dry:
        outputs.make(out, s.workshop.out)
    job = s.job("coverage", [s.place.inside(s.build), s.source_inside, s.place.inside(out)], {})
    status = s.place.run(replace(job, mounts=[*job.mounts, Mount(out)]), s.image)
    if s.workshop.dry:
        return
    if status:
        raise SlipwayError(
            f"no report of {s.title} was made: status {status}",
            cause="the words of gcovr or coverage.py are above",
            fix=["invoke clean, then the same command again"],
            code=status,
        )
    found = read(out)
    if not found:
        raise SlipwayError(
            f"the tests of {s.title} have counted no line",
            cause="the build takes neither CFLAGS nor CXXFLAGS, and no Python was tested",
            fix=["invoke test, without --coverage"],
            code=BAD_DATA,
        )
    receipts.write_whole(out / "index.html", page(f"What the tests of {s.title} reach", found))
    words = ", ".join(f"{one.what} {one.percent}" for one in found)
    console.say(f"{console.bold('reached')} {words}: {s.shown(out / 'index.html')}")

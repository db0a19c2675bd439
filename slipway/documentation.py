"""The documentation: pages by hand, and a reference made from what runs; a broken link is an error.

``scripts/docs`` makes it, in an image that is the dev image with Doxygen and Sphinx, offline.
"""

from __future__ import annotations

import ast
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from slipway import builds, console, images, locks, outputs, reading, receipts
from slipway.builds import Site
from slipway.engine import Job, Mount
from slipway.errors import BAD_DATA, NO_INPUT, SlipwayError, nearest
from slipway.project import Tree
from slipway.settings import CONTAINER, Workshop

FAILED = 65  # scripts/docs's status for a mistake in what it reads
HOME = Path("docs") / "index.md"
DOCSTRING = re.compile(
    r"(?P<file>[^:]+\.py):docstring of (?P<name>[\w.]+):(?P<line>\d+): (?P<words>.*)"
)


# -- deciding: pure functions


def headers_of(tree: Tree, exists: Callable[[Path], bool] = Path.is_dir) -> list[Path]:
    """The directories of headers that project.yaml names, all of which are there."""
    found = [tree.source / name for name in tree.project.docs.headers]
    for directory in found:
        if not exists(directory):
            there = [p.name for p in tree.source.iterdir() if p.is_dir() and p.name[0] != "."]
            raise SlipwayError(
                f"no directory {directory}, which docs.headers names",
                cause=nearest(directory.name, there),
                fix=[f"mend docs.headers in {tree.file}"],
                code=NO_INPUT,
            )
    return found


def facts_of(s: Site, work: Path, html: Path) -> dict[str, Any]:
    """What ``scripts/docs`` is told, in paths as they are for it."""
    inside, wanted = s.place.inside, s.tree.project.docs
    by_hand = (s.workshop.root / HOME).is_file()
    python = [s.build / path for path in s.tree.project.test.pythonpath]
    if s.tree.project.build.system == "pep517":
        python.append(s.build / "site")
    headers = headers_of(s.tree)
    return {
        "root": inside(s.workshop.root),
        "work": inside(work),
        "html": inside(html),
        "name": s.tree.project.name,
        "title": "Slipway" if by_hand else s.tree.project.name,
        "root_doc": "docs/index" if by_hand else "generated/index",
        "pages": [*(["*.md", "docs/**.md"] if by_hand else []), "generated/**.md"],
        "leave_out": [s.workshop.out.name, s.workshop.dist.name],
        "headers": [inside(directory) for directory in headers],
        "macros": list(wanted.macros),
        "modules": list(wanted.modules),
        "packages": sorted({"slipway", *(name.partition(".")[0] for name in wanted.modules)}),
        "pythonpath": [inside(path) for path in python],
        "xml": inside(work / "xml") if headers else "",
    }


def job_of(s: Site, work: Path, html: Path) -> Job:
    """What makes the pages: it reads the checkout and the tree, and writes to two directories."""
    root = s.workshop.root
    apart = [] if s.tree.source.is_relative_to(root) else [Mount(s.tree.source, readonly=True)]
    return Job(
        name=f"docs-{s.tree.project.name}",
        command=[s.script("docs"), s.place.inside(work / "facts.json")],
        mounts=[Mount(root, readonly=True), *apart, Mount(work), Mount(html)],
        env={"PYTHONDONTWRITEBYTECODE": "1"},
        workdir="/tmp",
        shm_size=s.workshop.settings.shm_size,
    )


def line_of(code: str, name: str) -> int:
    """The line on which the docstring begins of what ``module.Class.method`` names; 1 if unknown.

    :param code: the module's.
    :param name: with the module's own name, of any length, in front.
    """
    node: Any = ast.parse(code)
    found = node
    for part in name.split("."):
        parts = {n.name: n for n in getattr(node, "body", []) if hasattr(n, "name")}
        if part in parts:
            node = found = parts[part]
    first = found.body[0] if found.body else None
    return first.lineno if isinstance(first, ast.Expr) else getattr(found, "lineno", 1)


def located(problem: str, code_of: Callable[[str], str]) -> str:
    """A problem by file and line, where Sphinx says: line 3 of the docstring of something.

    :param code_of: the text of a file.
    """
    match = DOCSTRING.fullmatch(problem)
    if not match:
        return problem
    line = line_of(code_of(match["file"]), match["name"]) + int(match["line"]) - 1
    return f"{match['file']}:{line}: {match['words']}"


def mistakes(problems: Iterable[str], shown: Callable[[Path], str]) -> SlipwayError:
    """What is wrong with the documentation, each by file and line.

    :param shown: a path as a person reads it.
    """
    listing = []
    for problem in dict.fromkeys(problems):
        file, colon, rest = problem.partition(":")
        is_path = colon and file.startswith("/")
        listing.append(f"{shown(Path(file))}:{rest}" if is_path else problem)
    return SlipwayError(
        f"{len(listing)} mistake{'s' * (len(listing) != 1)} in the documentation",
        cause="\n".join(sorted(listing)),
        fix=["invoke docs, once that is mended"],
        code=BAD_DATA,
    )


# -- acting


def _code_of(file: str) -> str:
    return Path(file).read_text(encoding="utf-8")


def make(s: Site, image: str) -> Path:
    """Make the pages that changed; the first of them.

    :param image: the one with Doxygen and Sphinx.
    """
    start = time.monotonic()
    work = s.workshop.out / s.tree.project.name / "docs"
    html = s.workshop.out / "docs"
    job = job_of(s, work, html)
    facts = facts_of(s, work, html)
    if s.workshop.dry:
        s.place.run(job, image)
        return html / "index.html"
    for directory in (work, html):
        outputs.make(directory, s.workshop.out)
    with locks.held(work, "docs"):
        receipts.write_whole(work / "facts.json", json.dumps(facts, indent=1) + "\n")
        problems = work / "problems.txt"
        problems.unlink(missing_ok=True)
        status = s.place.run(job, image)
        if status == FAILED and problems.is_file():
            found = problems.read_text(encoding="utf-8").splitlines()
            raise mistakes((located(line, _code_of) for line in found), s.shown)
        if status:
            raise SlipwayError(
                f"the documentation was not made: status {status}",
                cause="the words of scripts/docs are above",
                fix=["invoke docs"],
                code=status,
            )
    page = html / "index.html"
    console.say(
        f"{console.bold('documented')} {s.shown(page)}, {console.seconds(time.monotonic() - start)}"
    )
    return page


def docs(workshop: Workshop, project: str, source: str, *, open_it: bool) -> None:
    """What ``invoke docs`` does: build what is imported, make the pages, and show them."""
    for site in builds.sites(workshop, "", project, source, CONTAINER):
        if site.tree.project.docs.modules:
            with site.locked("docs"):
                builds.build(site)
        image = images.ensure_docs(workshop, images.ensure_dev(workshop))
        page = make(site, image)
        if open_it and not workshop.dry:
            show(page)


def show(page: Path) -> None:
    """Open a page where a person would see it, else say where it is."""
    if reading.opens(os.environ, sys.platform, terminal=sys.stdout.isatty()):
        import webbrowser

        webbrowser.open(page.as_uri())
    else:
        console.say(f"no desktop here; open {page.as_uri()}")

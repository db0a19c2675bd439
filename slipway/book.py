"""The book: chapters in Markdown become notebooks, executed in the image that they are read in.

What can be told without executing is decided here, purely; ``scripts/book`` makes notebooks,
executes them and makes pages, in that image and without a network.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

import yaml

from slipway import builds, console, engine, images, locks, manifest, outputs, production, receipts
from slipway.base import Base
from slipway.builds import Site
from slipway.engine import Job, Mount
from slipway.errors import BAD_CONFIG, BAD_DATA, NO_INPUT, USAGE, SlipwayError, nearest
from slipway.images import Recipe, file_hash, fingerprint
from slipway.production import Image
from slipway.project import Tree, find
from slipway.reading import alias_of, receipt_of
from slipway.records import Record
from slipway.settings import CONTAINER, Workshop

VARIANT = "cpu"  # the wheels that the chapters import are compiled for CPUs with AVX
CELL = re.compile(r"\{code-cell\}( ipython3)?")
# What a fence may hold that is shown and not executed; every one is known to Pygments.
LANGUAGES = (
    *("bash", "c", "cmake", "console", "cpp", "diff", "docker", "ini", "json", "make", "markdown"),
    *("python", "sh", "text", "toml", "yaml"),
)
CHAPTER = re.compile(r"\d\d\.[a-z0-9][a-z0-9-]*")
LEFT_OUT = ("__pycache__", ".ipynb_checkpoints")
FAILED = 65  # scripts/book's status for a chapter that is not what it should be
FRONT_MATTER = """\
begin it with
---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---"""


class Page(Record, frozen=True):
    """A chapter, or the index page."""

    name: str
    """``01.fit-a-line``; of the index page: empty."""
    directory: Path
    files: tuple[Path, ...]
    """All of them, index.md among them."""

    @property
    def title(self) -> str:
        """How it is spoken of."""
        return self.name or "the index page"

    @property
    def text(self) -> Path:
        """Its Markdown."""
        return self.directory / "index.md"


# -- looking at the chapters: pure functions


class Problem(Record, frozen=True):
    """A mistake in a chapter."""

    line: int
    words: str


def check(text: str, exists: Callable[[str], bool], *, is_chapter: bool = True) -> list[Problem]:
    """What is wrong with a page's Markdown, as far as it can be told without executing it.

    :param exists: whether the file is there that a relative link leads to.
    :param is_chapter: of the index page less is asked.
    """
    found: list[Problem] = []
    lines = text.splitlines()
    body = _front_matter(lines, found, wanted=is_chapter)
    titles: list[int] = []
    for number, line in _prose(lines, body, found):
        if re.match(r"# +\S", line):
            titles.append(number)
        found += [Problem(number, words) for words in _links(line, exists)]
    if not titles:
        found.append(Problem(body + 1, "no title: a chapter has one line '# N. Title'"))
    found += [
        Problem(n, f"a second title: the first is in line {titles[0]}; ## begins a section")
        for n in titles[1:]
    ]
    return sorted(found, key=lambda problem: problem.line)


def _front_matter(lines: Sequence[str], found: list[Problem], *, wanted: bool) -> int:
    """The number of lines that the front matter takes; what is wrong with it goes to ``found``."""
    if not lines or lines[0] != "---":
        if wanted:
            found.append(Problem(1, f"no front matter: {FRONT_MATTER}"))
        return 0
    if "---" not in lines[1:]:
        found.append(Problem(1, "front matter without an end: a line of three dashes"))
        return 1
    end = lines.index("---", 1)
    try:
        data: Any = yaml.safe_load("\n".join(lines[1:end]))
        name = data["jupytext"]["text_representation"]["format_name"]
        kernel = data["kernelspec"]["name"]
    except yaml.YAMLError as error:
        found.append(Problem(1, f"front matter that is no YAML: {' '.join(str(error).split())}"))
    except (KeyError, TypeError):
        found.append(Problem(1, f"front matter without jupytext or kernelspec: {FRONT_MATTER}"))
    else:
        if (name, kernel) != ("myst", "python3"):
            words = f"format_name '{name}' and kernel '{kernel}', which must be myst and python3"
            found.append(Problem(1, words))
    return end + 1


def _prose(lines: Sequence[str], start: int, found: list[Problem]) -> Iterator[tuple[int, str]]:
    """The lines that are neither code nor formula, by their numbers; bad fences go to ``found``."""
    fence, opened, formula = "", 0, 0
    for number, line in enumerate(lines[start:], start + 1):
        mark = re.match(r"\s*(`{3,}|~{3,})\s*(.*)$", line)
        if fence:
            if mark and mark[1].startswith(fence) and not mark[2]:
                fence = ""
        elif mark and not ("`" in mark[1] and "`" in mark[2]):  # which is code in a line
            fence, opened = mark[1], number
            words = _language(mark[2].strip())
            if words:
                found.append(Problem(number, words))
        else:
            if line.count("$$") % 2:
                formula = 0 if formula else number
            if not formula:
                yield number, re.sub(r"(`+).+?\1|\$[^$]+\$", "", line)
    if fence:
        found.append(Problem(opened, "a code fence without an end"))
    if formula:
        found.append(Problem(formula, "a formula without an end: a second $$"))


def _language(info: str) -> str:
    """What is wrong with the words after an opening fence; empty when nothing is."""
    if not info:
        return "a code fence without a language: write text, python or bash after it"
    if info.startswith("{"):
        if CELL.fullmatch(info):
            return ""
        return f"a fence '{info}' that notebooks do not have: only {{code-cell}} ipython3"
    if info in LANGUAGES:
        return ""
    return f"no language '{info}' for a code fence; {nearest(info, LANGUAGES)}"


LINKS = re.compile(
    r"(?P<image>!\[[^\]]*)?\]\(\s*<?(?P<target>[^)\s>]+)"
    r"|^\s{0,3}\[[^\]]+\]:\s+<?(?P<below>[^\s>]+)"
    r"|\b(?P<attribute>src|href)=[\"'](?P<value>[^\"']+)"
)


def _links(line: str, exists: Callable[[str], bool]) -> Iterator[str]:
    """What is wrong with the links and figures of a line."""
    for match in LINKS.finditer(line):
        target = match["target"] or match["below"] or match["value"]
        what = "figure" if match["image"] or match["attribute"] == "src" else "link"
        if what == "figure" and re.match(r"(https?:)?//", target):
            yield f"the figure {target} lies elsewhere: a book is read offline"
        if re.match(r"\w[\w+.-]*:|#|//", target):
            continue
        path = unquote(target.partition("#")[0].partition("?")[0])
        if path.startswith("/"):
            yield f"the {what} to {path} is not relative to the chapter"
        elif not exists(path):
            yield f"no file for the {what} to {target}"


def files_of(directory: Path) -> tuple[Path, ...]:
    """The files of a chapter, hidden ones and what Python and Jupyter leave behind aside."""
    found = receipts.files_below(directory)
    kept = []
    for path in found:
        parts = path.relative_to(directory).parts
        if not any(part.startswith(".") or part in LEFT_OUT for part in parts) and path.is_file():
            kept.append(path)
    return tuple(kept)


def pages_of(directory: Path) -> list[Page]:
    """The index page, if there is one, and the chapters of a book, in order."""
    if not directory.is_dir():
        raise SlipwayError(
            f"no book: no directory {directory}",
            cause="the setting 'book' names the directory of its chapters",
            fix=["mend book in invoke.yaml"],
            code=NO_INPUT,
        )
    index = directory / "index.md"
    found = [Page("", directory, (index,))] if index.is_file() else []
    for path in sorted(directory.iterdir()):
        if path.is_dir() and CHAPTER.fullmatch(path.name):
            found.append(Page(path.name, path, files_of(path)))
    if not any(page.name for page in found):
        raise SlipwayError(
            f"no chapters in {directory}",
            fix=[f"write {directory}/01.a-name/index.md"],
            code=NO_INPUT,
        )
    return found


def check_pages(directory: Path, pages: Sequence[Page], shown: Callable[[Path], str]) -> None:
    """Refuse a book with mistakes, all of which are named by file and line.

    :param shown: a path as a person reads it.
    """
    top = directory.resolve()
    listing = []
    numbers: dict[str, str] = {}
    for page in pages:
        if page.name and numbers.setdefault(page.name[:2], page.name) != page.name:
            words = f"a second chapter of number {page.name[:2]}, beside {numbers[page.name[:2]]}"
            listing.append(f"{shown(page.directory)}: {words}")
        if not page.text.is_file():
            listing.append(f"{shown(page.directory)}: no index.md, which is the chapter")
            continue

        def exists(path: str, page: Page = page) -> bool:
            target = (page.directory / path).resolve()
            return target.is_file() and target.is_relative_to(top)

        problems = check(page.text.read_text(encoding="utf-8"), exists, is_chapter=bool(page.name))
        listing += [f"{shown(page.text)}:{p.line}: {p.words}" for p in problems]
    if listing:
        raise SlipwayError(
            f"{len(listing)} mistake{'s' * (len(listing) > 1)} in the book",
            cause="\n".join(listing),
            fix=["invoke book, once that is mended"],
            code=BAD_DATA,
        )


def choose(pages: Sequence[Page], wanted: str) -> list[Page]:
    """The chapters that ``--chapter`` means: numbers or names, with commas; all by default."""
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    if not names:
        return list(pages)
    chosen = []
    for name in names:
        number = f"{int(name):02d}." if name.isdecimal() else ""
        fits = [p for p in pages if p.name and (p.name == name or p.name.startswith(number or "?"))]
        if not fits:
            raise SlipwayError(
                f"no chapter '{name}'",
                cause=nearest(name, [p.name for p in pages if p.name]),
                fix=["invoke book --chapter 01, or 01,03"],
                code=USAGE,
            )
        chosen += fits
    return [page for page in pages if page in chosen]


def directory_of(workshop: Workshop) -> Path:
    """The directory of the book that the settings name."""
    return (workshop.root / Path(workshop.settings.book).expanduser()).absolute()


def has_book(workshop: Workshop, tree: Tree) -> bool:
    """Whether ``all`` ends with a book: the settings name one, and this is their project."""
    named = bool(workshop.settings.book) and directory_of(workshop).is_dir()
    return named and tree.file == find(workshop, "")


# -- the images


def reader_recipe(s: Site, prod: str, dev: str) -> Recipe:
    """The image in which the chapters are executed: the production image, and what they import.

    :param prod: tag of the production image, which is its hash.
    :param dev: that of the dev image, in which wheels are installed.
    """
    root, scripts = s.workshop.root, s.workshop.scripts
    return Recipe(
        kind="reader",
        dockerfile=root / "Dockerfile.book",
        target="reader",
        base=Base(prod, prod),
        arguments={"DEV": dev},
        files={
            "tools/pip-install": scripts / "pip-install",
            "read-book": scripts / "read-book",
            "jupyter/overrides.json": scripts / "jupyter" / "overrides.json",
            "jupyter/page_config.json": scripts / "jupyter" / "page_config.json",
            "requirements-book.txt": root / "requirements-book.txt",
        },
        repository=f"slipway-{s.workshop.checkout}-{s.tree.project.name}-reader",
    )


def recipe(s: Site, prod: str, dev: str, notebooks: Path) -> Recipe:
    """The book's image: the same, and the notebooks.

    :param notebooks: directory of the executed ones.
    """
    from msgspec.structs import replace

    start = reader_recipe(s, prod, dev)
    found = {f.relative_to(notebooks).as_posix(): f for f in receipts.files_below(notebooks)}
    return replace(
        start,
        kind="book",
        target="book",
        files={**start.files, **{f"chapters/{name}": file for name, file in found.items()}},
        labels={
            images.ALIAS: alias_of(s.tree),
            "slipway.project": s.tree.project.name,
            "slipway.variant": s.variant,
            "org.opencontainers.image.title": f"{s.tree.project.name}-book",
            "org.opencontainers.image.version": s.tree.version.pep440,
            "org.opencontainers.image.revision": s.tree.version.commit,
        },
        repository=f"slipway-{s.workshop.checkout}-{s.tree.project.name}-book",
    )


def image_inputs(s: Site, dev: str) -> str:
    """What decides what a chapter prints, apart from the chapter.

    All that the image is made from, but not the version: with each commit the image is another one
    by its name and date, and the chapters would all be executed again for nothing.
    """
    root = s.workshop.root
    source = s.tree.wheel or s.tree.source
    ours = builds.not_source(s.workshop, s.tree.source)
    files = receipts.files_below(source, ours)
    return fingerprint(
        dev,
        s.image,
        s.tree.variants[s.variant].compiler_flags,
        s.tree.file.read_bytes(),
        [(str(f.relative_to(source)), file_hash(f)) for f in files if f.is_file()],
        [file_hash(root / f"Dockerfile.{name}") for name in ("prod", "book")],
        file_hash(root / "requirements-book.txt"),
        [file_hash(s.workshop.scripts / name) for name in ("book", "pip-install", "apt-install")],
    )


# -- acting


class Bench(Record, frozen=True):
    """Where the book of a site is made."""

    site: Site
    source: Path
    """The directory of the chapters."""
    reader: str
    """Tag of the image in which they are executed."""
    inputs: str
    """See ``image_inputs``."""

    @property
    def out(self) -> Path:
        """``out/PROJECT/book``."""
        return self.site.workshop.out / self.site.tree.project.name / "book"

    @property
    def executed(self) -> Path:
        """The executed notebooks, each in the directory of its chapter."""
        return self.out / "chapters"

    def key(self, page: Page) -> str:
        """Changes with the chapter, and with what it runs in."""
        files = [(f.relative_to(page.directory).as_posix(), file_hash(f)) for f in page.files]
        return fingerprint(self.inputs, page.name, files)

    def receipt(self, page: Page) -> Path:
        """Where it stands that a chapter was executed."""
        return self.out / "receipts" / f"{page.name or 'index'}.json"

    def run(self, name: str, command: Sequence[str], mounts: Sequence[Mount]) -> int:
        """Run ``scripts/book`` in the reader image, offline."""
        s = self.site
        job = Job(
            name=f"book-{s.tree.project.name}{name}",
            command=[s.script("book"), *command],
            mounts=[Mount(s.workshop.scripts, readonly=True), *mounts],
            env={
                "PYTHONDONTWRITEBYTECODE": "1",
                "PYTHONHASHSEED": "0",  # what a set prints is then the same each time
                "MPLCONFIGDIR": s.place.inside(self.out / "matplotlib"),
            },
            workdir="/tmp",
            shm_size=s.workshop.settings.shm_size,
        )
        return s.place.run(job, self.reader)


def execute(bench: Bench, page: Page) -> bool:
    """Execute a chapter, unless it is unchanged; whether it was."""
    s, shown = bench.site, bench.site.shown
    receipt_file, inputs = bench.receipt(page), bench.key(page)
    known = receipts.read(receipt_file, inputs)
    if known:
        console.say(f"{page.title} is unchanged since {console.moment(known.made_at)}")
        return False
    start = time.monotonic()
    work = bench.out / "work"
    fonts = bench.out / "matplotlib"
    if not s.workshop.dry:
        shutil.rmtree(work, ignore_errors=True)
        for directory in (work, fonts):
            outputs.make(directory, s.workshop.out)
    limits = s.workshop.settings.book_limits
    caps = [str(limits.cell_s), str(limits.chapter_s), str(limits.output_kb)]
    command = ["execute", s.place.inside(page.directory), s.place.inside(work), *caps]
    mounts = [Mount(bench.source, readonly=True), Mount(work), Mount(fonts)]
    status = bench.run(f"-{page.name or 'index'}", command, mounts)
    if s.workshop.dry:
        return True
    if status:
        raise failure(page, work / "failure.json", status, shown)
    cells = json.loads((work / "executed.json").read_text())["cells"]
    target = outputs.make(bench.executed / page.name, s.workshop.out) / "index.ipynb"
    receipt_file.unlink(missing_ok=True)
    (work / "index.ipynb").replace(target)
    shutil.rmtree(work)
    took = time.monotonic() - start
    receipts.write(
        receipt_file, inputs, {"files": {str(target): file_hash(target)}, "cells": cells}
    )
    said = f"{cells} cell{'s' * (cells != 1)}" if cells else "no cells"
    console.say(f"{console.bold('executed')} {page.title}: {said}, {console.seconds(took)}")
    return True


def failure(page: Page, file: Path, status: int, shown: Callable[[Path], str]) -> SlipwayError:
    """What a chapter's failure means, from what ``scripts/book`` left."""
    try:
        facts = json.loads(file.read_text())
        what, cause = str(facts["what"]), str(facts["cause"])
        line, cell = int(facts["line"]), int(facts["cell"])
    except (OSError, *receipts.NOT_OURS):
        return SlipwayError(
            f"{page.title} was not executed: status {status}",
            cause="its words are above; 142: it hung, 137: it was killed, as when memory is short",
            fix=[f"invoke book --chapter {page.name[:2]}" if page.name else "invoke book"],
            code=status,
        )
    where = f"{shown(page.text)}{f':{line}' if line else ''}"
    who = f"{page.title}, cell {cell}" if cell else page.title
    again = f"invoke book --chapter {page.name[:2]}" if page.name else "invoke book"
    return SlipwayError(
        f"{who}: {what}",
        cause=f"{where}\n{cause}",
        fix=[f"{again}, once that is mended"],
        code=BAD_DATA if status == FAILED else status,
    )


def edition(bench: Bench, pages: Sequence[Page]) -> Path:
    """Make notebooks and HTML of the executed chapters in ``out/book``, whole or not at all.

    :return: the directory of the notebooks.
    """
    s = bench.site
    final = s.workshop.out / "book"
    receipt_file = bench.out / "receipts" / "edition.json"
    inputs = fingerprint([bench.key(page) for page in pages])
    known = receipts.read(receipt_file, inputs)
    if known:
        return final / "notebooks"
    start = time.monotonic()
    work = bench.out / "edition"
    if not s.workshop.dry:
        for stale in {p.parent for p in bench.executed.glob("*/index.ipynb")}:
            if stale.name not in {page.name for page in pages}:
                shutil.rmtree(stale)
        if not any(page.name == "" for page in pages):
            (bench.executed / "index.ipynb").unlink(missing_ok=True)
        shutil.rmtree(work, ignore_errors=True)
        for kind in ("html", "notebooks"):
            outputs.make(work / kind, s.workshop.out)
            for page in pages:
                copy_beside(page, work / kind / page.name)
    command = ["pages", s.place.inside(bench.executed), s.place.inside(work)]
    status = bench.run("-pages", command, [Mount(bench.executed, readonly=True), Mount(work)])
    if s.workshop.dry:
        return final / "notebooks"
    if status:
        raise SlipwayError(
            f"no pages were made of the chapters: status {status}",
            cause="the words of scripts/book are above",
            fix=["invoke book"],
            code=status,
        )
    old = bench.out / "before"
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        final.rename(old)
    work.rename(outputs.make(final.parent, s.workshop.out) / final.name)
    shutil.rmtree(old, ignore_errors=True)
    made = {str(f): file_hash(f) for f in receipts.files_below(final)}
    receipts.write(receipt_file, inputs, {"files": made})
    console.say(
        f"{console.bold('made')} {s.shown(final / 'html' / 'index.html')} and notebooks, "
        f"{console.seconds(time.monotonic() - start)}"
    )
    return final / "notebooks"


def copy_beside(page: Page, directory: Path) -> None:
    """Copy what a chapter has beside its Markdown."""
    for file in page.files:
        if file != page.text:
            target = directory / PurePosixPath(file.relative_to(page.directory).as_posix())
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)


def make(s: Site, prod: Image, chapter: str = "") -> Image | None:
    """The book's image, and its pages; with ``chapter`` only those are executed, and no image made.

    :param prod: the production image of the site.
    :param chapter: what ``--chapter`` says.
    """
    source = directory_of(s.workshop)
    pages = pages_of(source)
    chosen = choose(pages, chapter)
    check_pages(source, chosen if chapter else pages, s.shown)
    out = s.workshop.out / s.tree.project.name / "book"
    if s.workshop.dry:
        return _make(s, prod, source, pages, chosen)
    with locks.held(outputs.make(out, s.workshop.out), "book"):
        return _make(s, prod, source, pages, chosen)


def _make(
    s: Site, prod: Image, source: Path, pages: list[Page], chosen: list[Page]
) -> Image | None:
    dev = images.ensure_dev(s.workshop)
    reader = reader_recipe(s, prod.tag, dev)
    bench = Bench(s, source, reader.tag, image_inputs(s, dev))
    start = time.monotonic()
    stale = [page for page in chosen if not receipts.read(bench.receipt(page), bench.key(page))]
    if (stale or chosen == pages) and reader.tag not in engine.inspect_images(reader.tag):
        console.say("adding what the book needs to the production image (once, 300 MB are fetched)")
        fix = (
            "check mirrors.pip in invoke.yaml: the wheels of requirements-book.txt are fetched once"
        )
        images.build_image(s.workshop, reader, fix=fix)
    for page in chosen:
        execute(bench, page)
    if chosen != pages:
        for page in chosen:
            console.say(f"the notebook: {s.shown(bench.executed / page.name / 'index.ipynb')}")
        return None
    notebooks = edition(bench, pages)
    return _image(s, recipe(s, prod.tag, dev, notebooks), bench, start)


def _image(s: Site, made: Recipe, bench: Bench, start: float) -> Image:
    """The book's image, built unless it is here already and nothing changed."""
    alias = alias_of(s.tree)
    budget = s.workshop.settings.budgets.book_mb
    receipt_file = receipt_of(s.workshop, s.tree.project.name)
    here = engine.inspect_images(made.tag)
    known = receipts.read(receipt_file, made.tag)
    if made.tag in here and known and int(here[made.tag]["Size"]) <= budget * 1e6:
        production.name(s.workshop, made.tag, alias)
        console.say(f"{alias} is unchanged since {console.moment(known.made_at)}")
        size = int(here[made.tag]["Size"])
        return Image(made.tag, alias, size, known.made_at, fresh=False)
    images.build_image(s.workshop, made)
    if s.workshop.dry:
        return Image(made.tag, alias, 0, 0, fresh=True)
    size = images.check_budget(s.workshop, made.tag, budget, "budgets.book_mb in invoke.yaml")
    production.name(s.workshop, made.tag, alias)
    before = receipts.facts(receipt_file)
    facts = {"tag": made.tag, "alias": alias, "reader": bench.reader}
    receipt = receipts.write(receipt_file, made.tag, facts)
    # One book takes more than a gigabyte, of which each commit would leave another.
    kept = manifest.kept_images(s.workshop.root / "dist")
    for name in ("alias", "tag", "reader"):
        if before.get(name) and before[name] != facts[name] and before[name] not in kept:
            images.remove(str(before[name]))
    console.say(
        f"{console.bold('made')} image {alias}, {console.megabytes(size)} of {budget} MB, "
        f"{console.seconds(time.monotonic() - start)} for the book in all"
    )
    return Image(made.tag, alias, size, receipt.made_at, fresh=True)


def book(workshop: Workshop, chapter: str, project: str) -> None:
    """What ``invoke book`` does: build, package and make the production image; then the book."""
    from slipway import packages

    if not workshop.settings.book:
        raise SlipwayError(
            "the settings name no book",
            fix=["write book: DIRECTORY into invoke.yaml, with the directory of its chapters"],
            code=BAD_CONFIG,
        )
    source = directory_of(workshop)
    pages = pages_of(source)
    chosen = choose(pages, chapter)
    # Mistakes that can be seen at once are not told after minutes.
    check_pages(source, chosen, lambda path: console.shown(path, workshop.root))
    for site in builds.sites(workshop, VARIANT, project, "", CONTAINER):
        with site.locked("book"):
            builds.build(site)
            make(site, production.prod(site, packages.deb(site)), chapter)

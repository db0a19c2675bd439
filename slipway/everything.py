"""``invoke all``: the whole main job, and a table of what came of it."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import dataclass, field

from slipway import (
    book,
    builds,
    console,
    engine,
    gpu,
    images,
    packages,
    production,
    reading,
    receipts,
    setup,
    testing,
)
from slipway.builds import Site
from slipway.errors import BAD_DATA, UNAVAILABLE, SlipwayError
from slipway.images import fingerprint
from slipway.project import resolve
from slipway.settings import Workshop


@dataclass
class Summary:
    """Rows of the closing table, and what could not be made."""

    rows: list[list[str]] = field(
        default_factory=lambda: [["STEP", "VARIANT", "RESULT", "SIZE", "TOOK"]]
    )
    not_made: list[str] = field(default_factory=list)
    is_untested: bool = False

    def add(self, step: str, variant: str, result: str, size: float, start: float) -> None:
        """One step, with the seconds since ``start``; an unchanged one says so in its result."""
        took = console.seconds(time.monotonic() - start)
        self.rows.append([step, variant, result, console.megabytes(size) if size else "", took])


def everything(
    workshop: Workshop, variant: str, project: str, source: str, wanted: str, *, yes: bool
) -> None:
    """Compile, test, package and run a tree; images too where an engine runs.

    :param variant: what ``--variant`` says; empty: the settings' ``default_variants``.
    :param wanted: what ``--engine`` says.
    :param yes: install what is missing without asking.
    """
    begin = time.monotonic()
    tree = resolve(workshop, project, source)
    defaults = [v for v in workshop.settings.default_variants if v in tree.variants]
    variants = tree.choose(variant, defaults)
    links = builds.links_out(tree.source, builds.not_source(workshop, tree.source))
    place, why_in_place = setup.ensure_place(workshop, wanted=wanted, yes=yes)
    mode = gpu.wanted(workshop, "")
    gpu.demand(workshop, mode, place)
    summary = Summary()
    contained = isinstance(place, engine.Docker)
    summary.add("set up", "all", "docker" if contained else f"in place: {why_in_place}", 0, begin)
    with production.warm_up(workshop, tree, variants) if contained else nullcontext():
        image = ""
        if contained:
            start = time.monotonic()
            image = images.ensure_dev(workshop)
            size = 0 if workshop.dry else int(engine.inspect_images(image)[image]["Size"])
            summary.add("dev image", "all", image, size, start)
        seen = {image}
        chapters: list[tuple[Site, production.Image]] = []
        for name in variants:
            inside = image
            if contained:
                start = time.monotonic()
                inside = builds.project_image(workshop, tree, name, image)
                if inside not in seen:
                    seen.add(inside)
                    size = 0 if workshop.dry else int(engine.inspect_images(inside)[inside]["Size"])
                    summary.add("its image", name, inside, size, start)
            answer = gpu.decide(workshop, mode, place, inside, tree.variants[name])
            site = Site(workshop, tree, name, place, inside, links, answer)
            made = _one(site, summary)
            if name == book.VARIANT and book.has_book(workshop, tree):
                if made:
                    chapters.append((site, made))
                else:
                    summary.not_made.append(f"the book {reading.alias_of(tree)}")
        for site, made in chapters:
            _book(site, made, summary)
    if workshop.dry:
        return
    console.say()
    console.table(summary.rows)
    console.say(f"everything: {console.seconds(time.monotonic() - begin)}")
    if summary.is_untested:
        raise SlipwayError(
            f"all of that was made, and nothing tested: {tree.file} names no tests",
            cause="CTest, test.pytest, test.commands and test.installed are what they could be",
            fix=["name some under test in project.yaml; docs/your-own-library.md shows how"],
            code=BAD_DATA,
        )
    if summary.not_made:
        raise SlipwayError(
            f"not made: {', '.join(summary.not_made)}",
            cause=f"no container engine: {why_in_place}",
            fix=["./go invoke all, where an engine can run"],
            code=UNAVAILABLE,
        )


def _book(site: Site, image: production.Image, summary: Summary) -> None:
    """The book, at the end: what fails in a chapter keeps nobody from the library."""
    start = time.monotonic()
    with site.locked("all"):
        made = book.make(site, image)
    if made:
        result = _since(made.alias, made.fresh, made.made_at)
        summary.add("book", site.variant, result, made.size, start)


def _one(site: Site, summary: Summary) -> production.Image | None:
    """Every step of one variant; its image, where one was made."""
    with site.locked("all"):
        start = time.monotonic()
        built = builds.build(site)
        if site.tree.wheel:
            summary.add("build", site.variant, "a prebuilt wheel: nothing to compile", 0, start)
        else:
            summary.add("build", site.variant, f"{site.shown(site.build)}, {built.cache}", 0, start)
        if testing.has_tests(site.tree):
            start = time.monotonic()
            summary.add("test", site.variant, _tests(site), 0, start)
        start = time.monotonic()
        deb = packages.deb(site)
        size = deb.file.stat().st_size if deb.file.is_file() else 0
        summary.add(
            "deb", site.variant, _since(site.shown(deb.file), deb.fresh, deb.made_at), size, start
        )
        alias = production.alias_of(site.tree, site.variant)
        if not isinstance(site.place, engine.Docker):
            summary.not_made.append(f"image {alias}")
            return None
        start = time.monotonic()
        image = production.prod(site, deb)
        result = _since(alias, image.fresh, image.made_at)
        summary.add("image", site.variant, result, image.size, start)
        start = time.monotonic()
        summary.add("run", site.variant, _run(site, image), 0, start)
        if site.tree.project.test.installed:
            start = time.monotonic()
            summary.add("test image", site.variant, _image_tests(site, image), 0, start)
        elif not testing.has_tests(site.tree):
            summary.is_untested = True
        return image


def _since(what: str, fresh: bool, made_at: float) -> str:
    return what if fresh else f"{what}, unchanged since {console.moment(made_at)}"


def _tests(site: Site) -> str:
    """Run the tests unless they passed with the very same inputs; then that is what is said."""
    file = site.out / "receipts" / "test.json"
    # With another GPU, or with one at last, other tests run.
    seen = [[device.name, device.capability] for device in site.gpu.devices]
    options = site.tree.options(site.variant)
    inputs = fingerprint(builds.inputs_of(site, "test"), options, seen, site.gpu.demanded)
    known = receipts.read(file, inputs)
    if known:
        since = f"unchanged since {console.moment(known.made_at)}"
        console.say(
            f"tests of {site.title}: {since}, {known.facts['executed']} passed then, none run now"
        )
        if known.facts.get("without_gpu"):
            since += f", {known.facts['without_gpu']} GPU tests never"
        return f"{since}, none run now"
    result = testing.test_built(site)
    if not site.workshop.dry:
        facts = {"executed": result.executed, "without_gpu": len(result.without_gpu)}
        receipts.write(file, inputs, facts)
    return result.summary


def _image_tests(site: Site, image: production.Image) -> str:
    """Run the tests of what is installed, unless they passed with the very same image."""
    file = site.out / "receipts" / "test-image.json"
    home = site.tree.file.parent
    tests = [receipts.tree_fingerprint(home / path) for path in site.tree.project.test.installed]
    seen = [[device.name, device.capability] for device in site.gpu.devices]
    inputs = fingerprint(image.tag, tests, seen, site.gpu.demanded)
    known = receipts.read(file, inputs)
    if known:
        return f"unchanged since {console.moment(known.made_at)}, none run now"
    result = testing.test_image(site, image)
    if not site.workshop.dry:
        receipts.write(file, inputs, {"executed": result.executed})
    return f"{result.executed} tests executed in {image.alias}"


def _run(site: Site, image: production.Image) -> str:
    """Start the image as a user of no passwd file, to see that the library runs in it."""
    file = site.out / "receipts" / "run.json"
    known = receipts.read(file, image.tag)
    if known:
        return f"unchanged since {console.moment(known.made_at)}"
    status = production.about(site.workshop, image.tag)
    if status:
        raise SlipwayError(
            f"{image.alias} does not run: status {status}",
            cause="its words are above",
            fix=[f"docker run --rm -it {image.alias} bash"],
            code=status,
        )
    if not site.workshop.dry:
        receipts.write(file, image.tag, {})
    return f"docker run {image.alias}"

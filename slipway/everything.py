"""``invoke all``: the whole main job, and a table of what came of it."""

from __future__ import annotations

import time
from contextlib import nullcontext

from slipway import (
    book,
    builds,
    console,
    engine,
    gpu,
    images,
    podman,
    production,
    reading,
    setup,
    steps,
    testing,
)
from slipway.builds import Site
from slipway.errors import BAD_DATA, UNAVAILABLE, SlipwayError
from slipway.project import resolve
from slipway.settings import Workshop
from slipway.steps import Summary


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
    not_made: list[str] = []
    is_untested = False
    contained = isinstance(place, engine.Docker)
    summary.add(
        "set up", "all", podman.name() if contained else f"in place: {why_in_place}", 0, begin
    )
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
            with site.locked("all"):
                made = steps.make(site, summary)
            if not made.image:
                not_made.append(f"image {production.alias_of(tree, name)}")
            elif not (tree.project.test.installed or testing.has_tests(tree)):
                is_untested = True
            if name == book.VARIANT and book.has_book(workshop, tree):
                if made.image:
                    chapters.append((site, made.image))
                else:
                    not_made.append(f"the book {reading.alias_of(tree)}")
        # The book is at the end: what fails in a chapter keeps nobody from the library.
        for site, read_in in chapters:
            with site.locked("all"):
                steps.make_book(site, read_in, summary)
    if workshop.dry:
        return
    console.say()
    console.table(summary.rows)
    console.say(f"everything: {console.seconds(time.monotonic() - begin)}")
    if is_untested:
        raise SlipwayError(
            f"all of that was made, and nothing tested: {tree.file} names no tests",
            cause="CTest, test.pytest, test.commands and test.installed are what they could be",
            fix=["name some under test in project.yaml; docs/your-own-library.md shows how"],
            code=BAD_DATA,
        )
    if not_made:
        raise SlipwayError(
            f"not made: {', '.join(not_made)}",
            cause=f"no container engine: {why_in_place}",
            fix=["./go invoke all, where an engine can run"],
            code=UNAVAILABLE,
        )

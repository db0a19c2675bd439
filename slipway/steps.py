"""The steps that a tree goes through, for ``all`` and for a release, and what came of them.

A test is run unless a receipt says that it passed with the very same inputs; then that is said.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from slipway import book, builds, console, engine, packages, podman, production, receipts, testing
from slipway.builds import Site
from slipway.errors import SlipwayError
from slipway.images import file_hash, fingerprint
from slipway.manifest import Step, TestRun
from slipway.packages import Deb
from slipway.production import Image
from slipway.project import Tree
from slipway.records import Record
from slipway.testing import Tested


class Thing(Protocol):
    """What a step makes, or finds unchanged."""

    @property
    def fresh(self) -> bool:
        """Made by this very call."""

    @property
    def made_at(self) -> float:
        """Seconds since 1970."""


class Passed(Record, frozen=True):
    """Tests that passed, now or before."""

    executed: int
    not_run: tuple[str, ...]
    """By name, for want of a GPU."""
    summary: str
    """What the run said of itself; empty where none was needed."""
    made_at: float
    """Seconds since 1970: when they were executed."""
    fresh: bool
    """Executed by this very call."""

    def said(self, now: str) -> str:
        """A cell of the closing table: ``now`` of what was run now, else since when it stands."""
        if self.fresh:
            return now
        gpu = f", {len(self.not_run)} GPU tests never" if self.not_run else ""
        return f"unchanged since {console.moment(self.made_at)}{gpu}, none run now"


@dataclass
class Summary:
    """What was done, as rows of the closing table and as a manifest has it."""

    rows: list[list[str]] = field(
        default_factory=lambda: [["STEP", "VARIANT", "RESULT", "SIZE", "TOOK"]]
    )
    steps: list[Step] = field(default_factory=list)
    tests: list[TestRun] = field(default_factory=list)

    def add(
        self,
        step: str,
        variant: str,
        result: str,
        size: float,
        start: float,
        *,
        is_unchanged: bool = False,
    ) -> None:
        """One step, with the seconds since ``start``; an unchanged one says so in its result."""
        took = time.monotonic() - start
        cells = [step, variant, result, console.megabytes(size) if size else ""]
        self.rows.append([*cells, console.seconds(took)])
        self.steps.append(Step(step, variant, took, is_unchanged))

    def made(
        self, step: str, variant: str, what: str, thing: Thing, size: float, start: float
    ) -> None:
        """A step that made a thing, or found it unchanged."""
        said = what if thing.fresh else f"{what}, unchanged since {console.moment(thing.made_at)}"
        self.add(step, variant, said, size, start, is_unchanged=not thing.fresh)

    def passed(self, step: str, s: Site, what: str, run: Passed, now: str, start: float) -> None:
        """Tests that passed.

        :param what: where they ran, as ``TestRun.what`` has it.
        :param now: the cell of the table if they were run now.
        """
        self.add(step, s.variant, run.said(now), 0, start, is_unchanged=not run.fresh)
        self.tests.append(TestRun(what, s.variant, run.executed, run.not_run, run.made_at))


class Made(Record, frozen=True):
    """What came of the steps of one variant."""

    deb: Deb
    image: Image | None
    """None where no engine runs."""


def make(s: Site, summary: Summary) -> Made:
    """Compile, test and package a variant; where an engine runs make its image and start it."""
    start = time.monotonic()
    built = builds.build(s)
    if s.tree.wheel:
        summary.add("build", s.variant, "a prebuilt wheel: nothing to compile", 0, start)
    else:
        result = f"{s.shown(s.build)}, {built.cache}"
        summary.add("build", s.variant, result, 0, start, is_unchanged=not built.cache.compiled)
    if testing.has_tests(s.tree):
        start = time.monotonic()
        run = built_tests(s)
        summary.passed("test", s, "built", run, run.summary, start)
    start = time.monotonic()
    deb = packages.deb(s)
    size = deb.file.stat().st_size if deb.file.is_file() else 0
    summary.made("deb", s.variant, s.shown(deb.file), deb, size, start)
    if not isinstance(s.place, engine.Docker):
        return Made(deb, None)
    start = time.monotonic()
    image = production.prod(s, deb)
    summary.made("image", s.variant, image.alias, image, image.size, start)
    start = time.monotonic()
    since = started(s, image)
    said = (
        f"unchanged since {console.moment(since)}"
        if since
        else f"{podman.name()} run {image.alias}"
    )
    summary.add("run", s.variant, said, 0, start, is_unchanged=bool(since))
    if s.tree.project.test.installed:
        test_image(s, image, summary)
    return Made(deb, image)


def test_image(s: Site, image: Image, summary: Summary) -> None:
    """Run the tests of what is installed in the production image."""
    start = time.monotonic()
    run = image_tests(s, image)
    now = f"{run.executed} tests executed in {image.alias}"
    summary.passed("test image", s, "image", run, now, start)


def make_book(s: Site, image: Image, summary: Summary) -> Image | None:
    """The book, which is read in the production image of a site."""
    start = time.monotonic()
    made = book.make(s, image)
    if made:
        summary.made("book", s.variant, made.alias, made, made.size, start)
    return made


# -- tests, unless a receipt says that they passed


def built_tests(s: Site) -> Passed:
    """The tests where a site was built."""
    options = s.tree.options(s.variant)
    inputs = fingerprint(builds.inputs_of(s, "test"), options, *_gpu(s))
    run = unless_known(s, "test", inputs, lambda: testing.test_built(s))
    if not run.fresh:
        since = f"unchanged since {console.moment(run.made_at)}"
        console.say(f"tests of {s.title}: {since}, {run.executed} passed then, none run now")
    return run


def image_tests(s: Site, image: Image) -> Passed:
    """The tests of what is installed, in the production image."""
    inputs = fingerprint(image.tag, _installed(s.tree), *_gpu(s))
    return unless_known(s, "test-image", inputs, lambda: testing.test_image(s, image))


def emulated_tests(s: Site, image: Image, cpu: str) -> Passed:
    """All tests in the production image, on a CPU that is emulated."""
    from slipway import emulation  # which `all` need not load

    kit = [file_hash(s.workshop.scripts / name) for name in emulation.SCRIPTS]
    # C++ tests are not in the image, but where it was built.
    inputs = fingerprint(image.tag, cpu, kit, builds.inputs_of(s, "test"), _installed(s.tree))
    return unless_known(s, "test-emulated", inputs, lambda: emulation.test(s, cpu, "", ()))


def started(s: Site, image: Image) -> float:
    """Start the image as a user of no passwd file, to see that the library runs in it.

    :return: when that was seen before, in seconds since 1970; 0: it was started now.
    """
    file = s.out / "receipts" / "run.json"
    known = receipts.read(file, image.tag)
    if known:
        return known.made_at
    status = production.about(s.workshop, image.tag)
    if status:
        raise SlipwayError(
            f"{image.alias} does not run: status {status}",
            cause="its words are above",
            fix=[f"{podman.name()} run --rm -it {image.alias} bash"],
            code=status,
        )
    if not s.workshop.dry:
        receipts.write(file, image.tag, {})
    return 0


def _gpu(s: Site) -> tuple[object, ...]:
    """With another GPU, or with one at last, other tests run."""
    seen = [[device.name, device.capability] for device in s.gpu.devices]
    return seen, s.gpu.demanded


def _installed(tree: Tree) -> list[str]:
    """Changes with the tests that run in the image."""
    if not testing.has_installed(tree):
        return []
    wanted = testing.installed(tree)
    paths = (*wanted.tests, *(path.parent for path, _ in wanted.scripts))
    return [receipts.tree_fingerprint(path) for path in paths]


def unless_known(s: Site, name: str, inputs: str, run: Callable[[], Tested]) -> Passed:
    """Run tests, unless a receipt of that name says that they passed with the same inputs."""
    file = s.out / "receipts" / f"{name}.json"
    known = receipts.read(file, inputs)
    if known:
        executed, not_run = known.facts["executed"], tuple(known.facts.get("not_run", ()))
        return Passed(executed, not_run, "", known.made_at, fresh=False)
    result = run()
    made_at = 0.0
    if not s.workshop.dry:
        facts = {"executed": result.executed, "not_run": [*result.without_gpu]}
        made_at = receipts.write(file, inputs, facts).made_at
    return Passed(result.executed, result.without_gpu, result.summary, made_at, fresh=True)

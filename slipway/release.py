"""``invoke release``: one tag, every artifact; look, print the plan, ask, act, look again.

What is released is a commit, cloned below ``out/release/PROJECT``, which has an ``out/`` and a
``dist/`` of its own: by the receipts there a second run goes on where the first one ended. What is
finished is put together in ``staged/``, and comes to the checkout's ``dist/`` as a whole.
"""

from __future__ import annotations

import shlex
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from msgspec.structs import replace
from packaging.version import Version as Pep440

from slipway import (
    aptrepo,
    audit,
    base,
    book,
    builds,
    bundle,
    checkouts,
    console,
    documentation,
    engine,
    gpu,
    images,
    isa,
    locks,
    manifest,
    outputs,
    processes,
    production,
    push,
    receipts,
    report,
    sbom,
    setup,
    signing,
    steps,
    testing,
    wheels,
)
from slipway.builds import Site
from slipway.errors import IO_ERROR, SlipwayError
from slipway.fetched import sha256
from slipway.images import file_hash, fingerprint
from slipway.layers import released_image
from slipway.manifest import File, Isa, Manifest, ReleasedImage, TestRun
from slipway.plan import (
    ROOM_FOR_IT,
    ROOM_TO_BUILD,
    Origin,
    Plan,
    Wanted,
    check_room,
    command,
    emulated_cpu,
    finished,
    home_of,
    look,
    lost_images,
    told,
)
from slipway.production import Image
from slipway.project import Tree, resolve
from slipway.settings import Workshop
from slipway.steps import Summary
from slipway.versions import renamed

TOOLS = ("gcc", "cmake", "ninja-build", "mold", "dpkg-dev", "python3")  # of the dev image


# -- deciding: pure functions


def found_by_audit(name: str, variant: str, level: str, judged: Sequence[audit.Judged]) -> Isa:
    """A row of the ISA table: the files of ours in a package or image."""
    verdicts = [j.file.verdict for j in judged if not j.owner and j.file.verdict]
    return Isa(
        name=name,
        variant=variant,
        allowed=level,
        found=max((v.level for v in verdicts), key=isa.LEVELS.index, default=""),
        files=len(verdicts),
        instructions=sum(
            use.count
            for verdict in verdicts
            for extension, use in verdict.extensions.items()
            if isa.LEVEL_OF.get(extension) != isa.LEVELS[0]
        ),
    )


# -- acting


def release(workshop: Workshop, wanted: Wanted) -> None:
    """What ``invoke release`` does."""
    begin = time.monotonic()
    plan = look(workshop, wanted)
    done, state = finished(plan)
    shown = console.shown(plan.target, workshop.root)
    again = "" if wanted.yes else f"{command(wanted)} --yes"
    if done and (not plan.key or signing.is_signed(plan.target / manifest.SUMS, plan.key)):
        console.say(f"{shown} is unchanged since {console.moment(done.made_at)}: nothing to do")
    else:
        for line in told(plan, "only to be signed" if done else state, shown):
            console.say(line)
        home = home_of(workshop, plan.project)
        check_room(home, ROOM_TO_BUILD)
        check_room(workshop.dist, ROOM_FOR_IT)
        if workshop.dry:
            return
        if not (plan.is_rehearsal or not again or setup.is_agreed(again)):
            fix = [f"{command(wanted)}, when you are ready"]
            raise SlipwayError("nothing was released", fix=fix)
        again = ""
        outputs.make(home, workshop.out)
        with locks.held(home, "release"):
            act(workshop, plan, home, done)
        look_again(plan)
        verb = console.bold("rehearsed" if plan.is_rehearsal else "released")
        console.say(f"{verb} {shown}, {console.seconds(time.monotonic() - begin)}")
    tell_checks(plan, shown)
    make_more(workshop, plan, wanted)
    if plan.registries:
        push.push_release(workshop, manifest.read(plan.target), again)


def act(workshop: Workshop, plan: Plan, home: Path, done: Manifest | None) -> None:
    """Make it, or only sign what is there.

    :param done: what is there, if it is whole.
    """
    if done and plan.key:
        signing.sign(plan.target / manifest.SUMS, plan.key)
        return
    summary = make(workshop, plan, home)
    publish(outputs.make(home / "staged", workshop.out) / plan.target.name, plan.target)
    console.say()
    console.table(summary.rows)


def make_more(workshop: Workshop, plan: Plan, wanted: Wanted) -> None:
    """What is made of a release that is there, where a flag asks for it."""
    dist = workshop.dist
    if wanted.bundle:
        bundle.make(workshop, plan.target, dist / f"{plan.target.name}-bundle.tar")
    if wanted.apt_repo:
        target = dist / ("apt-rehearsals" if plan.is_rehearsal else "apt")
        aptrepo.make(workshop, dist, target, wanted.sign, rehearsals=plan.is_rehearsal)


def check_out(shop: Workshop, home: Path, origin: Origin, version: str) -> Tree:
    """A clone of the repository at the commit, under the version of the release."""
    clone = home / "source"
    if checkouts.clone_at(shop, origin.top, origin.commit, clone):
        # Of another commit's build directory nothing gets into a package; ccache has the rest.
        for stale in (*shop.out.glob("*/*/build"), *shop.dist.glob("*")):
            shutil.rmtree(stale)

    def there(path: Path) -> Path:
        return clone / path.relative_to(origin.top) if path.is_relative_to(origin.top) else path

    tree = resolve(shop, str(there(origin.file)), str(there(origin.source)))
    return replace(tree, version=renamed(tree.version, Pep440(version)))


def sites_of(shop: Workshop, tree: Tree) -> list[Site]:
    """Every variant of a tree, each with the image that it is built in."""
    dev = images.ensure_dev(shop)
    links = builds.links_out(tree.source, builds.not_source(shop, tree.source))
    place = engine.Docker(shop)
    return [
        Site(shop, tree, name, place, builds.project_image(shop, tree, name, dev), links)
        for name in tree.variants
    ]


@dataclass
class Parts:
    """What has been made of all variants."""

    files: list[tuple[Path, str, str]] = field(default_factory=list)
    """Path, kind and variant of packages and wheels."""
    images: dict[str, Image] = field(default_factory=dict)
    released: list[ReleasedImage] = field(default_factory=list)
    isa: list[Isa] = field(default_factory=list)


def make(workshop: Workshop, plan: Plan, home: Path) -> Summary:
    """Make, test and audit every variant, the book and the documentation; put all of it together.

    What is finished lies in ``staged/`` then, and nothing of it in ``dist/`` yet.
    """
    shop = replace(workshop, home=home)
    tree = check_out(shop, home, plan.origin, plan.version)
    summary, parts = Summary(), Parts()
    mode = gpu.wanted(shop, "")
    with production.warm_up(shop, tree, list(tree.variants)):
        sites = sites_of(shop, tree)
        for s in sites:
            answer = gpu.decide(shop, mode, s.place, s.image, tree.variants[s.variant])
            with s.locked("release"):
                make_one(replace(s, gpu=answer), summary, parts)
    for s in sites:
        if s.variant == book.VARIANT and plan.has_book:
            with s.locked("release"):
                made = steps.make_book(s, parts.images[s.variant], summary)
            if made:
                parts.released.append(released_image(made, "book", s.variant))
    docs = make_docs(sites[0], summary) if plan.has_docs else None
    staged = home / "staged" / plan.target.name
    shutil.rmtree(staged.parent, ignore_errors=True)
    outputs.make(staged, workshop.out)
    assemble(staged, plan, parts, docs, sites[0], summary)
    return summary


def make_one(s: Site, summary: Summary, parts: Parts) -> None:
    """Every step of one variant."""
    made = steps.make(s, summary)
    image = made.image
    if image is None:
        raise AssertionError("a release runs where an engine is")
    if testing.has_installed(s.tree) and not s.tree.project.test.installed:
        steps.test_image(s, image, summary)
    debs = [made.deb.file, *([made.deb.dev] if made.deb.dev else [])]
    packed = [(deb, "deb", s.variant) for deb in debs]
    if wheels.has_modules(made.deb.file):
        start = time.monotonic()
        wheel = wheels.wheel(s, made.deb.file)
        size = wheel.file.stat().st_size
        summary.made("wheel", s.variant, s.shown(wheel.file), wheel, size, start)
        summary.tests.append(TestRun("wheel", s.variant, wheel.executed, (), wheel.made_at))
        packed.append((wheel.file, "wheel", s.variant))
    cpu = emulated_cpu(s.tree.variants[s.variant])
    if cpu and (testing.has_ctest(s.tree) or testing.has_installed(s.tree)):
        start = time.monotonic()
        run = steps.emulated_tests(s, image, cpu)
        now = f"{run.executed} tests executed on an emulated {cpu}"
        summary.passed("emulated", s, f"emulated on {cpu}", run, now, start)
    start = time.monotonic()
    rows, is_unchanged = audited(s, [file for file, _, _ in packed], image)
    said = f"{len(rows)} audited, {rows[-1].allowed} allowed, {rows[-1].found} found"
    summary.add("audit", s.variant, said, 0, start, is_unchanged=is_unchanged)
    parts.files += packed
    parts.images[s.variant] = image
    parts.released.append(released_image(image, "prod", s.variant))
    parts.isa += rows


def audited(s: Site, files: Sequence[Path], image: Image) -> tuple[list[Isa], bool]:
    """The ISA table of a variant, and whether it was known."""
    rules = receipts.code_of("isa", "audit", "release")
    inputs = fingerprint(
        [file_hash(f) for f in files], image.tag, rules, s.tree.project.audit.allow
    )
    receipt = s.out / "receipts" / "isa.json"
    known = receipts.read(receipt, inputs)
    if known:
        return msgspec.convert(known.facts["rows"], list[Isa]), True
    found = [(file.name, audit.check_deb(s, file)) for file in files]
    found.append((image.alias, audit.check_image(s, image.tag)))
    level = audit.level_of(s.tree, s.variant)
    rows = [found_by_audit(name, s.variant, level, judged) for name, judged in found if judged]
    receipts.write(receipt, inputs, {"rows": msgspec.to_builtins(rows)})
    return rows, False


def make_docs(s: Site, summary: Summary) -> Path:
    """The documentation; its directory."""
    start = time.monotonic()
    page = documentation.make(s, images.ensure_docs(s.workshop, images.ensure_dev(s.workshop)))
    summary.add("docs", s.variant, s.shown(page), 0, start)
    return page.parent


def assemble(
    staged: Path, plan: Plan, parts: Parts, docs: Path | None, s: Site, summary: Summary
) -> None:
    """Put the release together: files, manifest, checksums, signature."""
    files = []
    for file, kind, variant in parts.files:
        shutil.copyfile(file, staged / file.name)
        files.append(entry(staged, staged / file.name, kind, variant))
    if docs:
        copy_all(docs, staged / "docs")
        files += [entry(staged, f, "docs") for f in receipts.files_below(staged / "docs")]
    release = Manifest(
        project=plan.project,
        version=plan.version,
        tag=plan.tag,
        commit=plan.origin.commit,
        epoch=s.tree.version.epoch,
        is_rehearsal=plan.is_rehearsal,
        made_at=time.time(),
        variants=tuple(s.tree.variants),
        files=tuple(files),
        images=tuple(parts.released),
        tests=tuple(summary.tests),
        isa=tuple(parts.isa),
        steps=tuple(summary.steps),
        tools=tools(s.workshop, s.image, plan.slipway),
        base=base.ensure_base(s.workshop).identity,
    )
    start = time.monotonic()
    bills = sbom.make(s.workshop, staged, release)
    summary.add("sbom", "all", f"{len(bills)} bills of materials", 0, start)
    files += [entry(staged, bill, "sbom") for bill in bills]
    release = replace(release, files=tuple(files), steps=tuple(summary.steps))
    before = last_before(plan.target.parent, release)
    page = staged / report.NAME
    receipts.write_whole(page, report.page(staged, release, *(before or (None, None))))
    files.append(entry(staged, page, "report"))
    manifest.write(staged, replace(release, files=tuple(files)))
    sums = manifest.write_sums(staged)
    if plan.key:
        signing.sign(sums, plan.key)


def entry(staged: Path, file: Path, kind: str, variant: str = "") -> File:
    """A file of a release, as its manifest has it."""
    name = file.relative_to(staged).as_posix()
    return File(name, kind, variant, file.stat().st_size, sha256(file))


def last_before(dist: Path, release: Manifest) -> tuple[Manifest, Path] | None:
    """The release that a report compares with: the highest below, rehearsals aside."""
    found = [
        (one, place)
        for place, one in manifest.releases_in(dist, release.project).items()
        if not one.is_rehearsal and Pep440(one.version) < Pep440(release.version)
    ]
    return max(found, key=lambda item: Pep440(item[0].version), default=None)


def tools(workshop: Workshop, dev: str, slipway: str) -> dict[str, str]:
    """Name to version of what decides which bytes are made."""
    run = ["run", "--rm", "--network", "none", "--label", f"{engine.LABEL}={workshop.checkout}"]
    query = ["dpkg-query", "--show", "--showformat", "${Package} ${Version}\\n", *TOOLS]
    rows = engine.ask([*run, dev, *query], "ask the dev image for its tools").splitlines()
    own = {"slipway": slipway, "docker": str(engine.info()["ServerVersion"])}
    return {**own, **dict(map(str.split, rows))}


def copy_all(top: Path, target: Path) -> None:
    """Copy the files of a directory; what goes wrong is the system's own error, with its number."""
    for file in receipts.files_below(top):
        copy = target / file.relative_to(top)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)


def publish(staged: Path, target: Path) -> None:
    """Bring a finished release to ``dist/``, whole or not at all, on whichever disk that is."""
    beside = target.with_name(f".{target.name}")
    old = target.with_name(f".{target.name}.before")
    outputs.make(target.parent, target.parent)

    def undo() -> None:
        shutil.rmtree(beside, ignore_errors=True)
        if old.exists() and not target.exists():
            old.rename(target)

    undo()  # what a run has left that was killed
    shutil.rmtree(old, ignore_errors=True)
    with processes.undone(undo):
        copy_all(staged, beside)
        if target.exists():
            target.rename(old)
        beside.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def look_again(plan: Plan) -> None:
    """Hold what lies in ``dist/`` to its checksums, its signature and the engine's images."""
    problems = [*manifest.damage(plan.target), *lost_images(manifest.read(plan.target))]
    if plan.key and not signing.is_signed(plan.target / manifest.SUMS, plan.key):
        problems.append(f"{manifest.SUMS}{plan.key.suffix} does not fit")
    if problems:
        raise SlipwayError(
            f"what lies in {plan.target} is not what was made",
            cause="\n".join(problems),
            fix=["the same command again, which makes it anew"],
            code=IO_ERROR,
        )


def tell_checks(plan: Plan, shown: str) -> None:
    """How others check what they have got."""
    console.say(f"check: (cd {shlex.quote(shown)} && sha256sum --check --quiet {manifest.SUMS})")
    if plan.key:
        console.say(f"and in there: {signing.check_command(manifest.SUMS, plan.key)}")

"""``invoke release``: one tag, every artifact; look, print the plan, ask, act, look again.

What is released is a commit, cloned below ``out/release/PROJECT``, which has an ``out/`` and a
``dist/`` of its own: by the receipts there a second run goes on where the first one ended. What is
finished is put together in ``staged/``, and comes to the checkout's ``dist/`` as a whole.
"""

from __future__ import annotations

import shlex
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import msgspec
from msgspec.structs import replace
from packaging.version import Version as Pep440

from slipway import (
    audit,
    base,
    book,
    builds,
    checkouts,
    console,
    doctor,
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
    receipts,
    setup,
    signing,
    steps,
    testing,
    wheels,
)
from slipway.builds import Site
from slipway.errors import (
    BAD_CONFIG,
    BAD_DATA,
    CANNOT_CREATE,
    IO_ERROR,
    NO_INPUT,
    USAGE,
    SlipwayError,
    nearest,
)
from slipway.images import file_hash, fingerprint
from slipway.layers import released_image
from slipway.manifest import File, Isa, Manifest, ReleasedImage, TestRun
from slipway.production import Image
from slipway.project import Tree, resolve
from slipway.records import Record
from slipway.settings import Workshop
from slipway.steps import Summary
from slipway.variants import Variant
from slipway.versions import (
    ask_git,
    declared_version,
    parse_release,
    read_commit,
    rehearsed,
    renamed,
    version_of,
)

# Bytes that are free at the least; Oar's builds of four variants take 150 MB, its release 30.
ROOM_TO_BUILD, ROOM_FOR_IT = 500_000_000, 100_000_000
EMULATED = {"x86-64-v2": "Nehalem"}  # the oldest CPU of a level that hardly a builder is
TAGS = "--format=%(refname:strip=2) %(objecttype) %(objectname) %(*objecttype) %(*objectname)"
TOOLS = ("gcc", "cmake", "ninja-build", "mold", "dpkg-dev", "python3")  # of the dev image


class Wanted(Record, frozen=True):
    """What the flags say."""

    tag: str = ""
    is_rehearsal: bool = False
    yes: bool = False
    sign: str = ""


class Tag(Record, frozen=True):
    """A tag that names a release."""

    name: str
    version: Pep440
    commit: str
    """Empty: it is on something else than a commit."""
    is_annotated: bool


class Origin(Record, frozen=True):
    """Where a release is made from."""

    top: Path
    """The repository."""
    commit: str
    file: Path
    """project.yaml: in the repository, else it is taken as it stands."""
    source: Path


class Plan(Record, frozen=True):
    """What is about to be done."""

    origin: Origin
    project: str
    version: str
    tag: str
    """Empty for a rehearsal."""
    before: str
    """The release tag before it."""
    variants: Mapping[str, Variant]
    has_book: bool
    has_docs: bool
    target: Path
    """``dist/PROJECT-VERSION``."""
    key: signing.Key | None
    slipway: str
    """The version of what makes it."""

    @property
    def is_rehearsal(self) -> bool:
        """Whether it is one that is never published."""
        return not self.tag


# -- deciding: pure functions


def parse_tags(lines: Iterable[str]) -> list[Tag]:
    """The tags that name releases, of what ``git for-each-ref`` with ``TAGS`` lists."""
    found = []
    for name, kind, first, *peeled in (line.split() for line in lines):
        version = parse_release(name)
        what, commit = peeled or (kind, first)
        if version:
            is_commit = what == "commit"
            found.append(Tag(name, version, commit if is_commit else "", bool(peeled)))
    return found


def chosen(wanted: str, tags: Sequence[Tag]) -> Tag:
    """The tag that ``--tag`` names, which has to be an annotated one, of a release, on a commit."""
    make = shlex.join(["git", "tag", "--annotate", wanted, "--message", wanted])
    if not parse_release(wanted):
        raise SlipwayError(
            f"'{wanted}' names no release",
            cause="v1.2.3, 1.2 or v1.2.3rc1 do: two numbers or more, by PEP 440",
            fix=["git tag --annotate v1.2.3 --message v1.2.3, then invoke release --tag v1.2.3"],
            code=USAGE,
        )
    tag = next((tag for tag in tags if tag.name == wanted), None)
    if tag is None:
        names = [tag.name for tag in tags]
        raise SlipwayError(
            f"no tag '{wanted}'",
            cause=nearest(wanted, names) if names else "the repository has no release's tag yet",
            fix=[make, f"git fetch --tags, then invoke release --tag {wanted}"],
            code=NO_INPUT,
        )
    if not tag.commit:
        raise SlipwayError(
            f"the tag '{wanted}' is not on a commit",
            fix=[f"git cat-file -p {shlex.quote(wanted)}"],
            code=NO_INPUT,
        )
    if not tag.is_annotated:
        raise SlipwayError(
            f"the tag '{wanted}' is a lightweight one",
            cause="it says neither who made it nor when, and git describe passes it over",
            fix=[f"{make} --force {tag.commit[:12]}"],
            code=BAD_DATA,
        )
    return tag


def before(tag: Tag, contained: Sequence[Tag]) -> str:
    """The release before a tag's, of those that its commit contains; none may be as high.

    A branch that is maintained beside a higher release has only its own.
    """
    others = [other for other in contained if other.name != tag.name]
    last = max(others, key=lambda other: other.version, default=None)
    if last is None:
        return ""
    again = last.version == tag.version and last.commit == tag.commit  # v1.2 beside 1.2.0
    if last.version >= tag.version and not again:
        raise SlipwayError(
            f"{tag.name} is not higher than {last.name}, the last release before it",
            cause=f"the commit of {tag.name} contains that of {last.name}",
            fix=[
                f"a higher version: git tag --annotate v{_higher(last.version)} {tag.commit[:12]}",
                f"git tag --delete {tag.name}, if nobody has it yet",
            ],
            code=BAD_DATA,
        )
    return last.name


def _higher(version: Pep440) -> str:
    *start, end = version.release
    return ".".join(map(str, (*start, end + 1)))


def dirty(top: Path, lines: Sequence[str]) -> SlipwayError | None:
    """What is wrong with a tree of which ``git status --porcelain`` lists something."""
    if not lines:
        return None
    shown = [line.strip() for line in lines[:5]]
    more = [f"and {len(lines) - 5} more"] if len(lines) > 5 else []
    return SlipwayError(
        f"{top} has changes that are in no commit",
        cause="\n".join([*shown, *more]),
        fix=["git add and git commit, or git stash --include-untracked"],
        code=BAD_DATA,
    )


def emulated_cpu(row: Variant) -> str:
    """The CPU on which a variant's tests are emulated; empty: they run here as at its users'."""
    return EMULATED.get(row.isa, "")


def told(plan: Plan, state: str, shown: str) -> list[str]:
    """The plan, line by line.

    :param state: what lies in ``dist/`` already, and what becomes of it.
    :param shown: the release's directory, as a person reads it.
    """
    cpus = [f"{name} on an emulated {cpu}" for name, row in plan.variants.items()
            if (cpu := emulated_cpu(row))]  # fmt: skip
    things = ["packages", "wheels", *(["documentation"] if plan.has_docs else []), "images"]
    things += ["the book"] if plan.has_book else []
    what = f"the tag {plan.tag}" if plan.tag else "the current commit, which is a rehearsal"
    return [
        f"{plan.project} {plan.version}, from {what}",
        f"commit    {plan.origin.commit}" + (f", after {plan.before}" if plan.before else ""),
        f"variants  {', '.join(plan.variants)}",
        f"makes     {', '.join(things)}",
        f"tests     where it was built, in the image{''.join(f', {c}' for c in cpus)}",
        f"goes to   {shown}{f': {state}' if state else ''}",
        f"signed    {f'by {plan.key.name}' if plan.key else 'not: --sign KEY does'}",
        f"by        Slipway {plan.slipway}",
    ]


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


# -- looking


def look(workshop: Workshop, wanted: Wanted, project: str, source: str) -> Plan:
    """Everything that can be seen to be wrong before minutes have passed; then the plan."""
    if bool(wanted.tag) == wanted.is_rehearsal:
        raise SlipwayError(
            "--tag and --rehearse do not go together" if wanted.tag else "release of what?",
            cause="--tag is for a release, --rehearse for one of the current commit as a rehearsal",
            fix=["invoke release --rehearse", "invoke release --tag v1.2.3"],
            code=USAGE,
        )
    key = signing.ready(wanted.sign) if wanted.sign else None
    tree = resolve(workshop, project, source)
    origin = origin_of(workshop, tree)
    last = ""
    if wanted.tag:
        tag = chosen(wanted.tag, parse_tags(ask_git(origin.top, "for-each-ref", TAGS, "refs/tags")))
        merged = ask_git(origin.top, "for-each-ref", f"--merged={tag.commit}", TAGS, "refs/tags")
        last = before(tag, parse_tags(merged))
        origin, version = replace(origin, commit=tag.commit), str(tag.version)
    else:
        version = rehearsed(tree.version).pep440
    own = own_version(workshop, origin)
    if error := doctor.engine_error():
        raise error
    documented = tree.project.docs
    return Plan(
        origin=origin,
        project=tree.project.name,
        version=version,
        tag=wanted.tag,
        before=last,
        variants=tree.variants,
        has_book=book.has_book(workshop, tree),
        has_docs=bool(documented.headers or documented.modules),
        target=workshop.dist / f"{tree.project.name}-{version}",
        key=key,
        slipway=own,
    )


def origin_of(workshop: Workshop, tree: Tree) -> Origin:
    """The repository and the commit that a tree stands for: nothing in it is uncommitted."""
    if not tree.version.commit:
        raise SlipwayError(
            f"{tree.wheel or tree.source} is not tracked by git",
            cause="a release is made from a commit, which others can make it from again",
            fix=["git init, git add and git commit there", "invoke all, which needs no git"],
            code=BAD_CONFIG,
        )
    top = Path(ask_git(tree.source, "rev-parse", "--show-toplevel")[0]).resolve()
    own = [] if workshop.root.is_relative_to(top) else [workshop.root]
    for place in (top, *own):
        if read_commit(place):  # a Slipway that was only unpacked is in no commit
            status = ask_git(place, "status", "--porcelain", "--untracked-files=normal", "--", ".")
            if error := dirty(place, status):
                raise error
    return Origin(top, tree.version.commit, tree.file, tree.source)


def own_version(workshop: Workshop, origin: Origin) -> str:
    """The version of Slipway here.

    Where it is part of what is released it has to be the same commit: it makes the release.
    """
    here = version_of(workshop.root, declared_version(workshop.root))
    if workshop.root.is_relative_to(origin.top) and here.commit not in ("", origin.commit):
        raise SlipwayError(
            f"{workshop.root} is at {here.commit[:12]}, the release is of {origin.commit[:12]}",
            cause="scripts, Dockerfiles and book of this checkout are part of what is released",
            fix=[f"git checkout {origin.commit[:12]}, then the same command"],
            code=BAD_DATA,
        )
    return here.pep440


def check_room(place: Path, least: int) -> None:
    """Refuse to begin where fewer than ``least`` bytes are free."""
    there = next(p for p in (place, *place.parents) if p.exists())
    free = shutil.disk_usage(there).free
    if free < least:
        raise SlipwayError(
            f"the disk is nearly full: {console.megabytes(free)} are left for {place}",
            cause=f"a release needs {console.megabytes(least)} there at the least",
            fix=["invoke clean --keep 5GB", f"df -h {shlex.quote(str(there))}"],
            code=IO_ERROR,
        )


def finished(plan: Plan) -> tuple[Manifest | None, str]:
    """The release in ``dist/``, if it is this very one and whole; else what is there instead.

    :raises SlipwayError: there is a release of the same version, of another commit.
    """
    if not plan.target.exists():
        return None, ""
    if not (plan.target / manifest.NAME).is_file():
        return None, "what other tasks have put there is replaced"
    there = manifest.read(plan.target)
    if there.commit != plan.origin.commit:
        raise SlipwayError(
            f"{plan.target} is a release of commit {there.commit[:12]}",
            cause=f"the tag {plan.tag} is on {plan.origin.commit[:12]} now: it was moved",
            fix=[
                "make a new tag, of a higher version",
                shlex.join(["rm", "-r", str(plan.target)]) + ", if nobody has had it",
            ],
            code=CANNOT_CREATE,
        )
    if problems := [*manifest.damage(plan.target), *lost_images(there)]:
        return None, f"made again: {problems[0]}"
    if plan.is_rehearsal and there.tools["slipway"] != plan.slipway:
        return None, f"made again: it was made by Slipway {there.tools['slipway']}"
    return there, ""


def lost_images(release: Manifest) -> list[str]:
    """Images of a release that are not on this machine, or are others by now."""
    here = engine.inspect_images(*(image.alias for image in release.images))
    ids = {alias: str(image["Id"]) for alias, image in here.items()}
    return [
        f"the image {image.alias} is {'another' if image.alias in ids else 'not here'}"
        for image in release.images
        if ids.get(image.alias) != image.id
    ]


# -- acting


def release(workshop: Workshop, wanted: Wanted, project: str, source: str) -> None:
    """What ``invoke release`` does."""
    begin = time.monotonic()
    plan = look(workshop, wanted, project, source)
    done, state = finished(plan)
    shown = console.shown(plan.target, workshop.root)
    if done and (not plan.key or signing.is_signed(plan.target / manifest.SUMS, plan.key)):
        console.say(f"{shown} is unchanged since {console.moment(done.made_at)}: nothing to do")
        tell_checks(plan, shown)
        return
    for line in told(plan, "only to be signed" if done else state, shown):
        console.say(line)
    home = home_of(workshop, plan.project)
    check_room(home, ROOM_TO_BUILD)
    check_room(workshop.dist, ROOM_FOR_IT)
    if workshop.dry:
        return
    again = shlex.join(
        ["invoke", "release", *(["--tag", plan.tag] if plan.tag else ["--rehearse"])]
    )
    if not (wanted.yes or plan.is_rehearsal or setup.is_agreed(f"{again} --yes")):
        raise SlipwayError("nothing was released", fix=[f"{again}, when you are ready"])
    outputs.make(home, workshop.out)
    with locks.held(home, "release"):
        if done and plan.key:
            signing.sign(plan.target / manifest.SUMS, plan.key)
        else:
            summary = make(workshop, plan, home)
            publish(outputs.make(home / "staged", workshop.out) / plan.target.name, plan.target)
            console.say()
            console.table(summary.rows)
    look_again(plan)
    console.say(f"{console.bold('released')} {shown}, {console.seconds(time.monotonic() - begin)}")
    tell_checks(plan, shown)


def home_of(workshop: Workshop, project: str) -> Path:
    """Where a project's releases are made."""
    return workshop.out / "release" / project


def check_out(shop: Workshop, home: Path, origin: Origin, version: str) -> Tree:
    """A clone of the repository at the commit, under the version of the release."""
    clone = home / "source"
    if checkouts.clone_at(shop, origin.top, origin.commit, clone):
        # Of another commit's build directory nothing gets into a package; ccache has the rest.
        for stale in shop.out.glob("*/*/build"):
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


def make(workshop: Workshop, plan: Plan, home: Path) -> Summary:
    """Make, test and audit every variant, the book and the documentation; put all of it together.

    What is finished lies in ``staged/`` then, and nothing of it in ``dist/`` yet.
    """
    shop = replace(workshop, home=home)
    tree = check_out(shop, home, plan.origin, plan.version)
    summary, parts = Summary(), Parts()
    mode = gpu.wanted(shop, "")
    with production.warm_up(shop, tree, list(tree.variants)) if tree.variants else nullcontext():
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


class Parts:
    """What has been made of all variants."""

    def __init__(self) -> None:
        self.files: list[tuple[Path, str, str]] = []
        """Path, kind and variant of packages and wheels."""
        self.images: dict[str, Image] = {}
        self.released: list[ReleasedImage] = []
        self.isa: list[Isa] = []


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
    said = f"{len(rows)} audited, {rows[0].allowed} allowed, {rows[0].found} found"
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
    for file, _, _ in parts.files:
        shutil.copyfile(file, staged / file.name)
    kinds = {file.name: (kind, variant) for file, kind, variant in parts.files}
    if docs:
        shutil.copytree(docs, staged / "docs")
    files = []
    for file in receipts.files_below(staged):
        name = file.relative_to(staged).as_posix()
        kind, variant = kinds.get(name, ("docs", ""))
        files.append(File(name, kind, variant, file.stat().st_size, manifest.sha256(file)))
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
    manifest.write(staged, release)
    sums = manifest.write_sums(staged)
    if plan.key:
        signing.sign(sums, plan.key)


def tools(workshop: Workshop, dev: str, slipway: str) -> dict[str, str]:
    """Name to version of what decides which bytes are made."""
    run = ["run", "--rm", "--network", "none", "--label", f"{engine.LABEL}={workshop.checkout}"]
    query = ["dpkg-query", "--show", "--showformat", "${Package} ${Version}\\n", *TOOLS]
    rows = engine.ask([*run, dev, *query], "ask the dev image for its tools").splitlines()
    own = {"slipway": slipway, "docker": str(engine.info()["ServerVersion"])}
    return {**own, **dict(map(str.split, rows))}


def publish(staged: Path, target: Path) -> None:
    """Bring a finished release to ``dist/``, whole or not at all, on whichever disk that is."""
    beside = target.with_name(f".{target.name}")
    old = target.with_name(f".{target.name}.before")
    outputs.make(target.parent, target.parent)
    for left in (beside, old):  # by a run that was killed
        shutil.rmtree(left, ignore_errors=True)

    def undo() -> None:
        shutil.rmtree(beside, ignore_errors=True)

    with processes.undone(undo):
        for file in receipts.files_below(staged):
            copy = beside / file.relative_to(staged)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
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

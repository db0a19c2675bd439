"""The plan of a release: what is wrong is told before anything is made; then what will be made."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace

from slipway import aptrepo, base, book, console, doctor, engine, manifest, signing, tags
from slipway.errors import BAD_CONFIG, BAD_DATA, CANNOT_CREATE, IO_ERROR, USAGE, SlipwayError
from slipway.manifest import Manifest
from slipway.project import Tree, resolve
from slipway.records import Record
from slipway.settings import Workshop
from slipway.variants import Variant
from slipway.versions import ask_git, declared_version, read_commit, rehearsed, version_of

# Bytes that are free at the least; Oar's builds of four variants take 150 MB, its release 30.
ROOM_TO_BUILD, ROOM_FOR_IT = 500_000_000, 100_000_000
EMULATED = {"x86-64-v2": "Nehalem"}  # the oldest CPU of a level that hardly a builder is


class Wanted(Record, frozen=True):
    """What the flags say."""

    tag: str = ""
    is_rehearsal: bool = False
    yes: bool = False
    sign: str = ""
    project: str = ""
    source: str = ""
    bundle: bool = False
    apt_repo: bool = False


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
    registries: tuple[str, ...]
    """Where its images are pushed; a rehearsal's to none."""
    slipway: str
    """The version of what makes it."""

    @property
    def is_rehearsal(self) -> bool:
        """Whether it is one that is never published."""
        return not self.tag


# -- deciding: pure functions


def command(wanted: Wanted) -> str:
    """What was typed, but for what agrees to it."""
    flags = {"--tag": wanted.tag, "--sign": wanted.sign}
    flags |= {"--project": wanted.project, "--source": wanted.source}
    words = [word for flag, value in flags.items() if value for word in (flag, value)]
    choices = {"--rehearse": wanted.is_rehearsal}
    choices |= {"--bundle": wanted.bundle, "--apt-repo": wanted.apt_repo}
    chosen = [flag for flag, is_set in choices.items() if is_set]
    return shlex.join(["invoke", "release", *chosen, *words])


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
    cpus = {name: emulated_cpu(row) for name, row in plan.variants.items()}
    emulated = [f"{name} on an emulated {cpu}" for name, cpu in cpus.items() if cpu]
    things = ["packages", "wheels", *(["documentation"] if plan.has_docs else []), "images"]
    things += ["the book"] if plan.has_book else []
    what = f"the tag {plan.tag}" if plan.tag else "the current commit, which is a rehearsal"
    return [
        f"{plan.project} {plan.version}, from {what}",
        f"commit    {plan.origin.commit}" + (f", after {plan.before}" if plan.before else ""),
        f"variants  {', '.join(plan.variants)}",
        f"makes     {', '.join(things)}",
        f"tests     {', '.join(['where it was built', 'in the image', *emulated])}",
        f"goes to   {shown}{f': {state}' if state else ''}",
        f"signed    {f'by {plan.key.name}' if plan.key else 'not: --sign KEY does'}",
        *([f"pushed    to {', '.join(plan.registries)}"] if plan.registries else []),
        f"by        Slipway {plan.slipway}",
    ]


# -- looking


def home_of(workshop: Workshop, project: str) -> Path:
    """Where a project's releases are made."""
    return workshop.out / "release" / project


def look(workshop: Workshop, wanted: Wanted) -> Plan:
    """Everything that can be seen to be wrong before minutes have passed; then the plan."""
    if bool(wanted.tag) == wanted.is_rehearsal:
        raise SlipwayError(
            "--tag and --rehearse do not go together" if wanted.tag else "release of what?",
            cause="--tag is for a release, --rehearse for one of the current commit as a rehearsal",
            fix=["invoke release --rehearse", "invoke release --tag v1.2.3"],
            code=USAGE,
        )
    key = signing.ready(wanted.sign) if wanted.sign else None
    if wanted.apt_repo:
        aptrepo.find_key(wanted.sign)
    tree = resolve(workshop, wanted.project, wanted.source)
    origin = origin_of(workshop, tree)
    last = ""
    if wanted.tag:
        tag = tags.chosen(wanted.tag, tags_of(origin.top))
        last = tags.before(tag, tags_of(origin.top, f"--merged={tag.commit}"))
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
        registries=tuple(base.registries(workshop)) if wanted.tag else (),
        slipway=own,
    )


def tags_of(top: Path, *which: str) -> list[tags.Tag]:
    """The tags of a repository that name releases.

    :param which: an option of ``git for-each-ref`` that leaves out others.
    """
    return tags.parse_tags(ask_git(top, "for-each-ref", *which, tags.FORMAT, "refs/tags"))


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
    # What `init` has written of other trees is no part of this release.
    others = workshop.root / "projects"
    apart = [] if tree.file.is_relative_to(others) else [f":(exclude){others.name}"]
    for place in (top, *own):
        if read_commit(place):  # a Slipway that was only unpacked is in no commit
            which = [".", *(apart if place == workshop.root else [])]
            ask = ["status", "--porcelain", "--untracked-files=normal", "--", *which]
            if error := dirty(place, ask_git(place, *ask)):
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

"""``invoke release --verify``: make a release again from its commit, and compare the bytes."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace

from slipway import builds, console, doctor, locks, manifest, outputs, packages, processes, wheels
from slipway.builds import Site
from slipway.errors import BAD_DATA, NO_INPUT, USAGE, SlipwayError
from slipway.fetched import sha256
from slipway.manifest import File, Manifest
from slipway.plan import ROOM_TO_BUILD, check_room, home_of, origin_of, own_version
from slipway.project import resolve
from slipway.release import check_out, sites_of, tools
from slipway.settings import Workshop
from slipway.versions import run_git

COMPARED = ("deb", "wheel")  # images hold the dates at which their layers were made
LAST_LINES = 60  # of what diffoscope says of one file
DIFFOSCOPE = "sudo apt-get install --no-install-recommends diffoscope, which says what differs"


# -- deciding: pure functions


def others(files: Sequence[File], made: Mapping[str, str]) -> list[str]:
    """The packages and wheels that came out otherwise, or not at all.

    :param made: name of what was made again, to its digest.
    """
    return [f.name for f in files if f.kind in COMPARED and made.get(f.name) != f.sha256]


def changed_tools(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """What is not as it was when the release was made, and may be why the bytes differ."""
    names = sorted({*then, *now} - {"docker"})  # which only starts what makes them
    return [
        f"{name} was {then.get(name, 'not there')}, and is {now.get(name, 'not there')} here"
        for name in names
        if then.get(name) != now.get(name)
    ]


# -- acting


def verify(workshop: Workshop, directory: str, project: str, source: str) -> None:
    """Make the packages and wheels of a release again, and compare each with what is in it.

    Nothing is taken from what made it: another directory, an empty compiler cache.

    :param directory: of the release.
    """
    where = Path(directory).expanduser().resolve()
    release = manifest.read(where)
    manifest.check_whole(where)
    tree = resolve(workshop, project, source)
    if tree.project.name != release.project:
        raise SlipwayError(
            f"{where} is a release of {release.project}, and this is {tree.project.name}",
            fix=[f"invoke release --verify {shlex.quote(directory)} --project {release.project}"],
            code=USAGE,
        )
    origin = replace(origin_of(workshop, tree), commit=release.commit)
    if run_git(origin.top, "cat-file", "-e", f"{release.commit}^{{commit}}").returncode:
        raise SlipwayError(
            f"{origin.top} has no commit {release.commit[:12]}, which the release was made from",
            fix=["git fetch --tags, or --source with the repository that has it"],
            code=NO_INPUT,
        )
    slipway = own_version(workshop, origin)
    if error := doctor.engine_error():
        raise error
    home = home_of(workshop, f"{release.project}.verify")
    check_room(home, ROOM_TO_BUILD)
    names = [f.name for f in release.files if f.kind in COMPARED]
    console.say(f"making {len(names)} files again, from commit {release.commit} alone")
    if workshop.dry:
        return
    with locks.held(outputs.make(home, workshop.out), "release --verify"):
        clear(home)
        settings = replace(workshop.settings, cache_dir=str(home / "cache"), ccache_remote="")
        shop = replace(workshop, home=home, settings=settings)
        made_from = check_out(shop, home, origin, release.version)
        version = replace(made_from.version, epoch=release.epoch)
        sites = sites_of(shop, replace(made_from, version=version))
        made = [file for s in sites for file in make(s, release)]
        differing = others(release.files, {f.name: sha256(f) for f in made})
        if differing:
            now = tools(shop, sites[0].image, slipway)
            why = changed_tools(release.tools, now)
            raise failure(where, differing, {f.name: f for f in made}, why)
        clear(home)
    console.say(f"{console.bold('verified')} {where.name}: {len(names)} files, bit by bit the same")
    for name in names:
        console.say(f"  {name}")


def clear(home: Path) -> None:
    """Take away all that was made there; the clone stays."""
    for name in ("cache", "out", "dist"):
        shutil.rmtree(home / name, ignore_errors=True)


def make(s: Site, release: Manifest) -> list[Path]:
    """The packages of a variant, and its wheel if the release has one."""
    with s.locked("release --verify"):
        builds.build(s)
        deb = packages.deb(s)
        made = [deb.file, *([deb.dev] if deb.dev else [])]
        if any(f.kind == "wheel" and f.variant == s.variant for f in release.files):
            made.append(wheels.pack(s, deb.file))
    return made


def failure(
    where: Path, differing: Sequence[str], made: Mapping[str, Path], tools_changed: Sequence[str]
) -> SlipwayError:
    """What to say of files that came out otherwise."""
    told = [*tools_changed]
    fix = ["the same command with the tools that made it"] if tools_changed else []
    for name in differing:
        again = made.get(name)
        told.append(f"{name}: {how(where / name, again) if again else 'was not made'}")
        if again:
            fix.append(shlex.join(["diffoscope", str(where / name), str(again)]))
    return SlipwayError(
        f"{len(differing)} files of {where.name} came out otherwise: {', '.join(differing)}",
        cause="\n".join(told),
        fix=fix if shutil.which("diffoscope") else [DIFFOSCOPE, *fix],
        code=BAD_DATA,
    )


def how(one: Path, two: Path) -> str:
    """In what two files differ: the words of diffoscope, where it is installed."""
    if not shutil.which("diffoscope"):
        return f"{two} is what was made now"
    said = processes.look(["diffoscope", "--text", "-", str(one), str(two)], timeout=600)
    return "\n".join((said.stdout or said.stderr).splitlines()[:LAST_LINES])

"""One archive of a release for a site without a network.

It holds the release as it is in ``dist/``, its images by their ids, the Debian packages and wheels
that ours need, and ``install``, a POSIX shell script that compares every file with its checksum
before it does anything.

The archive is a plain tar: a bare Debian has tar and neither xz nor zstd. The packages in it are
compressed already; the images are gzipped, which ``docker load`` unpacks by itself.
"""

from __future__ import annotations

import gzip
import os
import shutil
import tarfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from slipway import aptrepo, base, console, engine, manifest, processes, wheels
from slipway.builds import fetch_in_dev
from slipway.errors import NO_INPUT, SlipwayError
from slipway.fetched import replace_whole, sha256
from slipway.manifest import File, Manifest
from slipway.sbom import read_wheel
from slipway.settings import Workshop

IMAGES = "images.tar.gz"
LIST = "bundle.list"
SUMS = "bundle.sha256"
GZIP_LEVEL = 4  # half the time of 6, for 3 % more


# -- deciding: pure functions


def top_of(release: Manifest) -> str:
    """The directory that the archive unpacks to: ``oar-1.2.0-bundle``."""
    return f"{release.project}-{release.version}-bundle"


def listing(release: Manifest, suite: str, wheel_names: Mapping[str, str]) -> str:
    """What ``install`` reads: ``image ALIAS ID``, ``deb VARIANT FILE``, ``wheel VARIANT NAME``.

    :param suite: the Debian release that the packages are for.
    :param wheel_names: file of a wheel to what pip is asked for, ``oar-noavx==1.2.0``.
    """
    lines = [f"suite {suite}"]
    lines += [f"image {i.alias} {i.id}" for i in release.images]
    lines += [f"deb {f.variant} {f.name}" for f in release.files if f.kind == "deb"]
    wanted = (f"wheel {f.variant} {wheel_names[f.name]}" for f in _of(release, "wheel"))
    return "".join(f"{line}\n" for line in dict.fromkeys([*lines, *wanted]))


def wheel_bases(workshop: Workshop, found: Sequence[File]) -> list[str]:
    """The images whose Pythons the wheels of a release are for.

    One wheel of each variant is for the base that everything is built on; more are ``--base all``.
    """
    several = len(found) > len({f.variant for f in found})
    return wheels.bases(workshop, "all" if several else "") if found else []


def _of(release: Manifest, kind: str) -> list[File]:
    return [f for f in release.files if f.kind == kind]


# -- acting


def check_images(release: Manifest) -> None:
    """Refuse a release whose images are not in this engine, by their ids."""
    here = engine.inspect_images(*(i.id for i in release.images)) if release.images else {}
    gone = [i for i in release.images if i.id not in here]
    if gone:
        raise SlipwayError(
            f"images of {release.project} {release.version} are not in this engine: "
            f"{', '.join(i.alias for i in gone)}",
            cause=f"none has the id {gone[0].id}",
            fix=["docker pull them, or make the release again where they were made"],
            code=NO_INPUT,
        )


def save_images(ids: Sequence[str], file: Path) -> None:
    """Write images, each shared layer once, as ``docker load`` reads them."""
    argv = [engine.client(), "save", *ids]
    console.show_command(argv)
    # Without a name or time of its own, so that the same images make the same file.
    with (
        file.open("wb") as raw,
        gzip.GzipFile("", "wb", GZIP_LEVEL, raw, mtime=0) as packed,
        processes.reading(argv) as stream,
    ):
        shutil.copyfileobj(stream, packed, 1 << 20)


def fetch_needed(workshop: Workshop, directory: Path, debs: Sequence[Path], work: Path) -> None:
    """Fetch what a bare machine lacks for the packages, as an apt repository of its own.

    :param directory: gets them; below ``work``, which is all that jobs see.
    """
    outside = work / "debs"
    outside.mkdir()
    for deb in debs:
        shutil.copy(deb, outside)
    copies = [str(outside / deb.name) for deb in debs]
    script = str(workshop.scripts / "bundle-needed")
    bare = base.ensure_base(workshop).reference
    fetch_in_dev(workshop, [script, str(directory), *copies], [work], bare)
    aptrepo.index(workshop, directory)
    shutil.rmtree(outside)


def fetch_wheels(
    workshop: Workshop, directory: Path, release: Path, found: Sequence[File]
) -> dict[str, str]:
    """Put the wheels that ours require into a directory; the name by which pip knows each of ours.

    :param release: where the wheels lie.
    """
    wanted = sorted({r for f in found for r in wheels.required(release / f.name)})
    for reference in wheel_bases(workshop, found):
        house = wheels.wheelhouse(wheels.with_base(workshop, reference), wanted)
        for wheel in house.glob("*.whl"):
            shutil.copy(wheel, directory)
    fields = {f.name: read_wheel(release / f.name) for f in found}
    return {name: f"{f['Name']}=={f['Version']}" for name, f in fields.items()}


def pack(file: Path, top: str, contents: Mapping[str, Path], epoch: int) -> None:
    """Write a tar archive: names in their order, one date, no owner.

    :param contents: name in the archive to a file.
    """
    with tarfile.open(file, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, path in contents.items():
            info = tar.gettarinfo(str(path), f"{top}/{name}")
            info.mtime, info.uid, info.gid, info.uname, info.gname = epoch, 0, 0, "", ""
            info.mode = 0o755 if os.access(path, os.X_OK) else 0o644
            info.type, info.linkname = tarfile.REGTYPE, ""
            info.size = path.stat().st_size
            with path.open("rb") as stream:
                tar.addfile(info, stream)


def below(directory: Path) -> Iterable[Path]:
    """The files below a directory, in a fixed order."""
    return sorted(p for p in directory.rglob("*") if p.is_file())


def make(workshop: Workshop, directory: Path, target: Path) -> Path:
    """Make the archive of a release.

    :param directory: the release, as it lies in ``dist/``.
    :param target: the archive, ``….tar``; it is there whole or not at all.
    :raises SlipwayError: there is no release, it is not as it was made, its images are not here.
    """
    start = time.monotonic()
    release = manifest.read(directory)
    manifest.check_whole(directory)
    check_images(release)
    if workshop.dry:
        console.say(f"would bundle {directory} as {target}")
        return target
    debs = [directory / f.name for f in _of(release, "deb")]

    def fill(work: Path) -> Path:
        needed = work / "needed"
        needed.mkdir()
        names = fetch_wheels(workshop, needed, directory, _of(release, "wheel"))
        if debs:
            fetch_needed(workshop, needed, debs, work)
        suite = base.suite_of(workshop.settings.base)
        (work / LIST).write_text(listing(release, suite, names), encoding="utf-8")
        contents = {"install": workshop.scripts / "bundle-install", LIST: work / LIST}
        if release.images:
            save_images([i.id for i in release.images], work / IMAGES)
            contents[IMAGES] = work / IMAGES
        for name, top in (("needed", needed), ("release", directory)):
            contents |= {f"{name}/{p.relative_to(top)}": p for p in below(top)}
        sums = "".join(f"{sha256(path)}  {name}\n" for name, path in contents.items())
        (work / SUMS).write_text(sums, encoding="utf-8")
        pack(work / "bundle", top_of(release), {**contents, SUMS: work / SUMS}, release.epoch)
        return work / "bundle"

    target.parent.mkdir(parents=True, exist_ok=True)
    replace_whole(target, fill)
    console.say(
        f"{console.bold('bundled')} {console.shown(target, workshop.root)}, "
        f"{console.megabytes(target.stat().st_size)}, {console.seconds(time.monotonic() - start)}; "
        f"there: tar -xf {target.name} && {top_of(release)}/install --help"
    )
    return target

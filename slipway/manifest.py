"""What a release consists of: ``manifest.json``, written once and read by all that comes after."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from slipway.errors import BAD_DATA, NO_INPUT, SlipwayError
from slipway.fetched import sha256
from slipway.receipts import files_below
from slipway.records import Record

NAME = "manifest.json"
SUMS = "SHA256SUMS"
SIGNATURES = (f"{SUMS}.sig", f"{SUMS}.asc")  # ssh's and gpg's


class File(Record, frozen=True):
    """A file of a release."""

    name: str
    """Relative to the release's directory."""
    kind: str
    """``deb``, ``wheel``, ``sbom``, ``docs`` or ``report``."""
    variant: str
    """Empty where all variants share it."""
    size: int
    """Bytes."""
    sha256: str


class Layer(Record, frozen=True):
    """One layer of an image."""

    digest: str
    """Of its unpacked content, ``sha256:…``: what two images share, they share by this."""
    size: int
    """Bytes, unpacked."""
    made_by: str
    """The instruction that made it, as ``docker history`` tells."""


class ReleasedImage(Record, frozen=True):
    """An image of a release, the book's too."""

    alias: str
    """``oar:1.2.0-noavx``."""
    kind: str
    """``prod`` or ``book``."""
    variant: str
    id: str
    """``sha256:…``: what the engine that built it calls it, and what is pushed."""
    size: int
    """Bytes, unpacked."""
    layers: tuple[Layer, ...]


class TestRun(Record, frozen=True):
    """Tests that passed for a release."""

    __test__ = False  # no test of ours, whatever pytest takes its name for

    what: str
    """``built``, ``image``, ``wheel`` or ``emulated on Nehalem``."""
    variant: str
    executed: int
    not_run: tuple[str, ...]
    """By name: what lacks a GPU."""
    since: float
    """Seconds since 1970: when they were executed, which may be before this release was made."""


class Step(Record, frozen=True):
    """Where the time went."""

    name: str
    variant: str
    seconds: float
    is_unchanged: bool
    """Nothing was done: what was there already was the same."""


class Isa(Record, frozen=True):
    """What the audit found in one package or image: a row of the ISA table."""

    name: str
    variant: str
    allowed: str
    """The variant's level, ``x86-64-v3``."""
    found: str
    """The highest level in what we compiled."""
    files: int
    """ELF files of ours."""
    instructions: int
    """How many in them not every x86-64 CPU has."""


class Manifest(Record, frozen=True):
    """A release."""

    project: str
    version: str
    """By PEP 440."""
    tag: str
    """Git's; empty for a rehearsal."""
    commit: str
    """In full."""
    epoch: int
    """Seconds since 1970: the date of everything in it."""
    is_rehearsal: bool
    made_at: float
    """Seconds since 1970."""
    variants: tuple[str, ...]
    files: tuple[File, ...]
    images: tuple[ReleasedImage, ...]
    tests: tuple[TestRun, ...]
    isa: tuple[Isa, ...]
    steps: tuple[Step, ...]
    tools: dict[str, str]
    """Name to version: slipway, docker, gcc, cmake, …"""
    base: str
    """Identity of the base image: two machines with the same one make the same bytes."""


def write(directory: Path, manifest: Manifest) -> Path:
    """Write ``manifest.json`` into a directory that is not published yet."""
    file = directory / NAME
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    file.write_bytes(text + b"\n")
    return file


def read(directory: Path) -> Manifest:
    """The manifest of a release.

    :raises SlipwayError: there is none, or it is not one of ours.
    """
    file = directory / NAME
    try:
        return msgspec.json.decode(file.read_bytes(), type=Manifest)
    except FileNotFoundError:
        raise SlipwayError(
            f"no release in {directory}: it has no {NAME}",
            fix=["invoke release --rehearse", "ls dist"],
            code=NO_INPUT,
        ) from None
    except msgspec.DecodeError as error:
        raise SlipwayError(
            f"{file} is not valid",
            cause=str(error),
            fix=["make the release again: its directory is only ever written whole"],
            code=BAD_DATA,
        ) from error


# -- checksums


def summed(directory: Path) -> Iterator[Path]:
    """The files of a release that ``SHA256SUMS`` names: all but itself and its signature."""
    apart = (SUMS, *SIGNATURES)
    yield from (f for f in files_below(directory) if str(f.relative_to(directory)) not in apart)


def write_sums(directory: Path) -> Path:
    """Write ``SHA256SUMS``, which ``sha256sum --check`` reads, into a release that is whole."""
    lines = [f"{sha256(file)}  {file.relative_to(directory)}\n" for file in summed(directory)]
    file = directory / SUMS
    file.write_text("".join(lines), encoding="utf-8")
    return file


def damage(directory: Path) -> list[str]:
    """What of a release is not as ``SHA256SUMS`` has it, by name; files beyond it do not count."""
    try:
        lines = (directory / SUMS).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return [f"{SUMS} is missing"]
    found = []
    for line in lines:
        digest, _, name = line.partition("  ")
        file = directory / name
        if not file.is_file():
            found.append(f"{name} is missing")
        elif sha256(file) != digest:
            found.append(f"{name} is another file")
    return found


def check_whole(directory: Path) -> None:
    """Refuse a release of which a file is gone, or is not what it was when it was made."""
    if problems := damage(directory):
        raise SlipwayError(
            f"the release in {directory} is not as it was made",
            cause="\n".join(problems),
            fix=["fetch it again, or remove it and make it again: invoke release"],
            code=BAD_DATA,
        )


def releases_in(dist: Path, project: str = "") -> dict[Path, Manifest]:
    """The finished releases in ``dist/``, rehearsals too, the oldest first.

    What has no manifest was not released.

    :param project: of this one alone; empty: of all.
    """
    places = (file.parent for file in dist.glob(f"*/{NAME}"))
    every = ((place, read(place)) for place in places if not place.name.startswith("."))
    found = [(place, one) for place, one in every if project in ("", one.project)]
    return dict(sorted(found, key=lambda item: (item[1].epoch, item[0])))


def kept_images(dist: Path) -> set[str]:
    """Aliases of the images of finished releases, which none but their owner removes.

    Those of rehearsals are not among them: each commit would leave a book of a gigabyte.
    """
    kept = (one for one in releases_in(dist).values() if not one.is_rehearsal)
    return {image.alias for one in kept for image in one.images}

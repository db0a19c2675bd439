"""What a release consists of: ``manifest.json``, written once and read by all that comes after."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from slipway.errors import BAD_DATA, NO_INPUT, SlipwayError
from slipway.records import Record

NAME = "manifest.json"
SUMS = "SHA256SUMS"


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
    """``built``, ``image`` or ``emulated on Nehalem``."""
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
    instructions: int


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


def sha256_of(file: Path) -> str:
    """The SHA-256 of a file, as ``sha256sum`` prints it."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def check_files(directory: Path, manifest: Manifest) -> None:
    """Refuse a release of which a file is gone, or is not what its manifest says."""
    for file in manifest.files:
        path = directory / file.name
        if not path.is_file() or sha256_of(path) != file.sha256:
            raise SlipwayError(
                f"{path} is {'not what' if path.is_file() else 'gone, which'} {NAME} names",
                cause="it was changed, or cut off, after the release was made",
                fix=[f"fetch or make {manifest.project} {manifest.version} again"],
                code=BAD_DATA,
            )

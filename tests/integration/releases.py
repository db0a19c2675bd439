"""Releases for the tests of what is made of one: of what the session's checkout has built."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from slipway import manifest
from slipway.fetched import sha256
from slipway.layers import released_image
from slipway.manifest import File, Manifest, ReleasedImage
from slipway.production import Image
from tests.integration.workbench import Checkout, Done
from tests.unit.fakes import EPOCH, make_manifest

# What `release --bundle` and `--apt-repo` call, on a release of the tests' own making: a process,
# with the errors and signals of a task.
TASK = """
import sys
from importlib import import_module
from pathlib import Path
from invoke.config import Config
from invoke.context import Context
from invoke.exceptions import Exit
from slipway.settings import DEFAULTS
from slipway.verb import verb

def act(workshop):
    module, directory, target, *more = sys.argv[1:]
    import_module(f"slipway.{module}").make(workshop, Path(directory), Path(target), *more)

try:
    verb(act)(Context(Config(overrides=DEFAULTS)))
except Exit as error:
    print(error.message, file=sys.stderr)
    sys.exit(error.code)
"""


def command(checkout: Checkout, module: str, *arguments: str | Path) -> list[str]:
    """The command line that makes an archive or a repository of a release."""
    return [str(checkout.python), "-c", TASK, module, *map(str, arguments)]


def type_(checkout: Checkout, module: str, *arguments: str | Path, **more: Any) -> Done:
    """Run it to its end."""
    return checkout.typed(*command(checkout, module, *arguments), **more)


def described(alias: str, variant: str) -> ReleasedImage:
    """An image of this engine, as a manifest has it."""
    return released_image(Image(alias, alias, 0, 0, fresh=False), "prod", variant)


def release(
    directory: Path,
    files: dict[Path, str],
    images: tuple[ReleasedImage, ...] = (),
    epoch: int = EPOCH,
) -> Manifest:
    """Make a release of files, each with its variant; its version is the directory's."""
    directory.mkdir(parents=True)
    rows = []
    for file, variant in files.items():
        shutil.copy(file, directory)
        kind = {".deb": "deb", ".whl": "wheel"}[file.suffix]
        size, digest = file.stat().st_size, sha256(file)
        rows.append(File(file.name, kind, variant, size, digest))
    version = directory.name.partition("-")[2]
    made = make_manifest(version, files=tuple(rows), images=images, epoch=epoch)
    manifest.write(directory, made)
    manifest.write_sums(directory)
    return made


def debs_of(checkout: Checkout) -> dict[Path, str]:
    """The Debian packages that a checkout has made for its own base, and their variants."""
    found = {}
    for file in sorted((checkout.root / "dist").glob("oar-*/oar*+deb13_*.deb")):
        name = file.name.partition("_")[0]
        if name in ("oar", "oar-noavx"):
            found[file] = name.partition("-")[2] or "cpu"
    return found


@contextmanager
def gpg_home(directory: Path, owner: str) -> Iterator[dict[str, str]]:
    """A key of its own, in a directory of its own, and the variable that names it."""
    directory.mkdir(mode=0o700)
    env = {"GNUPGHOME": str(directory)}
    full = {**os.environ, **env}
    generate = ["gpg", "--batch", "--quiet", "--passphrase", "", "--quick-generate-key", owner]
    try:
        subprocess.run([*generate, "ed25519", "sign", "never"], env=full, check=True)
        yield env
    finally:
        subprocess.run(["gpgconf", "--kill", "all"], env=full, check=False)


def nothing_half_made(target: Path) -> None:
    """What was interrupted has left nothing that anybody could take for whole."""
    assert not target.exists()
    assert [p.name for p in target.parent.iterdir() if p.name != ".work"] == []

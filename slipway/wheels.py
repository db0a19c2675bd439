"""Prebuilt wheels as projects: a wheel, and the Python packages that it needs, fetched once.

Both are locked by hashes: the wheel in project.yaml, the others in a requirements file beside it.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from slipway import console
from slipway.builds import Site, fetch_in_dev, python_tag
from slipway.errors import BAD_CONFIG, NO_INPUT, SlipwayError
from slipway.fetched import make_whole
from slipway.images import fingerprint
from slipway.indexes import hash_of
from slipway.project import Tree
from slipway.settings import Workshop


def lock_of(tree: Tree, wheel: Path) -> str:
    """The requirements that are installed together: the wheel's own, and what the project locks."""
    source, text = tree.project.source, ""
    if tree.project.package.requirements:
        file = tree.file.parent / tree.project.package.requirements
        if not file.is_file():
            raise SlipwayError(
                f"no file {file}",
                cause=f"{tree.file} names it under package.requirements",
                fix=[
                    shlex.join(["uv", "pip", "compile", "--generate-hashes", "-o", str(file), "-"])
                ],
                code=NO_INPUT,
            )
        text = file.read_text(encoding="utf-8")
        if re.search(r"^[A-Za-z0-9]", text, re.MULTILINE) and "--hash=" not in text:
            raise SlipwayError(
                f"{file} locks nothing: it has no hashes",
                cause="what goes into a package has to be the same wherever it is made",
                fix=["uv pip compile --generate-hashes, or pip-compile --generate-hashes"],
                code=BAD_CONFIG,
            )
    # A lock of all that the wheel's name stands for has a stanza of the wheel's own, too.
    name = re.escape(source.wheel).replace("_", "[-_.]").replace(r"\-", "[-_.]")
    text = re.sub(rf"^{name}==.*(\n[ \t].*)*\n", "", text, flags=re.MULTILINE | re.IGNORECASE)
    return f"{text}{source.wheel}=={source.version} --hash=sha256:{hash_of(wheel)}\n"


def ensure(s: Site, wheel: Path) -> tuple[Path, Path]:
    """The lock, and a directory with what it names beside the wheel; fetched if it is not here."""
    text = lock_of(s.tree, wheel)
    others = _without_own(text, s.tree.project.source.wheel)
    directory = home_of(s.workshop, text, python_tag(s.workshop))
    if directory.is_dir() or s.workshop.dry:
        return directory / "requirements.txt", directory

    def fill(partial: Path) -> Path:
        (partial / "requirements.txt").write_text(text, encoding="utf-8")
        (partial / "others.txt").write_text(others, encoding="utf-8")
        if re.search(r"^[A-Za-z0-9]", others, re.MULTILINE):
            console.say(f"fetching the Python packages that {wheel.name} needs")
            script = str(s.workshop.scripts / "pip-download")
            fetch_in_dev(s.workshop, [script, str(partial / "others.txt"), str(partial)], [partial])
        return partial

    make_whole(directory, fill)
    return directory / "requirements.txt", directory


def home_of(workshop: Workshop, lock: str, tag: str) -> Path:
    """Where the packages of a lock are kept, for one Python."""
    return workshop.cache / "downloads" / f"wheels-{tag}-{fingerprint(lock)[:16]}"


def _without_own(text: str, name: str) -> str:
    """A lock without the wheel itself, which is here."""
    return "".join(line for line in text.splitlines(True) if not line.startswith(f"{name}=="))

"""Prebuilt wheels as projects: a wheel, and the Python packages that it needs, fetched once.

Both are locked by hashes: the wheel in project.yaml, the others in a requirements file beside it.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from packaging.utils import canonicalize_name

from slipway import console
from slipway.builds import Site, fetch_in_dev, python_tag
from slipway.errors import BAD_CONFIG, NO_INPUT, SlipwayError
from slipway.fetched import make_whole, sha256
from slipway.images import fingerprint
from slipway.project import Tree

# One requirement of a lock: its line, and those that go on with it.
STANZA = re.compile(r"^([A-Za-z0-9][\w.-]*)[^\n]*\n(?:[ \t][^\n]*\n)*", re.MULTILINE)


def others_of(tree: Tree) -> str:
    """The lock of what the wheel needs, without the wheel itself, should that be in it."""
    if not tree.project.package.requirements:
        return ""
    file = tree.file.parent / tree.project.package.requirements
    if not file.is_file():
        raise SlipwayError(
            f"no file {file}",
            cause=f"{tree.file} names it under package.requirements",
            fix=[f"uv pip compile --generate-hashes -o {shlex.quote(str(file))}"],
            code=NO_INPUT,
        )
    text = file.read_text(encoding="utf-8")
    if STANZA.search(text) and "--hash=" not in text:
        raise SlipwayError(
            f"{file} locks nothing: it has no hashes",
            cause="what goes into a package has to be the same wherever it is made",
            fix=["uv pip compile --generate-hashes, or pip-compile --generate-hashes"],
            code=BAD_CONFIG,
        )
    own = canonicalize_name(tree.project.source.wheel)
    return STANZA.sub(lambda m: "" if canonicalize_name(m[1]) == own else m[0], text)


def ensure(s: Site, wheel: Path) -> tuple[Path, Path]:
    """The lock of all that is installed, and a directory with what it names beside the wheel."""
    source, others = s.tree.project.source, others_of(s.tree)
    lock = f"{others}{source.wheel}=={source.version} --hash=sha256:{sha256(wheel)}\n"
    name = f"wheels-{python_tag(s.workshop)}-{fingerprint(lock)[:16]}"
    directory = s.workshop.cache / "downloads" / name

    def fill(partial: Path) -> Path:
        (partial / "requirements.txt").write_text(lock, encoding="utf-8")
        if STANZA.search(others):
            wanted = partial / "others.txt"
            wanted.write_text(others, encoding="utf-8")
            console.say(f"fetching the Python packages that {wheel.name} needs")
            script = str(s.workshop.scripts / "pip-download")
            fetch_in_dev(s.workshop, [script, str(wanted), str(partial)], [partial])
        return partial

    if not (directory.is_dir() or s.workshop.dry):
        make_whole(directory, fill)
    return directory / "requirements.txt", directory

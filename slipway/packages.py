"""Debian packages: one path for every build system.

What a package says is decided here, purely; ``scripts/deb`` stages, finds the dependencies and
packs where the tree was compiled.
"""

from __future__ import annotations

import email.utils
import shutil
import textwrap
import time
from datetime import datetime, timezone
from pathlib import Path

from slipway import console, outputs, receipts
from slipway.builds import Site, disk_full, inputs_of
from slipway.errors import BAD_DATA, SlipwayError
from slipway.images import file_hash, fingerprint
from slipway.project import Tree
from slipway.records import Record

COMMON_LICENSES = {  # SPDX name to the file in /usr/share/common-licenses that Debian wants named
    "Apache-2.0": "Apache-2.0",
    "GPL-2.0-only": "GPL-2",
    "GPL-2.0-or-later": "GPL-2",
    "GPL-3.0-only": "GPL-3",
    "GPL-3.0-or-later": "GPL-3",
    "LGPL-2.1-only": "LGPL-2.1",
    "LGPL-2.1-or-later": "LGPL-2.1",
    "LGPL-3.0-or-later": "LGPL-3",
    "MPL-2.0": "MPL-2.0",
}

LICENSE_FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "COPYING", "COPYING.txt")


class Deb(Record, frozen=True):
    """A finished package in ``dist/``."""

    file: Path
    hash: str
    made_at: float
    fresh: bool
    """Made by this very call, not found unchanged."""


def package_name(tree: Tree, variant: str) -> str:
    """``oar``, ``oar-noavx``."""
    return tree.project.name + tree.variants[variant].suffix


def control(tree: Tree, variant: str) -> str:
    """The control file; dependencies, architecture and version are filled in where it is packed."""
    project = tree.project
    name = package_name(tree, variant)
    others = [package_name(tree, v) for v in tree.variants if v != variant]
    extra = "".join(f", {d}" for d in project.package.depends)
    lines = [
        f"Package: {name}",
        "Version: @VERSION@",
        f"Section: {project.package.section}",
        "Priority: optional",
        "Architecture: @ARCHITECTURE@",
        f"Maintainer: {project.maintainer}",
        f"Depends: @DEPENDS@{extra}",
    ]
    if others:  # one variant takes the place of another, and satisfies what depends on it
        lines.append(f"Provides: {', '.join(f'{o} (= @VERSION@)' for o in others)}")
        lines.append(f"Conflicts: {', '.join(others)}")
        lines.append(f"Replaces: {', '.join(others)}")
    if project.homepage:
        lines.append(f"Homepage: {project.homepage}")
    lines.append(f"Description: {project.summary.rstrip('.')}")
    row = tree.variants[variant]
    paragraphs = [
        *project.description.strip().split("\n\n"),
        f"This variant is compiled for {row.isa}.",
    ]
    for number, paragraph in enumerate(filter(None, paragraphs)):
        lines += [" ."] if number else []
        # Policy 5.6.13 keeps lines that begin with a dot for itself.
        wrapped = "\n".join(textwrap.wrap(paragraph, 78)).replace("\n.", " .")
        lines += [f" {line}" for line in wrapped.split("\n")]
    return "\n".join(lines) + "\n"


def changelog(tree: Tree, variant: str) -> str:
    """Debian changelog with the one entry that is true of every build: its version and commit."""
    version = tree.version
    what = f"commit {version.commit}" if version.commit else "the source tree as it was"
    date = email.utils.format_datetime(datetime.fromtimestamp(version.epoch, timezone.utc))
    return (
        f"{package_name(tree, variant)} (@VERSION@) @DISTRIBUTION@; urgency=medium\n\n"
        f"  * Version {version.pep440}, made from {what}.\n\n"
        f" -- {tree.project.maintainer}  {date}\n"
    )


def copyright_file(tree: Tree) -> str:
    """The project's own Debian copyright file, else one made from its licence."""
    for own in ("copyright", "debian/copyright"):
        if (tree.source / own).is_file():
            return (tree.source / own).read_text(encoding="utf-8")
    project = tree.project
    year = time.gmtime(tree.version.epoch).tm_year
    lines = [
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/",
        f"Upstream-Name: {project.name}",
        *([f"Source: {project.homepage}"] if project.homepage else []),
        "",
        "Files: *",
        f"Copyright: {year} {project.maintainer}",
        f"License: {project.license}",
    ]
    common = COMMON_LICENSES.get(project.license)
    if common:
        lines.append(f" On Debian systems the full text is in /usr/share/common-licenses/{common}.")
    else:
        text = next((tree.source / n for n in LICENSE_FILES if (tree.source / n).is_file()), None)
        if text is None:
            raise SlipwayError(
                f"{tree.source} has no licence file",
                cause=f"and Debian keeps no text of '{project.license}'; looked for "
                f"{', '.join(LICENSE_FILES)}",
                fix=[
                    "put the licence's text beside the source, or correct license in project.yaml"
                ],
                code=BAD_DATA,
            )
        lines += [
            f" {line}".rstrip() if line.strip() else " ." for line in text.read_text().splitlines()
        ]
    return "\n".join(lines) + "\n"


def deb(s: Site) -> Deb:
    """The package of a built site, made unless it is here already and nothing changed."""
    tree, name = s.tree, package_name(s.tree, s.variant)
    texts = {
        "control": control(tree, s.variant),
        "changelog": changelog(tree, s.variant),
        "copyright": copyright_file(tree),
    }
    inputs = fingerprint(inputs_of(s, "deb"), texts)
    receipt_file = s.out / "receipts" / "deb.json"
    known = receipts.read(receipt_file, inputs)
    if known:
        file = Path(known.facts["file"])
        console.say(f"{s.shown(file)} is unchanged since {console.moment(known.made_at)}")
        return Deb(file, known.facts["hash"], known.made_at, fresh=False)
    start = time.monotonic()
    work = s.out / "deb"
    if not s.workshop.dry:
        work.mkdir(parents=True, exist_ok=True)
        for file_name, text in texts.items():
            (work / file_name).write_text(text, encoding="utf-8")
    inside = s.place.inside
    command = [inside(s.build), inside(work), name, tree.version.debian]
    status = s.place.run(s.job("deb", [*command, *tree.project.package.components], {}), s.image)
    if status:
        raise SlipwayError(
            f"the package {name} was not made: status {status}",
            cause=disk_full(s.out) or "the words of the tool that failed are above",
            fix=[f"invoke shell --variant {s.variant}"],
            code=status,
        )
    if s.workshop.dry:
        return Deb(s.workshop.dist / f"{name}.deb", "", 0, fresh=True)
    made = next((work / "finished").glob("*.deb"))
    target = finished(s, made)
    facts = {"file": str(target), "hash": file_hash(target)}
    receipt = receipts.write(receipt_file, inputs, facts)
    console.say(
        f"{console.bold('packed')} {s.shown(target)}, {console.megabytes(target.stat().st_size)}, "
        f"{console.seconds(time.monotonic() - start)}, no lintian error; "
        f"debug symbols in {s.shown(work / 'debug')}"
    )
    return Deb(target, facts["hash"], receipt.made_at, fresh=True)


def finished(s: Site, made: Path) -> Path:
    """Put an artifact into ``dist/PROJECT-VERSION/``: written beside, then renamed."""
    directory = s.workshop.dist / f"{s.tree.project.name}-{s.tree.version.pep440}"
    outputs.make(directory, s.workshop.dist)
    beside, target = directory / f".{made.name}", directory / made.name
    try:
        shutil.copy(made, beside)
        beside.replace(target)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    return target

"""Debian packages: one path for every build system.

What a package says is decided here, purely; ``scripts/deb`` stages, finds the dependencies and
packs where the tree was compiled.
"""

from __future__ import annotations

import email.utils
import json
import re
import shutil
import textwrap
import time
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from slipway import console, outputs, receipts
from slipway.builds import Site, disk_full, inputs_of
from slipway.engine import Mount
from slipway.errors import BAD_DATA, SlipwayError
from slipway.explain import PACKING, explain
from slipway.images import file_hash, fingerprint
from slipway.processes import Heard
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
    dev: Path | None
    """The second package, of what compiling against the library needs."""
    made_at: float
    fresh: bool
    """Made by this very call, not found unchanged."""


def package_name(tree: Tree, variant: str) -> str:
    """``oar``, ``oar-noavx``."""
    return tree.package_name(variant)


def control(tree: Tree, variant: str, *, dev: bool = False) -> str:
    """The control file; dependencies, architecture and version are filled in where it is packed.

    :param dev: of the second package, with what compiling against the library needs.
    """
    project = tree.project
    end = "-dev" if dev else ""
    name = package_name(tree, variant) + end
    others = [package_name(tree, v) + end for v in tree.variants if v != variant]
    extra = "" if dev else "".join(f", {d}" for d in project.package.all_depends)
    lines = [
        f"Package: {name}",
        "Version: @VERSION@",
        f"Section: {'libdevel' if dev else project.package.section}",
        "Priority: optional",
        "Architecture: @ARCHITECTURE@",
        f"Maintainer: {project.maintainer}",
        f"Depends: @DEPENDS@{extra}",
    ]
    if others:  # one variant takes the place of another, and satisfies what depends on it
        lines.append(f"Provides: {', '.join(f'{o} (= @VERSION@)' for o in others)}")
    replaced = [*others, *project.package.conflicts]
    if replaced:
        lines.append(f"Conflicts: {', '.join(replaced)}")
        lines.append(f"Replaces: {', '.join(replaced)}")
    if project.homepage:
        lines.append(f"Homepage: {project.homepage}")
    lines.append(
        f"Description: {project.summary.rstrip('.')}{' (development files)' if dev else ''}"
    )
    row = tree.variants[variant]
    gpus = f", {row.gpus}" if row.gpus else ""
    prebuilt = f"This is {tree.wheel.name}, as its makers built it." if tree.wheel else ""
    paragraphs = [
        *project.description.strip().split("\n\n"),
        "This package has what compiling against the library needs." if dev else "",
        prebuilt or f"This variant is compiled for {row.isa}{gpus}.",
    ]
    for number, paragraph in enumerate(filter(None, paragraphs)):
        lines += [" ."] if number else []
        # Policy 5.6.13 keeps lines that begin with a dot for itself.
        wrapped = "\n".join(textwrap.wrap(paragraph, 78)).replace("\n.", " .")
        lines += [f" {line}" for line in wrapped.split("\n")]
    return "\n".join(lines) + "\n"


def changelog(tree: Tree) -> str:
    """Debian changelog with the one entry that is true of every build: its version and commit."""
    version = tree.version
    what = f"commit {version.commit}" if version.commit else "the source tree as it was"
    if tree.wheel:
        what = tree.wheel.name
    date = email.utils.format_datetime(datetime.fromtimestamp(version.epoch, timezone.utc))
    return (
        f"@PACKAGE@ (@VERSION@) @DISTRIBUTION@; urgency=medium\n\n"
        f"  * Version {version.pep440}, made from {what}.\n\n"
        f" -- {tree.project.maintainer}  {date}\n"
    )


def copyright_file(tree: Tree) -> str:
    """The Debian copyright file beside project.yaml or of the tree, else one from its licence."""
    places = (tree.file.parent, tree.source, tree.source / "debian")
    own = next((p / "copyright" for p in places if (p / "copyright").is_file()), None)
    if own:
        return own.read_text(encoding="utf-8")
    project = tree.project
    kept = next((tree.source / n for n in LICENSE_FILES if (tree.source / n).is_file()), None)
    text = kept.read_text(encoding="utf-8", errors="replace") if kept else ""
    year = time.gmtime(tree.version.epoch).tm_year
    named = re.findall(
        r"^\s*Copyright\s+(?:\(c\)\s*|©\s*)?(\S.*)$", text, re.MULTILINE | re.IGNORECASE
    )
    holders = [who for who in named if re.match(r"\d{4}|[A-Z]", who) and "[" not in who]
    lines = [
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/",
        f"Upstream-Name: {project.name}",
        *([f"Source: {project.homepage}"] if project.homepage else []),
        "",
        "Files: *",
        "Copyright: " + "\n ".join(dict.fromkeys(holders or [f"{year} {project.maintainer}"])),
        f"License: {project.license}",
    ]
    common = COMMON_LICENSES.get(project.license)
    if common:
        lines.append(f" On Debian systems the full text is in /usr/share/common-licenses/{common}.")
    elif kept is None:
        raise SlipwayError(
            f"{tree.source} has no licence file",
            cause=f"and Debian keeps no text of '{project.license}'; looked for "
            f"{', '.join(LICENSE_FILES)}",
            fix=[
                "put the licence's text beside the source, or correct license in project.yaml",
                "or put a Debian copyright file beside project.yaml",
            ],
            code=BAD_DATA,
        )
    else:
        lines += [f" {line}".rstrip() if line.strip() else " ." for line in text.splitlines()]
    return "\n".join(lines) + "\n"


# What lintian finds in prebuilt wheels, which are packaged as they are: nothing of them is
# stripped, and a copy of a library in one is the version that its makers have tested.
OF_WHEELS = {
    "unstripped-binary-or-object": "a prebuilt wheel is packaged as its makers built it",
    "embedded-library": "wheels bring their own copies, whose versions they were tested with",
    "library-not-linked-against-libc": "a prebuilt wheel is packaged as its makers built it",
}


def overrides(tree: Tree) -> str:
    """lintian's findings that are overridden, each below the reason."""
    rows = {**(OF_WHEELS if tree.wheel else {}), **tree.project.package.lintian}.items()
    return "".join(f"# {' '.join(why.split())}\n@PACKAGE@: {tag}\n" for tag, why in rows)


def contents(s: Site) -> dict[str, Any]:
    """What ``scripts/arrange`` is told: which files go into which package."""
    package = s.tree.project.package
    return {
        "python": [f"{s.source_inside}/{path}" for path in package.python],
        "commands": package.commands,
        "exclude": package.exclude,
        "files": package.files,
        "dev": package.dev,
        "conflicts": [c.partition(" ")[0] for c in package.conflicts],
    }


def stage_arguments(s: Site) -> list[str]:
    """What ``scripts/stage`` is told: how the tree is installed."""
    inside = s.place.inside
    if s.tree.wheel:
        from slipway import prebuilt

        lock, directory = prebuilt.ensure(s, s.tree.wheel)
        places = [directory, s.tree.wheel.parent]
        name = package_name(s.tree, s.variant)
        return ["wheel", name, inside(lock), *(inside(place) for place in places)]
    how = s.tree.project.build
    build = inside(s.build)
    if how.system == "cmake":
        return ["cmake", build, *s.tree.project.package.components]
    if how.system == "make":
        options = s.tree.options(s.variant)
        return ["make", s.top_inside, *(f"{k}={v}" for k, v in options.items())]
    return [how.system, build]


def deb(s: Site) -> Deb:
    """The package of a built site, made unless it is here already and nothing changed."""
    tree, name = s.tree, package_name(s.tree, s.variant)
    wants_dev = bool(tree.project.package.dev)
    texts = {
        "control": control(tree, s.variant),
        "control-dev": control(tree, s.variant, dev=True) if wants_dev else "",
        "changelog": changelog(tree),
        "copyright": copyright_file(tree),
        "overrides": overrides(tree),
    }
    lock = tree.file.parent / tree.project.package.requirements
    locked = file_hash(lock) if lock.is_file() else ""
    rules = receipts.code_of("isa", "audit")  # a receipt says that the package has passed it
    scripts = ("deb", "stage", "arrange", "check-requirements")
    inputs = fingerprint(inputs_of(s, *scripts), texts, locked, rules)
    receipt_file = s.out / "receipts" / "deb.json"
    known = receipts.read(receipt_file, inputs)
    if known:
        made = found(name, known.facts["files"], known.made_at, fresh=False)
        console.say(f"{s.shown(made.file)} is unchanged since {console.moment(made.made_at)}")
        return made
    start = time.monotonic()
    work = s.out / "deb"
    if not s.workshop.dry:
        work.mkdir(parents=True, exist_ok=True)
        for file_name, text in texts.items():
            (work / file_name).unlink(missing_ok=True)
            if text:
                (work / file_name).write_text(text, encoding="utf-8")
    arguments = stage_arguments(s)
    command = [s.place.inside(work), name, tree.version.debian, json.dumps(contents(s)), *arguments]
    env = {"SLIPWAY_STRIP": "1" if tree.project.package.strip and not tree.wheel else "0"}
    job = s.job("deb", command, env)
    if tree.wheel:
        job = replace(
            job, mounts=[*job.mounts, Mount(s.workshop.cache / "downloads", readonly=True)]
        )
    heard = Heard()
    status = s.place.run(job, s.image, heard)
    if status:
        cause, fix = explain(heard.text, PACKING)
        raise SlipwayError(
            f"the package {name} was not made: status {status}",
            cause=disk_full(s.out) or cause or "the words of the tool that failed are above",
            fix=[fix or f"invoke shell --variant {s.variant}"],
            code=status,
        )
    if s.workshop.dry:
        return Deb(s.workshop.dist / f"{name}.deb", None, 0, fresh=True)
    packed = sorted((work / "finished").glob("*.deb"))
    from slipway import audit  # which needs this module

    for file in packed:
        audit.check_deb(s, file)
    targets = [finished(s, file) for file in packed]
    files = {str(target): file_hash(target) for target in targets}
    receipt = receipts.write(receipt_file, inputs, {"files": files})
    made = found(name, files, receipt.made_at, fresh=True)
    sizes = [f"{s.shown(t)}, {console.megabytes(t.stat().st_size)}" for t in targets]
    symbols = f"; debug symbols in {s.shown(work / 'debug')}" if env["SLIPWAY_STRIP"] == "1" else ""
    console.say(
        f"{console.bold('packed')} {'; '.join(sizes)}, "
        f"{console.seconds(time.monotonic() - start)}, no lintian error{symbols}"
    )
    return made


def found(name: str, files: Iterable[str], made_at: float, *, fresh: bool) -> Deb:
    """The finished files of the package ``name`` and, where there is one, ``name-dev``."""
    by_name = {Path(file).name.partition("_")[0]: Path(file) for file in files}
    return Deb(by_name[name], by_name.get(f"{name}-dev"), made_at, fresh=fresh)


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

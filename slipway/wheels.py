"""Wheels: what a variant's Debian package holds, for pip.

One for each variant and each base, since an extension module serves one Python and the C library
that it was linked with, or later ones. It is made from the finished package, so the two agree; its
tags are found, not claimed; and it is tested where nothing is installed but Python.
"""

from __future__ import annotations

import json
import re
import time
import zipfile
from collections.abc import Sequence
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

from msgspec.structs import replace
from packaging.requirements import Requirement

from slipway import audit, console, engine, images, outputs, packages, receipts, testing
from slipway.base import SUITES
from slipway.builds import Site, disk_full, fetch_in_dev
from slipway.engine import Job, Mount
from slipway.errors import BAD_DATA, USAGE, SlipwayError, nearest
from slipway.explain import PACKING, explain
from slipway.fetched import make_whole
from slipway.images import file_hash, fingerprint
from slipway.packages import finished, package_name
from slipway.processes import Heard
from slipway.project import Tree
from slipway.records import Record
from slipway.settings import Workshop

MODULES = "usr/lib/python3/dist-packages"  # as scripts/wheel has it


class Wheel(Record, frozen=True):
    """A finished wheel in ``dist/``."""

    file: Path
    made_at: float
    fresh: bool
    """Made by this very call, not found unchanged."""
    executed: int = 0
    """Tests that passed where nothing but the wheel is installed."""


def with_base(workshop: Workshop, reference: str) -> Workshop:
    """The workshop on another base, with build directories of its own."""
    if reference == workshop.settings.base:
        return workshop
    mark = "." + re.sub(r"[^A-Za-z0-9]+", "-", reference.removeprefix("debian:")).strip("-")
    settings = replace(workshop.settings, base=reference)
    return replace(workshop, settings=settings, mark=mark.removesuffix("-slim"))


def bases(workshop: Workshop, wanted: str) -> list[str]:
    """The images that ``--base`` means.

    :param wanted: references or Debian suites, with commas; ``all`` for the settings'
        ``wheel_bases``; empty for the base that everything else is built on.
    """
    if wanted == "all":
        return list(workshop.settings.wheel_bases)
    found = []
    for text in (t.strip() for t in wanted.split(",")):
        if not text:
            continue
        if text not in SUITES and not re.search(r"[:/@]", text):
            raise SlipwayError(
                f"no base '{text}'",
                cause=nearest(text, [*SUITES, "all"]),
                fix=["invoke wheel --base all", "invoke wheel --base debian:bookworm-slim"],
                code=USAGE,
            )
        found.append(f"debian:{text}-slim" if text in SUITES else text)
    return list(dict.fromkeys(found)) or [workshop.settings.base]


def metadata(tree: Tree, variant: str) -> list[str]:
    """Core metadata of a package whose modules bring none; which Python is found where it is made.

    Its fields are those of the core metadata specification, version 2.4.
    """
    project, row = tree.project, tree.variants[variant]
    gpus = f" {row.gpus}" if row.gpus else ""
    others = [package_name(tree, v) for v in tree.variants if v != variant]
    lines = [
        "Metadata-Version: 2.4",
        f"Name: {package_name(tree, variant)}",
        f"Version: {tree.version.pep440}",
        f"Summary: {project.summary}",
        f"Maintainer-email: {project.maintainer}",
        f"License-Expression: {project.license}",
        "License-File: copyright",
        "Requires-Python: @REQUIRES_PYTHON@",
        *([f"Project-URL: Homepage, {project.homepage}"] if project.homepage else []),
        *(f"Requires-Dist: {requirement}" for requirement in project.package.requires),
        "Description-Content-Type: text/markdown",
        "",
        *([project.description.strip(), ""] if project.description.strip() else []),
        f"This variant is compiled for {row.isa}{gpus}.",
    ]
    if others:
        lines.append(f"It holds the same modules as {', '.join(others)}: install one of them.")
    return lines


def has_modules(deb: Path) -> bool:
    """Whether a Debian package holds Python modules, without which there is no wheel of it."""
    with audit.unpacked(deb) as tar:
        return any(info.name.removeprefix("./").startswith(f"{MODULES}/") for info in tar)


def wheel(s: Site, deb: Path) -> Wheel:
    """The wheel of a package, tested, unless it is here already and nothing changed.

    :param deb: the finished Debian package of this site.
    """
    name = package_name(s.tree, s.variant)
    spec = spec_of(s)
    budget = s.tree.project.package.wheel_mb or s.workshop.settings.budgets.wheel_mb
    inputs = fingerprint(
        file_hash(deb) if deb.is_file() else "",
        spec,
        budget,
        s.image,
        [file_hash(s.workshop.scripts / script) for script in ("wheel", "wheel-test")],
        receipts.code_of("isa", "audit"),
        [receipts.tree_fingerprint(path) for path in testing.installed(s.tree).tests],
    )
    receipt_file = s.out / "receipts" / "wheel.json"
    known = receipts.read(receipt_file, inputs)
    if known:
        file, executed = Path(next(iter(known.facts["files"]))), known.facts["executed"]
        made = Wheel(file, known.made_at, fresh=False, executed=executed)
        console.say(
            f"{s.shown(made.file)} is unchanged since {console.moment(made.made_at)}, "
            f"{executed} tests passed then, none run now"
        )
        return made
    start = time.monotonic()
    packed = pack(s, deb)
    if s.workshop.dry:
        return Wheel(s.workshop.dist / f"{name}.whl", 0, fresh=True)
    check_budget(packed, budget, f"package.wheel_mb in {s.tree.file}")
    audit.check_deb(s, packed)
    took = console.seconds(time.monotonic() - start)
    tested = test(s, packed)
    target = finished(s, packed)
    facts = {"files": {str(target): file_hash(target)}, "executed": tested.executed}
    receipt = receipts.write(receipt_file, inputs, facts)
    console.say(
        f"{console.bold('packed')} {s.shown(target)}, "
        f"{console.megabytes(target.stat().st_size)} of {budget} MB, {took}"
    )
    return Wheel(target, receipt.made_at, fresh=True, executed=tested.executed)


def spec_of(s: Site) -> dict[str, Any]:
    """What ``scripts/wheel`` is told of a wheel."""
    return {
        "name": package_name(s.tree, s.variant),
        "version": s.tree.version.pep440,
        "metadata": metadata(s.tree, s.variant),
        "commands": s.tree.project.package.commands,
    }


def pack(s: Site, deb: Path) -> Path:
    """Make the wheel of a package, where the tree was compiled; it is not tested yet."""
    work = outputs.make(s.out / "wheel", s.workshop.out)
    job = s.job("wheel", [s.place.inside(work), s.place.inside(deb), json.dumps(spec_of(s))], {})
    heard = Heard()
    status = s.place.run(
        replace(job, mounts=[*job.mounts, Mount(deb, readonly=True)]), s.image, heard
    )
    if status:
        cause, fix = explain(heard.text, PACKING)
        raise SlipwayError(
            f"the wheel of {s.title} was not made: status {status}",
            cause=disk_full(s.out) or cause or "the words of the tool that failed are above",
            fix=[fix or f"invoke shell --variant {s.variant}"],
            code=status,
        )
    return next((work / "finished").glob("*.whl"), work)


def check_budget(file: Path, budget_mb: int, setting: str) -> None:
    """Refuse a wheel that is larger than its budget; its largest files are named."""
    size = file.stat().st_size
    if size <= budget_mb * 1e6:
        return
    with zipfile.ZipFile(file) as archive:
        held = sorted(archive.infolist(), key=lambda i: -i.compress_size)[:5]
    raise SlipwayError(
        f"{file.name} has {console.megabytes(size)}, more than its budget of {budget_mb} MB",
        cause="the largest files in it, compressed:\n"
        + "\n".join(f"{console.megabytes(i.compress_size)}  {i.filename}" for i in held),
        fix=[f"leave some out (package.exclude), or raise {setting}"],
        code=BAD_DATA,
    )


def required(file: Path) -> list[str]:
    """What a wheel requires of every user, as its metadata has it."""
    with zipfile.ZipFile(file) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        fields = HeaderParser().parsestr(archive.read(name).decode())
    wanted = [Requirement(text) for text in fields.get_all("Requires-Dist", [])]
    return sorted(str(r) for r in wanted if not (r.marker and "extra" in str(r.marker)))


def wheelhouse(workshop: Workshop, requirements: Sequence[str]) -> Path:
    """A directory with the wheels that are required, for the Python of the workshop's base."""
    text = "".join(f"{line}\n" for line in requirements)
    key = fingerprint(text, workshop.settings.base)[:16]
    directory = workshop.cache / "downloads" / f"required-{key}"

    def fill(partial: Path) -> Path:
        if requirements:
            wanted = partial / "requirements.txt"
            wanted.write_text(text, encoding="utf-8")
            console.say(f"fetching what the wheel requires: {', '.join(requirements)}")
            script = str(workshop.scripts / "pip-download")
            fetch_in_dev(workshop, [script, "--unlocked", str(wanted), str(partial)], [partial])
        return partial

    if not directory.is_dir():
        make_whole(directory, fill)
    return directory


def test(s: Site, file: Path) -> testing.Tested:
    """Install a wheel by pip in a bare image and run the tests of what is installed, offline."""
    wanted = testing.installed(s.tree)
    report = s.reports / "wheel.xml"
    report.unlink(missing_ok=True)
    directory = wheelhouse(s.workshop, required(file))
    inside = engine.Docker(s.workshop).inside
    command = [s.script("wheel-test"), inside(file), inside(directory)]
    command += ["python3", "-m", "pytest", f"--junit-xml={inside(report)}"]
    seen = (wanted.home, s.workshop.scripts, file, directory)
    job = Job(
        name=f"test-wheel-{s.tree.project.name}-{s.variant}",
        command=[*command, *testing.pytest_options(s, wanted, [])],
        mounts=[
            *(Mount(path, readonly=True) for path in seen),
            Mount(s.reports),
            *testing.pytest_mounts(),
        ],
        env=testing.PYTEST_ENVIRONMENT,
        workdir="/tmp",
        shm_size=s.workshop.settings.shm_size,
    )
    start = time.monotonic()
    base = s.workshop.settings.base
    status = engine.Docker(s.workshop).run(job, images.ensure_bare(s.workshop))
    result = testing.read_reports({"pytest": report})
    testing.judge(s, f"{file.name} in a bare {base}", result, status)
    console.say(
        f"{console.bold('tested')} {file.name}: {result.executed} tests executed in a bare {base}, "
        f"{console.seconds(time.monotonic() - start)}, {s.shown(report)}"
    )
    return result


def made(s: Site) -> Wheel:
    """Compile, package and make the wheel of a site."""
    from slipway import builds

    if s.tree.wheel:
        raise SlipwayError(
            f"{s.tree.wheel.name} is a wheel already, as its makers built it",
            fix=["invoke deb, or invoke prod"],
            code=USAGE,
        )
    builds.build(s)
    return wheel(s, packages.deb(s).file)

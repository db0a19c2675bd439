"""``invoke init``: look at a source tree and write its project.yaml.

What can be seen is not asked for; what cannot is marked in the file. Nothing is written into the
tree, except by ``--adopt``, which puts Slipway itself beside it (see ``slipway.adopt``).
"""

from __future__ import annotations

import contextlib
import re
import shlex
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from msgspec.structs import replace
from packaging.requirements import Requirement
from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    parse_sdist_filename,
    parse_wheel_filename,
)
from packaging.version import InvalidVersion

from slipway import console, draft
from slipway.adopt import adopt as adopt_into
from slipway.base import suite_of
from slipway.errors import (
    BAD_CONFIG,
    CANNOT_CREATE,
    NO_INPUT,
    UNAVAILABLE,
    USAGE,
    SlipwayError,
)
from slipway.project import check_tree
from slipway.project import read as read_project
from slipway.receipts import write_whole
from slipway.records import Record
from slipway.settings import Workshop
from slipway.survey import Survey, survey, survey_wheel
from slipway.survey.ground import Seen

ARCHIVES = (".tar.gz", ".zip")
NAME = r"[a-z0-9][a-z0-9+.-]+"
RULE = "small letters, digits, + - . and at least two characters, the first a letter or a digit"

# The Python of each base image, for which a wheel has to be.
PYTHONS = {"bookworm": "cp311", "trixie": "cp313"}
NEWEST_PYTHON = "cp313"


class Subject(Record, frozen=True):
    """What was looked at, and how project.yaml names it."""

    place: Path
    seen: Survey
    source: Mapping[str, Any]
    """The part ``source`` of project.yaml."""
    tree: Path | None
    """The source tree, while it is there; a wheel has none."""
    remark: str = ""


def init(
    workshop: Workshop,
    source: str,
    name: str = "",
    *,
    adopt: bool = False,
    force: bool = False,
    schema: bool = False,
    app: str = "",
) -> None:
    """Look at ``source`` and write ``projects/NAME.yaml``, or with ``adopt`` ``SOURCE/slipway``.

    :param source: directory of a source tree, a wheel, or an sdist.
    :param force: replace a file that is there.
    :param schema: print the JSON Schema instead.
    :param app: make this folder instead, with an application to begin with.
    """
    if app:
        from slipway import applications

        applications.begin(workshop, app)
        return
    if schema:
        from slipway import schema as of_types

        console.say(of_types.text().rstrip())
        return
    place = existing(workshop, source)
    if adopt and not place.is_dir():
        raise SlipwayError(
            f"{place} is not a directory: nothing can be put beside it",
            fix=[shlex.join(["invoke", "init", "--source", str(place)])],
            code=USAGE,
        )
    if name:
        check_name(name)
    with looked_at(workshop, place) as subject:
        named = name or name_of(subject)
        seen = replace(subject.seen, pip=pinned(workshop, subject.seen))
        if name:
            seen = replace(seen, name=Seen(name, "--name"))
        subject = replace(subject, seen=seen)
        if adopt:
            beside = replace(subject, place=Path(".."), source={"directory": ".."})
            text = text_of(beside, named, "slipway/project.schema.json")
            check(text, subject)
            adopt_into(workshop, place, text)
            command = f"cd {shlex.quote(str(place / 'slipway'))} && ./go invoke all"
        else:
            file = workshop.root / "projects" / f"{named}.yaml"
            text = text_of(subject, named, "../slipway/project.schema.json")
            check(text, subject)
            put(workshop, file, text, force=force)
            shown = console.shown(file, workshop.root)
            command = shlex.join(["./go", "invoke", "all", "--project", shown])
    tell(subject, named, command)


# -- looking


def existing(workshop: Workshop, source: str) -> Path:
    """The directory or file that ``--source`` names."""
    again = "invoke init --source DIR, with the directory of a source tree, a wheel or an sdist"
    if not source:
        raise SlipwayError("init needs --source: what to look at", fix=[again], code=USAGE)
    place = Path(source).expanduser().resolve()
    if not place.exists():
        raise SlipwayError(f"no directory or file {place}", fix=[again], code=NO_INPUT)
    if place == workshop.root:
        raise SlipwayError(f"{place} is Slipway itself", fix=[again], code=USAGE)
    if place.is_file() and not place.name.endswith((".whl", *ARCHIVES)):
        raise SlipwayError(
            f"{place.name} is no source tree, no wheel and no sdist",
            cause=f"a wheel's name ends in .whl, an sdist's in {' or '.join(ARCHIVES)}",
            fix=[again],
            code=USAGE,
        )
    return place


@contextlib.contextmanager
def looked_at(workshop: Workshop, place: Path) -> Iterator[Subject]:
    """Survey a directory, a wheel, or an sdist, which is unpacked as long as this lasts."""
    in_image = (workshop.scripts / "packages-dev.txt").read_text(encoding="utf-8").split()
    if place.is_dir():
        yield Subject(place, survey(place, in_image), {"directory": str(place)}, place)
    elif place.name.endswith(".whl"):
        yield Subject(place, survey_wheel(place), source_of_wheel(place), None)
    else:
        from slipway.unpack import unpack

        with tempfile.TemporaryDirectory(prefix="slipway-init-") as directory:
            tree = unpack(place, Path(directory))
            remark = "fetched from the package index, which has to have this very file"
            yield Subject(place, survey(tree, in_image), source_of_sdist(place), tree, remark)


def source_of_wheel(wheel: Path) -> dict[str, Any]:
    """How project.yaml names a prebuilt wheel."""
    from slipway.fetched import sha256

    try:
        _, version, _, tags = parse_wheel_filename(wheel.name)
    except (InvalidWheelFilename, InvalidVersion) as error:
        raise _misnamed(wheel, str(error)) from None
    digest, tag = sha256(wheel), next(iter(tags))
    one = tag.interpreter.startswith("cp") and tag.abi != "abi3"
    name = wheel.name.split("-")[0].replace("_", "-")
    digests = {tag.interpreter: digest} if one else digest
    return {"wheel": name, "version": str(version), "sha256": digests}


def source_of_sdist(archive: Path) -> dict[str, Any]:
    """How project.yaml names an sdist."""
    from slipway.fetched import sha256

    try:
        name, version = parse_sdist_filename(archive.name)
    except (InvalidSdistFilename, InvalidVersion) as error:
        raise _misnamed(archive, str(error)) from None
    return {"sdist": str(name), "version": str(version), "sha256": sha256(archive)}


def _misnamed(file: Path, words: str) -> SlipwayError:
    return SlipwayError(
        f"{file.name} does not say which release it is",
        cause=words,
        fix=[
            "give it the name that it has in the package index, such as NAME-1.2.0.tar.gz",
            "unpack it, and invoke init --source DIR",
        ],
        code=USAGE,
    )


def check_name(name: str) -> None:
    """Refuse what Debian takes for no name of a package."""
    if not re.fullmatch(NAME, name):
        legal = legal_name(name)
        raise SlipwayError(
            f"'{name}' is no name for a Debian package",
            cause=RULE,
            fix=[f"invoke init --name {legal}" if legal else "invoke init --name NAME"],
            code=USAGE,
        )


def legal_name(text: str) -> str:
    """The nearest name that Debian takes; empty: there is none."""
    name = re.sub(r"[^a-z0-9+.-]+", "-", text.lower()).strip("-+.")
    return name if re.fullmatch(NAME, name) else ""


def name_of(subject: Subject) -> str:
    """The name that the tree gives itself, else that of its release or its directory."""
    told = subject.seen.name.value if subject.seen.name else ""
    released = str(subject.source.get("sdist") or subject.source.get("wheel") or "")
    name = legal_name(told) or legal_name(released or subject.place.name)
    if not name:
        raise SlipwayError(
            f"no name for {subject.place} can be seen",
            cause=f"a Debian package's has {RULE}",
            fix=[shlex.join(["invoke", "init", "--source", str(subject.place), "--name", "NAME"])],
            code=USAGE,
        )
    return name


def pinned(workshop: Workshop, seen: Survey) -> tuple[Seen, ...]:
    """What the build backend needs, each at the newest version that will do."""
    found, silent = [], False
    for wanted, where in ((row.value, row.where) for row in seen.pip):
        requirement = Requirement(wanted)
        version = None
        if any(part.operator == "==" and "*" not in part.version for part in requirement.specifier):
            found.append(Seen(wanted, where))
            continue
        if not silent:
            try:
                version = newest(workshop, requirement)
            except SlipwayError as error:
                if error.code not in (UNAVAILABLE, BAD_CONFIG):
                    raise
                silent = True  # the others would wait for the same silence
        if version:
            extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
            pin = f"{requirement.name}{extras}=={version}"
            found.append(Seen(pin, f"newest for {wanted}, {where}"))
        else:
            why = "cannot be asked" if silent else "has no such wheel"
            found.append(Seen(wanted, f"{where}; not pinned: the package index {why}"))
    return tuple(found)


def newest(workshop: Workshop, requirement: Requirement) -> str | None:
    """The newest version for the Python of the base image."""
    from slipway import indexes

    python = PYTHONS.get(suite_of(workshop.settings.base), NEWEST_PYTHON)
    return indexes.newest(workshop, requirement, python)


# -- writing


def text_of(subject: Subject, name: str, schema: str) -> str:
    """The text of project.yaml."""
    return draft.draft(
        subject.seen,
        name=name,
        source=subject.source,
        remark=subject.remark,
        place=str(subject.place),
        schema=schema,
    )


def check(text: str, subject: Subject) -> None:
    """Read the text back before it stands anywhere: what is written is right."""
    with tempfile.TemporaryDirectory(prefix="slipway-init-") as directory:
        file = Path(directory) / "project.yaml"
        file.write_text(text, encoding="utf-8")
        project = read_project(file)
        if subject.tree:
            check_tree(subject.tree, project, file)


def put(workshop: Workshop, file: Path, text: str, *, force: bool) -> None:
    """Write project.yaml, unless another is there."""
    shown = console.shown(file, workshop.root)
    there = file.read_text(encoding="utf-8") if file.is_file() else None
    is_other = there not in (None, text)
    if workshop.dry:
        console.say(text.rstrip())
        console.say(f"{shown} would be {'replaced, with --force' if is_other else 'written'}")
        return
    if is_other and not force:
        raise SlipwayError(
            f"{shown} is there already, and says something else",
            cause="it may have been edited; nothing was written",
            fix=[
                "the same command with --force, which replaces it",
                "the same command with --name NAME, which writes another",
                "invoke --dry init ..., which shows what would be written",
            ],
            code=CANNOT_CREATE,
        )
    if there != text:
        write_whole(file, text)
    console.say(f"{shown} {'was the same before' if there == text else 'written'}")


def tell(subject: Subject, name: str, command: str) -> None:
    """What was found, what is left to fill in, and the next command."""
    seen = subject.seen
    tests = ["CTest"] if seen.ctest or seen.options else []
    tests += [f"pytest {seen.pytest.value}"] if seen.pytest else []
    tests += [check.value for check in seen.checks]
    system = f"{seen.mark.kind} ({seen.mark.file})" if seen.mark else "none: a prebuilt wheel"
    source = subject.source.get("version")
    rows = {
        "name": name,
        "system": f"{system} in {seen.directory}" if seen.directory else system,
        "version": source or (_told(seen.version) if seen.version else "none declared: git's tags"),
        "licence": _told(seen.license),
        "tests": ", ".join(tests) or "none seen",
    }
    console.say(f"seen in {subject.place}:")
    for key, value in rows.items():
        console.say(f"  {key:<8} {value}")
    missing = [key for key in ("summary", "license", "maintainer") if getattr(seen, key) is None]
    if missing:
        console.say(f"to be filled in: {', '.join(missing)}")
    console.say(f"next: {command}")


def _told(seen: Seen | None) -> str:
    return f"{seen.value}, from {seen.where}" if seen else "not found"

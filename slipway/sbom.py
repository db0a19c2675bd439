"""Bills of materials in CycloneDX: what an image or a package of a release is made of.

An image is asked from inside (``scripts/sbom``), a package is read. What is found becomes ``Part``
records, which the format's own library writes; the same input gives the same bytes.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from slipway import engine, isa
from slipway.audit import undamaged
from slipway.engine import LABEL
from slipway.errors import BAD_DATA, NO_INPUT, SlipwayError
from slipway.fetched import sha256
from slipway.images import ALIAS
from slipway.isa import UnreadableError
from slipway.manifest import Manifest
from slipway.receipts import write_whole
from slipway.records import Record
from slipway.settings import Workshop

if TYPE_CHECKING:  # the library takes 100 ms to import, and only a release needs it
    from cyclonedx.model.component import Component

DIRECTORY = "sbom"
SUFFIX = ".cdx.json"
MACHINE_READABLE = "copyright-format"  # stands in the Format: of a copyright file by DEP-5

# Short names of DEP-5 that SPDX calls by another one; GNU licences follow a rule, see ``spdx``.
SPDX = {
    "Expat": "MIT",
    "Apache-2": "Apache-2.0",
    "Artistic": "Artistic-1.0-Perl",
    "Boost-1": "BSL-1.0",
    "MPL-2": "MPL-2.0",
    "PSF-2": "PSF-2.0",
}


class Part(Record, frozen=True):
    """One thing in a bill of materials."""

    name: str
    version: str
    purl: str
    """Empty for an image, which has no registry yet."""
    kind: str = "library"
    """Of CycloneDX's component types: ``library``, ``container``."""
    licenses: tuple[str, ...] = ()
    """As they are declared: SPDX's names where there is one."""
    sha256: str = ""
    facts: Mapping[str, str] = msgspec.field(default_factory=dict)
    """What has no field of its own, as ``slipway:NAME``."""
    needs: tuple[str, ...] = ()
    """References of the parts that it depends on."""

    @property
    def reference(self) -> str:
        """What others call it in the same bill."""
        return self.purl or f"{self.name}@{self.version}"


class Distribution(Record, frozen=True):
    """Python metadata in an image, as ``scripts/sbom`` prints it."""

    path: str
    head: str
    owner: str


class Inside(Record, frozen=True):
    """What an image holds, as ``scripts/sbom`` prints it."""

    os_release: str
    status: str
    copyrights: dict[str, str]
    distributions: list[Distribution]


class Relation(Record, frozen=True):
    """One package that Debian's Depends names."""

    name: str
    bound: str
    """``>= 2.38``, or empty."""


# -- deciding: pure functions


def spdx(name: str) -> str:
    """SPDX's name of a licence that DEP-5 calls ``GPL-2+``; the same where there is none."""
    gnu = re.fullmatch(r"([AL]?GPL|GFDL)-(\d)(\.\d)?(\+?)", name)
    if gnu:
        family, major, minor, later = gnu.groups()
        return f"{family}-{major}{minor or '.0'}-{'or-later' if later else 'only'}"
    return SPDX.get(name, name)


def declared(copyright_file: str) -> tuple[str, ...]:
    """The licences that a Debian copyright file names, if it is one that a machine can read."""
    lines = copyright_file.splitlines()
    if not any(x.startswith("Format:") and MACHINE_READABLE in x for x in lines):
        return ()
    names = (x.removeprefix("License:").strip() for x in lines if x.startswith("License:"))
    return tuple(sorted({spdx(name) for name in names if name}))


def declared_by(fields: Message) -> tuple[str, ...]:
    """The licences that Python metadata names: as an expression, in a word, or by classifiers."""
    if expression := fields.get("License-Expression"):
        return (expression.strip(),)
    word = str(fields.get("License") or "").strip()
    if word and "\n" not in word and len(word) < 80 and word.upper() != "UNKNOWN":
        return (word,)
    rows = (str(c).split(" :: ") for c in fields.get_all("Classifier", []))
    return tuple(sorted(row[-1] for row in rows if row[0] == "License" and len(row) > 2))


def relations(text: str) -> list[list[Relation]]:
    """A Depends field: what is needed, each with its alternatives."""
    found = []
    for group in text.split(","):
        matches = (
            re.fullmatch(r"([a-z0-9][a-z0-9+.-]*)(?::\w+)?\s*(?:\(([^)]*)\))?.*", part.strip())
            for part in group.split("|")
        )
        named = [Relation(m[1], (m[2] or "").strip()) for m in matches if m]
        found += [named] if named else []
    return found


def debian_purl(vendor: str, name: str, version: str = "", **more: str) -> str:
    """``pkg:deb/debian/libc6@2.41-12?arch=amd64&distro=trixie``.

    :param vendor: ``debian``, or the project for a package of our own: Debian may have another one
        of that name, whose weaknesses are not ours.
    """
    from packageurl import PackageURL

    return str(PackageURL("deb", vendor, name, version, {k: v for k, v in more.items() if v}))


def python_purl(name: str, version: str = "", **more: str) -> str:
    """``pkg:pypi/numpy@2.2.4``."""
    from packageurl import PackageURL

    return str(PackageURL("pypi", None, canonicalize_name(name), version, more))


def fields_of(text: str) -> Message:
    """A paragraph of ``Name: value`` lines, of dpkg or of Python metadata."""
    return HeaderParser().parsestr(text)


def required(fields: Message) -> list[Requirement]:
    """What Python metadata requires of everybody, extras left out."""
    found = []
    for text in fields.get_all("Requires-Dist", []):
        try:
            requirement = Requirement(text)
        except InvalidRequirement:  # of before PEP 508
            continue
        if not (requirement.marker and "extra" in str(requirement.marker)):
            found.append(requirement)
    return found


def parts_of(inside: Inside, vendor: str, own: Mapping[tuple[str, str], str]) -> list[Part]:
    """The parts of an image, each with what it depends on.

    :param vendor: the project.
    :param own: name and version of each package of the project to the hash of its file.
    """
    release = dict(x.split("=", 1) for x in inside.os_release.splitlines() if "=" in x)
    release = {key: value.strip('"') for key, value in release.items()}
    paragraphs = map(fields_of, inside.status.strip().split("\n\n"))
    installed = [p for p in paragraphs if str(p.get("Status", "")).startswith("ii")]
    python = [(fields_of(d.head), d) for d in inside.distributions]
    debian = _debian_parts(installed, python, inside.copyrights, vendor, own, release)
    return [*debian, *_python_parts(f for f, d in python if not d.owner)]


def _debian_parts(
    installed: Sequence[Message],
    python: Sequence[tuple[Message, Distribution]],
    copyrights: Mapping[str, str],
    vendor: str,
    own: Mapping[tuple[str, str], str],
    release: Mapping[str, str],
) -> list[Part]:
    purls, here = {}, {}
    for p in installed:
        is_source = (p["Source"], p["Source-Version"]) == (p["Package"], p["Version"])
        purl = debian_purl(
            vendor if (p["Package"], p["Version"]) in own else release.get("ID", "debian"),
            p["Package"],
            p["Version"],
            arch=p["Architecture"],
            distro=release.get("VERSION_CODENAME", ""),
            upstream="" if is_source else f"{p['Source']}@{p['Source-Version']}",
        )
        purls[p["Package"]] = here[p["Package"]] = purl
        for group in relations(p["Provides"]):
            here.setdefault(group[0].name, purl)
    parts = []
    for p in installed:
        depends = relations(f"{p['Pre-Depends']},{p['Depends']}")
        names = (next((r.name for r in group if r.name in here), "") for group in depends)
        # Debian's build of a distribution has Debian's patches: it is no package of PyPI's.
        brought = [f"{f['Name']} {f['Version']}" for f, d in python if d.owner == p["Package"]]
        parts.append(
            Part(
                p["Package"],
                p["Version"],
                purls[p["Package"]],
                licenses=declared(copyrights.get(p["Package"], "")),
                sha256=own.get((p["Package"], p["Version"]), ""),
                facts={"python": ", ".join(sorted(brought))} if brought else {},
                needs=_sorted(here[n] for n in names if n and here[n] != purls[p["Package"]]),
            )
        )
    return parts


def _python_parts(found: Iterable[Message]) -> list[Part]:
    by_name = {canonicalize_name(f["Name"]): f for f in found}
    purls = {name: python_purl(name, f["Version"]) for name, f in by_name.items()}
    parts = []
    for name, f in by_name.items():
        wanted = (canonicalize_name(r.name) for r in required(f))
        needs = _sorted(purls[n] for n in wanted if n in purls)
        parts.append(
            Part(f["Name"], f["Version"], purls[name], licenses=declared_by(f), needs=needs)
        )
    return parts


def _sorted(references: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(references)))


def roots(parts: Sequence[Part]) -> tuple[str, ...]:
    """References of the parts that no other one needs: what was installed for its own sake."""
    needed = {reference for part in parts for reference in part.needs}
    return _sorted(p.reference for p in parts if p.reference not in needed)


def of_control(
    fields: Message, licenses: tuple[str, ...], sha256: str, vendor: str
) -> tuple[Part, list[Part]]:
    """A Debian package, and what it depends on, with bounds in place of versions."""
    name, version = fields["Package"], fields["Version"]
    needed = {}
    for group in relations(f"{fields.get('Pre-Depends', '')},{fields.get('Depends', '')}"):
        first, *others = group
        is_sibling = first.bound == f"= {version}"  # what oar-dev says of oar
        facts = {"bound": first.bound, "or": " | ".join(r.name for r in others)}
        needed[first.name] = Part(
            first.name,
            version if is_sibling else "",
            debian_purl(vendor if is_sibling else "debian", first.name),
            facts={key: value for key, value in facts.items() if value},
        )
    main = Part(
        name,
        version,
        debian_purl(vendor, name, version, arch=fields["Architecture"]),
        licenses=licenses,
        sha256=sha256,
        needs=_sorted(p.reference for p in needed.values()),
    )
    return main, list(needed.values())


def of_metadata(fields: Message, file: str, sha256: str) -> tuple[Part, list[Part]]:
    """A wheel, and what it requires, with bounds in place of versions."""
    needed = {}
    for r in required(fields):
        facts = {"bound": str(r.specifier)} if str(r.specifier) else {}
        needed[r.name] = Part(r.name, "", python_purl(r.name), facts=facts)
    main = Part(
        fields["Name"],
        fields["Version"],
        python_purl(fields["Name"], fields["Version"], file_name=file),
        licenses=declared_by(fields),
        sha256=sha256,
        needs=_sorted(p.reference for p in needed.values()),
    )
    return main, list(needed.values())


def document(main: Part, parts: Iterable[Part], epoch: int) -> str:
    """A bill of materials as text: CycloneDX 1.6 in JSON.

    :param main: what it is of.
    :param epoch: its date, in seconds since 1970.
    """
    import uuid

    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6

    bom = Bom()
    about = f"{main.reference} {main.sha256} {epoch}"
    bom.serial_number = uuid.uuid5(uuid.NAMESPACE_URL, about)  # the same thing has the same number
    bom.metadata.timestamp = datetime.fromtimestamp(epoch, timezone.utc)
    bom.metadata.tools.components.add(Component(name="slipway", type=ComponentType.APPLICATION))
    bom.metadata.component = _component(main)
    made = {part.reference: _component(part) for part in parts}
    bom.components.update(made.values())
    for part, component in [
        (main, bom.metadata.component),
        *((p, made[p.reference]) for p in parts),
    ]:
        bom.register_dependency(component, [made[n] for n in part.needs if n in made])
    return str(JsonV1Dot6(bom).output_as_string(indent=1)) + "\n"


def _component(part: Part) -> Component:
    from cyclonedx.model import HashAlgorithm, HashType, Property
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    return Component(
        name=part.name,
        version=part.version or None,
        type=ComponentType(part.kind),
        bom_ref=part.reference,
        purl=PackageURL.from_string(part.purl) if part.purl else None,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=part.sha256)] if part.sha256 else [],
        licenses=_licenses(part.licenses),
        properties=[Property(name=f"slipway:{k}", value=v) for k, v in part.facts.items()],
    )


def _licenses(names: Sequence[str]) -> list[Any]:
    """An expression alone, else each licence by SPDX's identity or by its name."""
    from cyclonedx import spdx as known
    from cyclonedx.model.license import DisjunctiveLicense, LicenseExpression

    is_alone = len(names) == 1
    if is_alone and not known.fixup_id(names[0]) and known.is_expression(names[0]):
        return [LicenseExpression(names[0])]
    fixed = {known.fixup_id(name) or name: bool(known.fixup_id(name)) for name in names}
    return [
        DisjunctiveLicense(id=name) if is_id else DisjunctiveLicense(name=name)
        for name, is_id in sorted(fixed.items())
    ]


def file_name(what: str) -> str:
    """The file for an alias or a package: ``oar:1.2.0`` has ``oar-1.2.0.cdx.json``."""
    return re.sub(r"[:/]", "-", what) + SUFFIX


# -- looking: what is read


def read_deb(file: Path) -> tuple[Message, str]:
    """The control fields of a Debian package, and the text of its copyright file."""
    with undamaged(str(file)):
        members = {n.partition(".tar")[0]: c for n, c in isa.members(file.read_bytes())}
        if not {"control", "data"} <= set(members):
            raise UnreadableError("has no control.tar and data.tar: it is no Debian package")
        control = _member(members["control"], r"control")
        name = fields_of(control)["Package"]
        return fields_of(control), _member(
            members["data"], rf"usr/share/doc/{re.escape(name)}/copyright"
        )


def _member(archive: bytes, pattern: str) -> str:
    """The text of the file of a tar archive whose path fits; empty where there is none."""
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r|*") as tar:
        for info in tar:
            stream = tar.extractfile(info) if info.isreg() else None
            if stream and re.fullmatch(pattern, info.name.removeprefix("./")):
                return stream.read().decode()
    return ""


def read_wheel(file: Path) -> Message:
    """The metadata of a wheel."""
    with undamaged(str(file)), zipfile.ZipFile(file) as archive:
        name = next((n for n in archive.namelist() if n.endswith(".dist-info/METADATA")), "")
        if not name:
            raise UnreadableError("has no METADATA: it is no wheel")
        return fields_of(archive.read(name).decode())


def of_package(file: Path, epoch: int, vendor: str) -> str:
    """The bill of materials of a Debian package or a wheel.

    :param epoch: its date, in seconds since 1970.
    :param vendor: the project, which tells its packages from Debian's of the same name.
    """
    digest = sha256(file)
    if file.suffix == ".whl":
        main, parts = of_metadata(read_wheel(file), file.name, digest)
    else:
        fields, copyright_file = read_deb(file)
        main, parts = of_control(fields, declared(copyright_file), digest, vendor)
    return document(main, parts, epoch)


def ask_image(workshop: Workshop, image: str) -> Inside:
    """What an image holds, by its own package managers; it is started once, without a network."""
    script = workshop.scripts / "sbom"
    mount = engine.mount_argument(str(script), "/run/slipway/sbom", readonly=True)
    argv = ["run", "--rm", "--network", "none", "--label", f"{LABEL}={workshop.checkout}"]
    argv += ["--mount", mount, "--entrypoint", "/usr/bin/python3", image, "/run/slipway/sbom"]
    said = engine.ask(argv, f"list what is in {image}")
    try:
        return msgspec.json.decode(said, type=Inside)
    except msgspec.DecodeError as error:
        raise SlipwayError(
            f"what is in {image} could not be listed",
            cause=f"{error}; it began with {said[:200]!r}",
            fix=[f"docker run --rm --entrypoint python3 {image} --version"],
            code=BAD_DATA,
        ) from error


def of_image(workshop: Workshop, image: str, epoch: int, debs: Sequence[Path] = ()) -> str:
    """The bill of materials of a production image or of the book's.

    :param image: its id or a name of it.
    :param epoch: its date, in seconds since 1970.
    :param debs: the project's own packages, of which one is installed in it.
    """
    found = engine.inspect_images(image)
    if image not in found:
        raise SlipwayError(
            f"no image {image} in this engine",
            fix=["invoke prod --variant all"],
            code=NO_INPUT,
        )
    labels: dict[str, str] = found[image]["Config"]["Labels"] or {}
    own = {}
    for deb in debs:
        fields, _ = read_deb(deb)
        own[fields["Package"], fields["Version"]] = sha256(deb)
    vendor = labels.get("slipway.project", "slipway")
    parts = parts_of(ask_image(workshop, image), vendor, own)
    name, _, tag = (labels.get(ALIAS) or image).rpartition(":")
    licenses = labels.get("org.opencontainers.image.licenses")
    main = Part(
        name or tag,
        labels.get("org.opencontainers.image.version", ""),
        "",
        kind="container",
        licenses=(licenses,) if licenses else (),
        sha256=found[image]["Id"].removeprefix("sha256:"),
        facts={"alias": labels[ALIAS]} if ALIAS in labels else {},
        needs=roots(parts),
    )
    return document(main, parts, epoch)


# -- acting


def make(workshop: Workshop, directory: Path, manifest: Manifest) -> list[Path]:
    """Write a bill for each image, package and wheel of a release into its ``sbom/``.

    :param directory: where the files of the manifest lie.
    """
    texts = {}
    packages = [f for f in manifest.files if f.kind in ("deb", "wheel")]
    for file in packages:
        path = directory / file.name
        texts[file_name(path.name)] = of_package(path, manifest.epoch, manifest.project)
    debs = [directory / f.name for f in packages if f.kind == "deb"]
    for image in manifest.images:
        bill = of_image(workshop, image.id, manifest.epoch, debs)
        texts[file_name(image.alias)] = bill
    for name, text in texts.items():
        write_whole(directory / DIRECTORY / name, text)
    return [directory / DIRECTORY / name for name in sorted(texts)]


class Row(Record, frozen=True):
    """One part of a bill, as a table shows it."""

    name: str
    version: str
    licenses: tuple[str, ...]
    purl: str


class Bill(Record, frozen=True):
    """A bill that was written, as a table shows it."""

    name: str
    version: str
    rows: tuple[Row, ...]


def read(file: Path) -> Bill:
    """Read a bill back, for people."""
    data = json.loads(file.read_text(encoding="utf-8"))
    main = data["metadata"]["component"]
    rows = []
    for c in data.get("components", []):
        named = (
            x.get("expression") or x["license"].get("id") or x["license"].get("name")
            for x in c.get("licenses", [])
        )
        rows.append(Row(c["name"], c.get("version", ""), tuple(named), c.get("purl", "")))
    return Bill(main["name"], main.get("version", ""), tuple(rows))

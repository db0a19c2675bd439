"""Bills of materials: what is read from packages and images, and what is written of it."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from slipway import sbom
from slipway.errors import BAD_DATA, SlipwayError
from slipway.sbom import Distribution, Inside, Relation
from tests.unit.fakes import EPOCH

DEP5 = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n"
RELEASE = 'ID=debian\nVERSION_CODENAME=trixie\nPRETTY_NAME="Debian 13"\n'
OWN = "ab" * 32


def paragraph(name: str, version: str, **fields: str) -> str:
    """One package as scripts/sbom prints it."""
    full = {"Architecture": "amd64", "Source": name, "Source-Version": version, "Depends": ""}
    full |= {"Pre-Depends": "", "Provides": "", "Status": "ii "}
    full |= {key.replace("_", "-"): value for key, value in fields.items()}
    lines = [f"{key}: {value}" for key, value in full.items()]
    return "\n".join([f"Package: {name}", f"Version: {version}", *lines])


INSIDE = Inside(
    os_release=RELEASE,
    status="\n\n".join(
        [
            paragraph("libc6", "2.41-12", Source="glibc"),
            paragraph("oar", "1.2.0+deb13", Depends="libc6 (>= 2.38), blas | libblas3, gone"),
            paragraph("libopenblas0", "0.3", Provides="libblas3 (= 3), liblapack3"),
            paragraph("python3-numpy", "1:2.2", Pre_Depends="libc6"),
            paragraph("removed", "1", Status="rc "),
        ]
    ),
    copyrights={"libc6": DEP5 + "License: GPL-2+\nLicense: Expat\nLicense: Expat"},
    distributions=[
        Distribution(
            "/usr/lib/python3/dist-packages/numpy.egg-info",
            "Name: numpy\nVersion: 2.2",
            "python3-numpy",
        ),
        Distribution(
            "/opt/book/lib/python3.13/site-packages/a_b.dist-info",
            "Name: a_b\nVersion: 1\nLicense-Expression: MIT OR Apache-2.0\nRequires-Dist: c.d>=2",
            "",
        ),
        Distribution("/opt/book/lib/python3.13/site-packages/c.d", "Name: c.d\nVersion: 2", ""),
    ],
)


def written(text: str) -> dict[str, Any]:
    """A bill that has been held to the format's schema."""
    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    assert problem is None, str(problem)[:2000]
    data: dict[str, Any] = json.loads(text)
    return data


@pytest.mark.parametrize(
    ("debian", "name"),
    [
        ("GPL-2+", "GPL-2.0-or-later"),
        ("LGPL-2.1", "LGPL-2.1-only"),
        ("GFDL-1.3+", "GFDL-1.3-or-later"),
        ("Expat", "MIT"),
        ("BSD-3-clause", "BSD-3-clause"),
        ("GPL-3+ with GCC exception", "GPL-3+ with GCC exception"),
    ],
)
def test_a_licence_has_its_name_by_spdx(debian: str, name: str) -> None:
    assert sbom.spdx(debian) == name


def test_licences_are_read_only_where_a_machine_can() -> None:
    assert sbom.declared(DEP5 + "License: GPL-2+\nText\nLicense: Expat\n") == (
        "GPL-2.0-or-later",
        "MIT",
    )
    assert sbom.declared("This is free software.\nLicense: GPL-2+\n") == ()


@pytest.mark.parametrize(
    ("head", "names"),
    [
        ("License-Expression: MIT OR Apache-2.0\nLicense: MIT", ("MIT OR Apache-2.0",)),
        ("License: BSD", ("BSD",)),
        ("License: UNKNOWN\nClassifier: License :: OSI Approved :: ISC License", ("ISC License",)),
        ("License: Copyright\n  and a whole text", ()),
        ("Classifier: Topic :: Software", ()),
    ],
)
def test_a_distribution_says_its_licence_in_one_of_three_ways(
    head: str, names: tuple[str, ...]
) -> None:
    assert sbom.declared_by(sbom.fields_of(head)) == names


def test_a_depends_field_has_bounds_and_alternatives() -> None:
    assert sbom.relations("libc6 (>= 2.38), python3:any | python3-minimal (<< 4) [amd64],") == [
        [Relation("libc6", ">= 2.38")],
        [Relation("python3", ""), Relation("python3-minimal", "<< 4")],
    ]
    assert sbom.relations("") == []


def test_an_image_has_each_installed_part_once_with_what_it_needs() -> None:
    parts = {p.name: p for p in sbom.parts_of(INSIDE, "oar", {("oar", "1.2.0+deb13"): OWN})}
    assert set(parts) == {"libc6", "oar", "libopenblas0", "python3-numpy", "a_b", "c.d"}
    libc = parts["libc6"]
    assert libc.purl == (
        "pkg:deb/debian/libc6@2.41-12?arch=amd64&distro=trixie&upstream=glibc%402.41-12"
    )
    assert libc.licenses == ("GPL-2.0-or-later", "MIT")
    # Debian may have another package of that name; and a name that only something else provides.
    assert parts["oar"].purl.startswith("pkg:deb/oar/oar@1.2.0")
    assert parts["oar"].sha256 == OWN
    assert parts["oar"].needs == tuple(sorted([libc.purl, parts["libopenblas0"].purl]))
    assert parts["python3-numpy"].facts == {"python": "numpy 2.2"}
    assert parts["a_b"].purl == "pkg:pypi/a-b@1"
    assert parts["a_b"].needs == (parts["c.d"].purl,)
    top = sbom.roots(list(parts.values()))
    assert top == tuple(sorted(parts[n].purl for n in ("oar", "python3-numpy", "a_b")))


def test_a_bill_holds_to_the_schema_and_is_the_same_each_time() -> None:
    parts = sbom.parts_of(INSIDE, "oar", {})
    main = sbom.Part("oar", "1.2.0", "", "container", ("Apache-2.0",), OWN, needs=sbom.roots(parts))
    text = sbom.document(main, parts, EPOCH)
    assert text == sbom.document(main, list(reversed(parts)), EPOCH)
    data = written(text)
    assert data["metadata"]["timestamp"] == "2023-11-14T22:13:20+00:00"
    about = data["metadata"]["component"]
    assert (about["type"], about["hashes"][0]["content"]) == ("container", OWN)
    licences = {c["name"]: c.get("licenses") for c in data["components"]}
    assert licences["a_b"] == [{"expression": "MIT OR Apache-2.0"}]
    assert {x["license"].get("id") for x in licences["libc6"]} == {"GPL-2.0-or-later", "MIT"}
    edges = {d["ref"]: d.get("dependsOn", []) for d in data["dependencies"]}
    assert edges["oar@1.2.0"] == list(main.needs)
    assert sbom.document(main, parts, EPOCH + 1) != text


def make_deb(directory: Path, *, depends: str, name: str = "oar") -> Path:
    """A Debian package with the two files that are read."""

    def archive(path: str, text: str) -> bytes:
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w:xz") as tar:
            info = tarfile.TarInfo(path)
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
        return raw.getvalue()

    control = f"Package: {name}\nVersion: 1.2.0+deb13\nArchitecture: amd64\nDepends: {depends}\n"
    members = {
        "debian-binary": b"2.0\n",
        "control.tar.xz": archive("./control", control),
        "data.tar.xz": archive(f"./usr/share/doc/{name}/copyright", DEP5 + "License: MPL-2\n"),
    }
    file = directory / f"{name}_1.2.0+deb13_amd64.deb"
    with file.open("wb") as stream:
        stream.write(b"!<arch>\n")
        for member, content in members.items():
            stream.write(
                f"{member:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode()
            )
            stream.write(content + b"\n" * (len(content) % 2))
    return file


def test_a_debian_package_names_what_it_depends_on(tmp_path: Path) -> None:
    depends = "oar-data (= 1.2.0+deb13), libc6 (>= 2.38), libblas3 | libblas.so.3"
    file = make_deb(tmp_path, depends=depends)
    data = written(sbom.of_package(file, EPOCH, "oar"))
    main = data["metadata"]["component"]
    assert main["purl"] == "pkg:deb/oar/oar@1.2.0%2Bdeb13?arch=amd64"
    assert main["hashes"][0]["content"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert main["licenses"][0]["license"]["id"] == "MPL-2.0"
    parts = {c["name"]: c for c in data["components"]}
    assert parts["oar-data"]["version"] == "1.2.0+deb13"
    assert parts["oar-data"]["purl"].startswith("pkg:deb/oar/")
    assert parts["libc6"]["properties"] == [{"name": "slipway:bound", "value": ">= 2.38"}]
    assert parts["libblas3"]["properties"] == [{"name": "slipway:or", "value": "libblas.so.3"}]


def make_wheel(directory: Path) -> Path:
    file = directory / "oar-1.2.0-cp312-abi3-linux_x86_64.whl"
    with zipfile.ZipFile(file, "w") as archive:
        fields = "Metadata-Version: 2.4\nName: oar\nVersion: 1.2.0\nLicense-Expression: MPL-2.0\n"
        fields += "Requires-Dist: numpy>=1.24\nRequires-Dist: pytest; extra == 'test'\n\nText."
        archive.writestr("oar-1.2.0.dist-info/METADATA", fields)
    return file


def test_a_wheel_names_what_it_requires_of_everybody(tmp_path: Path) -> None:
    file = make_wheel(tmp_path)
    text = sbom.of_package(file, EPOCH, "oar")
    data = written(text)
    assert data["metadata"]["component"]["purl"] == f"pkg:pypi/oar@1.2.0?file_name={file.name}"
    (numpy,) = data["components"]
    assert numpy["purl"] == "pkg:pypi/numpy"
    (tmp_path / "bill").write_text(text)
    bill = sbom.read(tmp_path / "bill")
    assert (bill.name, bill.version) == ("oar", "1.2.0")
    assert [row.name for row in bill.rows] == ["numpy"]


@pytest.mark.parametrize("suffix", [".deb", ".whl"])
def test_a_package_that_was_cut_off_is_called_damaged(tmp_path: Path, suffix: str) -> None:
    whole = make_deb(tmp_path, depends="libc6") if suffix == ".deb" else make_wheel(tmp_path)
    whole.write_bytes(whole.read_bytes()[:-40])
    with pytest.raises(SlipwayError, match="is damaged") as caught:
        sbom.of_package(whole, EPOCH, "oar")
    assert caught.value.code == BAD_DATA


def test_a_bill_is_called_after_what_it_is_of() -> None:
    assert sbom.file_name("oar:1.2.0-noavx") == "oar-1.2.0-noavx.cdx.json"
    assert sbom.file_name("oar_1.2.0_amd64.deb") == "oar_1.2.0_amd64.deb.cdx.json"

"""Bills of materials of what was really built."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from slipway import sbom
from slipway.errors import NO_INPUT, SlipwayError
from slipway.fetched import sha256
from slipway.settings import Settings, Workshop
from tests.integration.conftest import Built
from tests.integration.releases import debs_of, described, release
from tests.integration.workbench import rows_of
from tests.unit.fakes import EPOCH


@pytest.fixture(scope="module")
def workshop(built: Built) -> Workshop:
    return Workshop(built.checkout.root, Settings())


def valid(text: str) -> dict[str, Any]:
    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    assert problem is None, str(problem)[:2000]
    data: dict[str, Any] = json.loads(text)
    return data


def test_the_bill_of_an_image_lists_what_dpkg_has_in_it_and_is_the_same_twice(
    built: Built, workshop: Workshop
) -> None:
    alias = rows_of(built.first.stdout)["image", "noavx"][2]
    debs = debs_of(built.checkout)
    text = sbom.of_image(workshop, alias, EPOCH, list(debs))
    assert text == sbom.of_image(workshop, alias, EPOCH, list(reversed(debs)))
    data = valid(text)
    parts = {c["name"]: c for c in data["components"]}
    argv = ["docker", "run", "--rm", "--network", "none", "--entrypoint", "dpkg-query", alias]
    listed = subprocess.run(
        [*argv, "--show", "--showformat=${Package} ${Version}\n"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert {f"{c['name']} {c['version']}" for c in parts.values()} == set(listed.splitlines())
    (deb,) = (file for file, variant in debs.items() if variant == "noavx")
    ours = parts["oar-noavx"]
    assert ours["hashes"][0]["content"] == sha256(deb)
    assert ours["purl"].startswith("pkg:deb/oar/oar-noavx@")
    assert ours["licenses"][0]["license"]["id"] == "Apache-2.0"
    assert parts["libc6"]["purl"].startswith("pkg:deb/debian/libc6@")
    assert "LGPL-2.1-or-later" in json.dumps(parts["libc6"]["licenses"])
    assert parts["python3-numpy"]["properties"][0]["value"].startswith("numpy ")
    edges = {d["ref"]: d.get("dependsOn", []) for d in data["dependencies"]}
    assert parts["libgomp1"]["purl"] in edges[ours["purl"]]
    main = data["metadata"]["component"]
    assert ours["purl"] in edges[main["bom-ref"]]
    assert main["hashes"][0]["content"] == described_id(alias)


def described_id(alias: str) -> str:
    argv = ["docker", "image", "inspect", "--format", "{{.Id}}", alias]
    said = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    return said.strip().removeprefix("sha256:")


def test_a_release_gets_a_bill_for_each_image_and_package(
    built: Built, workshop: Workshop, client: Any, tmp_path: Path
) -> None:
    alias = rows_of(built.first.stdout)["image", "cpu"][2]
    directory = tmp_path / "oar-1.2.0"
    made = release(directory, debs_of(built.checkout), (described(alias, "cpu"),))
    bills = sbom.make(workshop, directory, made)
    names = {file.name for file in bills}
    assert names == {sbom.file_name(x) for x in (alias, *(f.name for f in made.files))}
    for file in bills:
        valid(file.read_text())
    (deb,) = (f for f in bills if f.name.startswith("oar_"))
    assert "libgomp1" in {row.name for row in sbom.read(deb).rows}


def test_an_image_that_is_not_here_is_named(workshop: Workshop) -> None:
    with pytest.raises(SlipwayError, match="no image oar:nowhere") as caught:
        sbom.of_image(workshop, "oar:nowhere", EPOCH)
    assert caught.value.code == NO_INPUT

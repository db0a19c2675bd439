"""Wheels that we make: where they are built, what they say of themselves, how large they may be."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from slipway.errors import BAD_DATA, USAGE, SlipwayError
from slipway.packages import control
from slipway.project import debian_dependency
from slipway.settings import DEFAULTS
from slipway.variants import TABLE
from slipway.wheels import bases, check_budget, metadata, required, with_base
from tests.unit.fakes import make_site, make_tree, make_workshop


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("", ["debian:trixie-slim"]),
        ("all", ["debian:bookworm-slim", "debian:trixie-slim"]),
        ("bookworm", ["debian:bookworm-slim"]),
        ("trixie, bookworm,trixie", ["debian:trixie-slim", "debian:bookworm-slim"]),
        ("registry.example:5000/own:1", ["registry.example:5000/own:1"]),
    ],
)
def test_a_base_is_a_suite_an_image_or_all(tmp_path: Path, wanted: str, found: list[str]) -> None:
    assert bases(make_workshop(tmp_path), wanted) == found


def test_a_base_with_a_typo_is_told_the_nearest_suite(tmp_path: Path) -> None:
    with pytest.raises(SlipwayError, match="no base 'bookwrom'") as caught:
        bases(make_workshop(tmp_path), "bookwrom")
    assert caught.value.code == USAGE
    assert "bookworm" in caught.value.cause


def test_another_base_has_directories_of_its_own(tmp_path: Path) -> None:
    workshop = make_workshop(tmp_path)
    assert with_base(workshop, workshop.settings.base) is workshop
    other = with_base(workshop, "debian:bookworm-slim")
    assert other.mark == ".bookworm"
    assert other.settings.base == "debian:bookworm-slim"
    assert with_base(workshop, "registry.example:5000/own:1").mark == ".registry-example-5000-own-1"
    site = make_site(tmp_path)
    assert site.out.name == "cpu"


def test_metadata_comes_from_project_yaml(tmp_path: Path) -> None:
    tree = make_tree(
        tmp_path,
        description="Kernels.",
        homepage="https://example.org/oar",
        package={"requires": ["numpy>=1.24"]},
    )
    lines = metadata(tree, "noavx")
    head, body = lines[: lines.index("")], lines[lines.index("") + 1 :]
    assert "Name: oar-noavx" in head
    assert "Version: 1.2.0" in head
    assert "Maintainer-email: Ann Other <ann@example.org>" in head
    assert "Requires-Dist: numpy>=1.24" in head
    assert "Project-URL: Homepage, https://example.org/oar" in head
    assert body[0] == "Kernels."
    assert "x86-64-v2" in body[-2]
    assert "as oar: install one of them" in body[-1]


def test_metadata_names_the_gpus(tmp_path: Path) -> None:
    text = "\n".join(metadata(make_tree(tmp_path, variants=TABLE), "gpu"))
    assert "for x86-64-v3 and for GPUs (sm_80, sm_90, and later ones)" in text


@pytest.mark.parametrize(
    ("requirement", "debian"),
    [
        ("numpy", "python3-numpy"),
        ("NumPy >= 1.24", "python3-numpy (>= 1.24)"),
        ("ruamel.yaml>0.17", "python3-ruamel-yaml (>> 0.17)"),
        ("scipy>=1.9,<2", "python3-scipy (>= 1.9), python3-scipy (<< 2)"),
        ("scipy~=1.9,!=1.11", "python3-scipy"),
    ],
)
def test_a_requirement_is_spelled_for_debian_too(requirement: str, debian: str) -> None:
    assert debian_dependency(requirement) == debian


def test_deb_and_wheel_need_the_same(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, package={"requires": ["numpy>=1.24"], "depends": ["fonts-x"]})
    assert "Depends: @DEPENDS@, python3-numpy (>= 1.24), fonts-x\n" in control(tree, "cpu")
    assert "Requires-Dist: numpy>=1.24" in metadata(tree, "cpu")


@pytest.mark.parametrize("text", ["numpy>>1", "numpy @ https://example.org/numpy.whl"])
def test_what_is_no_requirement_is_refused_when_it_is_read(tmp_path: Path, text: str) -> None:
    with pytest.raises(Exception, match="requires: "):
        make_tree(tmp_path, package={"requires": [text]})


def packed(directory: Path, **files: str) -> Path:
    file = directory / "oar-1.2.0-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        for name, text in files.items():
            archive.writestr(name.replace("__", "/"), text)
    return file


def test_what_a_wheel_requires_of_everybody_is_read_in_it(tmp_path: Path) -> None:
    head = (
        "Metadata-Version: 2.1\nName: oar\nVersion: 1.2.0\nRequires-Dist: scipy\n"
        "Requires-Dist: numpy>=1.17\nRequires-Dist: dask; extra == 'dask'\n"
    )
    file = packed(tmp_path, **{"oar-1.2.0.dist-info__METADATA": head})
    assert required(file) == ["numpy>=1.17", "scipy"]


def test_a_wheel_over_its_budget_names_what_is_large_in_it(tmp_path: Path) -> None:
    file = packed(tmp_path, small="x", oar__large="y" * 1_100_000)
    check_budget(file, 2, "package.wheel_mb")
    with pytest.raises(SlipwayError, match="more than its budget of 1 MB") as caught:
        check_budget(file, 1, "package.wheel_mb")
    assert caught.value.code == BAD_DATA
    assert caught.value.cause.splitlines()[1].endswith("oar/large")
    assert "package.wheel_mb" in caught.value.fix[0]


def test_the_default_budget_is_what_the_index_takes() -> None:
    assert DEFAULTS["budgets"]["wheel_mb"] == 100

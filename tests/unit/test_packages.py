"""What a Debian package says of itself."""

from __future__ import annotations

import email.utils
import re
from pathlib import Path

import pytest
from msgspec.structs import replace

from slipway.errors import BAD_DATA, SlipwayError
from slipway.explain import PACKING, explain
from slipway.packages import (
    changelog,
    control,
    copyright_file,
    overrides,
    package_name,
)
from slipway.project import Tree
from slipway.settings import ROOT
from slipway.variants import TABLE, Variant
from tests.unit.fakes import EPOCH, ROWS, VERSION, make_tree


def fields(text: str) -> dict[str, str]:
    """A control file's fields; what is folded keeps its lines."""
    return {
        match[1]: match[2]
        for match in re.finditer(r"^([A-Z][\w-]*): (.*(?:\n .*)*)$", text, re.MULTILINE)
    }


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return make_tree(tmp_path)


def test_a_variant_s_package_has_its_suffix(tree: Tree) -> None:
    assert package_name(tree, "cpu") == "oar"
    assert package_name(tree, "noavx") == "oar-noavx"


def test_the_control_file_says_what_was_decided(tmp_path: Path) -> None:
    tree = make_tree(
        tmp_path,
        homepage="https://example.org/oar",
        package={"section": "python", "depends": ["python3-numpy", "libgomp1"]},
    )
    assert control(tree, "noavx").endswith("\n")
    assert fields(control(tree, "noavx")) == {
        "Package": "oar-noavx",
        "Version": "@VERSION@",
        "Section": "python",
        "Priority": "optional",
        "Architecture": "@ARCHITECTURE@",
        "Maintainer": "Ann Other <ann@example.org>",
        "Depends": "@DEPENDS@, python3-numpy, libgomp1",
        "Provides": "oar (= @VERSION@)",
        "Conflicts": "oar",
        "Replaces": "oar",
        "Homepage": "https://example.org/oar",
        "Description": "neural-network kernels\n This variant is compiled for x86-64-v2.",
    }


def test_scripts_deb_fills_in_every_mark(tree: Tree) -> None:
    script = (ROOT / "scripts" / "deb").read_text()
    marks = set(re.findall(r"@[A-Z]+@", control(tree, "cpu") + changelog(tree)))
    assert marks == {"@PACKAGE@", "@VERSION@", "@ARCHITECTURE@", "@DEPENDS@", "@DISTRIBUTION@"}
    for mark in marks - {"@ARCHITECTURE@"}:
        assert mark in script
    assert "/^Architecture:/" in script


def test_the_second_package_is_for_compiling_against_the_library(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, package={"dev": True, "depends": ["libgomp1"]})
    found = fields(control(tree, "noavx", dev=True))
    assert found["Package"] == "oar-noavx-dev"
    assert found["Section"] == "libdevel"
    assert found["Depends"] == "@DEPENDS@"
    assert found["Conflicts"] == "oar-dev"
    assert "(development files)" in found["Description"]


def test_packages_that_hold_the_same_files_are_replaced(tmp_path: Path) -> None:
    tree = make_tree(
        tmp_path, variants={"cpu": TABLE["cpu"]}, package={"conflicts": ["liboar2 (<< 3)"]}
    )
    found = fields(control(tree, "cpu"))
    assert found["Conflicts"] == found["Replaces"] == "liboar2 (<< 3)"
    assert "Provides" not in found


def test_overrides_stand_below_their_reasons(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, package={"lintian": {"embedded-library": "its\nown copy"}})
    assert overrides(tree) == "# its own copy\n@PACKAGE@: embedded-library\n"


def test_a_prebuilt_wheel_is_what_its_makers_made_of_it(tmp_path: Path) -> None:
    tree = replace(
        make_tree(tmp_path, package={"lintian": {"embedded-library": "ours"}}),
        wheel=tmp_path / "oar-1.2.0-py3-none-any.whl",
    )
    text = overrides(tree)
    assert "@PACKAGE@: unstripped-binary-or-object\n" in text
    assert "# ours\n@PACKAGE@: embedded-library\n" in text
    assert "This is oar-1.2.0-py3-none-any.whl, as its makers built it." in control(
        tree, "cpu"
    ).replace("\n ", " ")
    assert "made from oar-1.2.0-py3-none-any.whl." in changelog(tree)


def test_a_package_says_for_which_gpus_it_is(tmp_path: Path) -> None:
    text = control(make_tree(tmp_path, variants=TABLE), "gpu")
    assert "and for GPUs (sm_80, sm_90, and" in text
    assert "GPU" not in control(make_tree(tmp_path, variants=TABLE), "cpu")


def test_who_holds_the_copyright_is_read_in_the_licence(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, license="MIT")
    (tmp_path / "LICENSE").write_text(
        "The MIT License\n\nCopyright (c) 2016 Example Corp\nCopyright 2020 Ann\n\n"
        "The above copyright notice shall be included.\n"
    )
    assert "Copyright: 2016 Example Corp\n 2020 Ann\nLicense: MIT\n" in copyright_file(tree)


@pytest.mark.parametrize(
    ("said", "words", "fix"),
    [
        ("deb: two packages would hold the same file: a.h\n  x\n", "a.h", "package"),
        ("make: *** No rule to make target 'install'.  Stop.\n", "install rules", "install target"),
        ("E: oar: no-manual-page usr/bin/x\n", "lintian", "package.lintian"),
    ],
)
def test_why_nothing_was_packed_is_explained(said: str, words: str, fix: str) -> None:
    cause, advice = explain(f"before\n{said}", PACKING)
    assert words in cause
    assert "before" not in cause
    assert fix in advice


def test_a_package_alone_has_no_relations(tmp_path: Path) -> None:
    found = fields(control(make_tree(tmp_path, variants={"cpu": TABLE["cpu"]}), "cpu"))
    assert not {"Provides", "Conflicts", "Replaces"} & set(found)


@pytest.mark.parametrize("rows", [ROWS, TABLE], ids=["two rows", "four rows"])
def test_each_variant_takes_the_place_of_every_other_and_never_of_itself(
    tmp_path: Path, rows: dict[str, Variant]
) -> None:
    tree = make_tree(tmp_path, variants=rows)
    names = {package_name(tree, variant) for variant in rows}
    assert len(names) == len(rows)
    for variant in rows:
        found = fields(control(tree, variant))
        others = names - {found["Package"]}
        assert set(found["Conflicts"].split(", ")) == others
        assert set(found["Replaces"].split(", ")) == others
        assert set(found["Provides"].split(", ")) == {f"{o} (= @VERSION@)" for o in others}


def test_a_long_description_is_folded_as_policy_wants_it(tmp_path: Path) -> None:
    text = f"{'word ' * 40}\n\nSecond paragraph.\n"
    lines = control(make_tree(tmp_path, description=text), "cpu").splitlines()
    description = lines[lines.index("Description: neural-network kernels") + 1 :]
    assert description.count(" .") == 2  # between three paragraphs
    assert description[-3:] == [
        " Second paragraph.",
        " .",
        " This variant is compiled for x86-64-v3.",
    ]
    assert all(line.startswith(" ") and line.strip() and len(line) < 80 for line in description)


def test_no_line_of_the_description_is_reserved(tmp_path: Path) -> None:
    text = f"{'x' * 74} .NET is elsewhere."
    lines = control(make_tree(tmp_path, description=text), "cpu").splitlines()
    assert [line for line in lines if re.match(r" \.\S", line)] == []


def test_the_synopsis_is_no_sentence(tmp_path: Path) -> None:
    found = fields(control(make_tree(tmp_path, summary="a library."), "cpu"))
    assert found["Description"].splitlines()[0] == "a library"


def test_the_changelog_is_one_entry_that_dpkg_reads(tree: Tree) -> None:
    text = changelog(tree)
    pattern = (
        r"@PACKAGE@ \(@VERSION@\) @DISTRIBUTION@; urgency=medium\n\n"
        r"  \* Version 1\.2\.0, made from commit (?:1a2b3c4d){5}\.\n\n"
        r" -- Ann Other <ann@example\.org>  (.+)\n"
    )
    found = re.fullmatch(pattern, text)
    assert found
    assert email.utils.parsedate_to_datetime(found[1]).timestamp() == EPOCH
    assert found[1].endswith("+0000")


def test_the_changelog_of_a_tree_outside_git_names_no_commit(tmp_path: Path) -> None:
    text = changelog(make_tree(tmp_path, version=replace(VERSION, commit="")))
    assert "commit" not in text
    assert "made from the source tree as it was." in text


def test_a_licence_that_debian_keeps_is_named(tree: Tree) -> None:
    text = copyright_file(tree)
    assert text.startswith("Format: https://www.debian.org/doc/packaging-manuals/copyright-format/")
    assert "Copyright: 2023 Ann Other <ann@example.org>\nLicense: Apache-2.0\n" in text
    assert "/usr/share/common-licenses/Apache-2.0" in text


def test_another_licence_is_given_in_full(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, license="MIT", homepage="https://example.org/oar")
    (tmp_path / "LICENSE").write_text("Permission is granted.\n\n  Indented.\n")
    text = copyright_file(tree)
    assert "\nLicense: MIT\n Permission is granted.\n .\n   Indented.\n" in text
    assert "\nSource: https://example.org/oar\n" in text


def test_a_licence_that_is_nowhere_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SlipwayError, match="has no licence file") as caught:
        copyright_file(make_tree(tmp_path, license="MIT"))
    assert caught.value.code == BAD_DATA
    assert "'MIT'" in caught.value.cause
    assert "LICENSE" in caught.value.cause


@pytest.mark.parametrize("name", ["copyright", "debian/copyright"])
def test_a_copyright_file_of_the_project_s_own_is_taken(tree: Tree, name: str) -> None:
    file = tree.source / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("Files: nanobind\nLicense: BSD-3-Clause\n")
    assert copyright_file(tree) == "Files: nanobind\nLicense: BSD-3-Clause\n"

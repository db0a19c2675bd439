"""project.yaml: what it may say, how one is found, and what it makes of a variant."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from msgspec.structs import replace
from packaging.requirements import Requirement

from slipway import project
from slipway.errors import BAD_CONFIG, NO_INPUT, USAGE, SlipwayError
from slipway.project import Project, fill, find, read, resolve
from slipway.settings import ROOT, Workshop
from slipway.variants import TABLE
from tests.unit.fakes import VERSION, make_project, make_tree, make_workshop

LEAST = "name: oar\nsummary: s\nlicense: MIT\nmaintainer: Ann <a@example.org>\n"


def written(folder: Path, text: str = LEAST) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "project.yaml").write_text(text)
    (folder / "CMakeLists.txt").write_text("project(oar VERSION 0.1.0)\n")
    return folder / "project.yaml"


# -- reading


def test_four_keys_are_enough(tmp_path: Path) -> None:
    assert read(written(tmp_path)) == Project(
        name="oar", summary="s", license="MIT", maintainer="Ann <a@example.org>"
    )


@pytest.mark.parametrize("path", sorted(ROOT.glob("examples/*/project.yaml")), ids=str)
def test_the_bundled_projects_are_valid(path: Path) -> None:
    assert read(path).name == path.parent.name


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "Expected `object`"),
        ("name: oar\n", "missing required field `summary`"),
        (LEAST + "summarry: x\n", "summarry: unknown key; did you mean 'summary'?"),
        (LEAST + "build: {option: {}}\n", "build.option: unknown key; did you mean 'options'?"),
        (LEAST + "build: {system: cmaek}\n", "build.system: "),
        (LEAST + "test: {pytest: tests}\n", "test.pytest: Expected `array`, got `str`"),
        (LEAST + "image: {budget_mb: big}\n", "image.budget_mb: Expected `int`, got `str`"),
        (LEAST.replace("oar", "Oar_1"), "name: 'Oar_1' is no Debian package name"),
        (LEAST.replace("oar", "o"), "name: 'o' is no Debian package name"),
        ("name: [", "while parsing"),
        (LEAST + "build: {system: script}\n", "system: script needs commands"),
        (LEAST + "build: {commands: [x]}\n", "commands goes with system: script"),
        (LEAST + "build: {targets: [x]}\n", "targets goes with system: make"),
        (LEAST + "build: {directory: ../x}\n", "'../x' is not below the source"),
        (LEAST + "build: {apt: [-o x]}\n", "'-o x' is no name of a Debian package"),
        (LEAST + "build: {pip: [a b]}\n", "'a b' is no requirement"),
        (LEAST + "build: {pip: ['a @ https://x']}\n", "names an address"),
        (LEAST + "build: {writeable: true}\n", "did you mean 'writable'?"),
        (LEAST + "package: {requirements: x.txt}\n", "goes with source: {wheel: NAME}"),
    ],
)
def test_a_bad_file_is_an_error_that_names_file_and_key(
    tmp_path: Path, text: str, words: str
) -> None:
    file = written(tmp_path, text)
    with pytest.raises(SlipwayError) as caught:
        read(file)
    assert caught.value.code == BAD_CONFIG
    assert str(file) in caught.value.what
    assert words in caught.value.cause


# -- placeholders


def test_placeholders_are_filled_in() -> None:
    known = {"version": "1.2", "isa": "x86-64-v3"}
    assert fill("{version}-{isa}-{version}", known, "f") == "1.2-x86-64-v3-1.2"


@pytest.mark.parametrize("text", ["plain", "$<CONFIG:Debug>", "${CMAKE_X}", "{}", "{ version }"])
def test_what_is_no_placeholder_stays(text: str) -> None:
    assert fill(text, {"version": "1"}, "f") == text


def test_an_unknown_placeholder_is_answered_with_the_nearest() -> None:
    with pytest.raises(SlipwayError, match=r"f: KEY: no placeholder '\{verzion\}'") as caught:
        fill("{verzion}", {"version": "1"}, "f: KEY")
    assert caught.value.code == BAD_CONFIG
    assert "did you mean 'version'?" in caught.value.cause


def test_a_variant_s_options_are_the_common_ones_and_its_own(tmp_path: Path) -> None:
    own = make_project(
        build={"options": {"V": "{variant}", "I": "{isa}"}},
        variants={
            "noavx": {"options": {"I": "none", "N": "{version}", "C": "{cuda}"}},
            "gpu": {"options": {"C": "{cuda}"}},
        },
    )
    tree = replace(make_tree(tmp_path, variants=TABLE), project=own)
    assert tree.options("cpu") == {"V": "cpu", "I": "x86-64-v3"}
    assert tree.options("noavx") == {"V": "noavx", "I": "none", "N": "1.2.0", "C": ""}
    assert tree.options("gpu")["C"] == TABLE["gpu"].cuda_architectures


# -- finding


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    root = tmp_path / "checkout"
    written(root / "examples" / "oar")
    written(root / "examples" / "skiff", LEAST.replace("oar", "skiff"))
    return make_workshop(root)


def test_a_directory_a_file_and_a_name_find_the_same(workshop: Workshop) -> None:
    file = workshop.root / "examples" / "skiff" / "project.yaml"
    for wanted in ("examples/skiff", "examples/skiff/project.yaml", "skiff", str(file.parent)):
        assert find(workshop, wanted) == file


def test_nothing_said_means_the_setting(workshop: Workshop) -> None:
    assert find(workshop, "") == workshop.root / "examples" / "oar" / "project.yaml"


def test_the_current_directory_comes_before_the_checkout(workshop: Workshop) -> None:
    file = written(Path.cwd() / "examples" / "oar")
    assert find(workshop, "examples/oar") == file
    assert find(workshop, str(workshop.root / "examples" / "oar")) != file


def test_a_file_of_any_name_will_do(workshop: Workshop) -> None:
    file = written(Path.cwd()).rename("mine.yaml").absolute()
    assert find(workshop, "mine.yaml") == file


@pytest.mark.parametrize("wanted", ["skif", "examples/skif", "scripts", "/nowhere"])
def test_an_unknown_project_is_an_error_that_lists_the_known(
    workshop: Workshop, wanted: str
) -> None:
    with pytest.raises(SlipwayError, match=f"no project '{wanted}'") as caught:
        find(workshop, wanted)
    assert caught.value.code == USAGE
    assert "examples/oar, examples/skiff" in caught.value.cause


# -- resolving


@pytest.fixture(autouse=True)
def no_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(project, "version_of", lambda *_: VERSION)


def test_a_tree_is_where_its_project_yaml_stands(workshop: Workshop) -> None:
    tree = resolve(workshop)
    assert tree.source == workshop.root / "examples" / "oar"
    assert list(tree.variants) == ["cpu", "noavx"]


def test_a_source_elsewhere_is_built_by_the_same_project_yaml(workshop: Workshop) -> None:
    written(Path("other")).unlink()
    tree = resolve(workshop, "skiff", "other")
    assert tree.source == Path.cwd() / "other"
    assert tree.project.name == "skiff"


def test_a_source_that_is_not_there_is_an_error(workshop: Workshop) -> None:
    with pytest.raises(SlipwayError, match=r"no source directory .*gone") as caught:
        resolve(workshop, "", "gone")
    assert caught.value.code == NO_INPUT


def test_a_source_without_cmake_s_file_is_an_error(workshop: Workshop) -> None:
    Path("empty").mkdir()
    with pytest.raises(SlipwayError, match=r"empty has no CMakeLists\.txt") as caught:
        resolve(workshop, "", "empty")
    assert caught.value.code == NO_INPUT


def test_a_project_has_the_rows_that_it_names_in_the_table_s_order(workshop: Workshop) -> None:
    written(workshop.root / "examples" / "oar", LEAST + "variants: {noavx: {}}\n")
    assert list(resolve(workshop).variants) == ["noavx"]


def test_a_project_has_rows_with_cuda_only_where_it_names_them(workshop: Workshop) -> None:
    assert list(resolve(workshop).variants) == ["cpu", "noavx"]
    written(workshop.root / "examples" / "oar", LEAST + "variants: {cpu: {}, gpu: {}}\n")
    assert list(resolve(workshop).variants) == ["cpu", "gpu"]


def test_oar_has_every_row_of_the_table() -> None:
    assert list(read(ROOT / "examples" / "oar" / "project.yaml").variants) == list(TABLE)


def test_a_row_that_a_project_cannot_have_is_refused_with_its_reason(workshop: Workshop) -> None:
    text = LEAST + "variants: {noavx: {unsupported: it needs AVX}}\n"
    written(workshop.root / "examples" / "oar", text)
    tree = resolve(workshop)
    assert list(tree.variants) == ["cpu"]
    assert tree.choose("all", []) == ["cpu"]
    with pytest.raises(SlipwayError, match="the project has no variant 'noavx'") as caught:
        tree.choose("noavx", [])
    assert (caught.value.code, caught.value.cause) == (USAGE, "it needs AVX")


@pytest.mark.parametrize(("system", "mark"), [("pep517", "setup.py"), ("make", "Makefile")])
def test_each_build_system_wants_its_file(workshop: Workshop, system: str, mark: str) -> None:
    file = written(workshop.root / "examples" / "oar", f"{LEAST}build: {{system: {system}}}\n")
    with pytest.raises(SlipwayError, match="oar has no ") as caught:
        resolve(workshop)
    assert mark in caught.value.what
    assert "build: {system: cmake}" in caught.value.fix[0]
    (file.parent / mark).touch()
    assert resolve(workshop).top == file.parent


def test_a_sub_directory_may_be_what_is_built(workshop: Workshop) -> None:
    home = workshop.root / "examples" / "oar"
    written(home / "native").unlink()
    written(home, LEAST + "build: {directory: native}\n")
    (home / "CMakeLists.txt").unlink()
    assert resolve(workshop).top == home / "native"


def test_a_directory_may_be_named_from_where_project_yaml_stands(workshop: Workshop) -> None:
    written(workshop.root / "trees" / "x").unlink()
    file = workshop.root / "projects" / "x.yaml"
    file.parent.mkdir()
    file.write_text(LEAST + "source: {directory: ../trees/x}\n")
    assert resolve(workshop, "x").source == workshop.root / "trees" / "x"


def test_a_project_of_a_workshop_is_found_by_its_name(workshop: Workshop) -> None:
    file = workshop.root / "projects" / "mine.yaml"
    file.parent.mkdir()
    file.write_text(LEAST)
    assert find(workshop, "mine") == file


def test_a_row_that_the_table_does_not_have_is_an_error(workshop: Workshop) -> None:
    written(workshop.root / "examples" / "oar", LEAST + "variants: {noavc: {}}\n")
    with pytest.raises(SlipwayError) as caught:
        resolve(workshop)
    assert caught.value.code == BAD_CONFIG
    assert "variants.noavc: no such variant; did you mean 'noavx'?" in caught.value.cause


# -- one project beside another


def test_nothing_of_one_project_is_found_in_another() -> None:
    """What is not said has the default, whatever was read before."""
    examples = {p.parent.name: read(p) for p in sorted(ROOT.glob("examples/*/project.yaml"))}
    assert {"lightgbm", "oar"} <= set(examples)
    for order in (["lightgbm", "oar"], ["oar", "lightgbm"]):
        first, second = (read(ROOT / "examples" / name / "project.yaml") for name in order)
        assert first == examples[order[0]]
        assert second == examples[order[1]]
    oar, other = examples["oar"], examples["lightgbm"]
    assert not set(oar.build.options) & set(other.build.options)
    assert oar.source == Project(name="xx", summary="s", license="x", maintainer="x").source
    assert (oar.build.pip, oar.test.installed) == ((), ())
    assert (other.test.pythonpath, other.package.components) == ((), ())


def test_no_project_s_name_occurs_in_slipway_or_its_scripts() -> None:
    names = [p.parent.name for p in ROOT.glob("examples/*/project.yaml") if p.parent.name != "oar"]
    assert names
    files = [
        *(ROOT / "slipway").rglob("*"),
        *(ROOT / "scripts").iterdir(),
        *ROOT.glob("Dockerfile.*"),
    ]
    said = {
        f"{file.name}: {name}"
        for file in files
        if file.suffix not in (".pyc", ".json") and file.is_file()
        for name in (*names, "paddlepaddle")
        if re.search(rf"\b{name}\b", file.read_text(), re.IGNORECASE)
    }
    assert said == set()


@pytest.mark.parametrize(
    "text", ["numpy", "zope.interface", "a-b_c", "numpy>=1.24", "x < 3", "y ==1"]
)
def test_what_is_a_requirement_at_sight_is_one(text: str) -> None:
    assert project.PLAIN_REQUIREMENT.fullmatch(text)
    assert Requirement(text).url is None


@pytest.mark.parametrize("text", ["", "a b", "-a", "a-", "a>=", "a>=1.", "a @ https://b.example/c"])
def test_what_is_none_at_sight_is_asked_of_packaging(text: str) -> None:
    assert not project.PLAIN_REQUIREMENT.fullmatch(text)

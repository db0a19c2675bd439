"""What ``invoke init`` writes, and what it refuses; and Slipway in a library's own repository."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from slipway import adopt, draft, fetched, indexes, init
from slipway.errors import CANNOT_CREATE, NO_INPUT, UNAVAILABLE, USAGE, SlipwayError
from slipway.indexes import File, newest_of
from slipway.project import check_tree, read
from slipway.settings import ROOT, Workshop
from slipway.survey import Survey
from slipway.survey.ground import Seen
from tests.unit.fakes import make_workshop
from tests.unit.test_survey import CMAKE, MESON, PYPROJECT, grow

TREES = {
    "cmake": {"CMakeLists.txt": CMAKE + "option(BUILD_TESTS x OFF)\nfind_package(ZLIB REQUIRED)\n"},
    "pep517": {"pyproject.toml": PYPROJECT, "deep_hull/__init__.py": "", "tests/test_a.py": ""},
    "below": {"cpp/CMakeLists.txt": CMAKE + "install(FILES a.h)\n"},
    "meson": {"meson.build": MESON + "test('a', b)\n"},
    "autotools": {"configure.ac": "AC_INIT\n", "Makefile.am": ""},
    "make": {"Makefile": "all:\ncheck:\ninstall:\n"},
    "silent": {"CMakeLists.txt": "project(${X})\n"},
    "odd": {
        "CMakeLists.txt": 'project(hull DESCRIPTION "yes: #1 \\"of\\" {all}")\n',
        "README.md": "# - \x07 *no*: [x]\n",
    },
}


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return make_workshop(tmp_path / "checkout")


@pytest.fixture
def whole(tmp_path: Path) -> Workshop:
    """A checkout with everything that is copied."""
    workshop = make_workshop(tmp_path / "checkout")
    for name in adopt.CONTENTS:
        if (ROOT / name).is_file():
            (workshop.root / name).write_text((ROOT / name).read_text())
    grow(workshop.root, {"slipway/a.py": "", "slipway/__pycache__/a.pyc": "", "slipway/.a.swp": ""})
    (workshop.root / "scripts" / "link").symlink_to("build")
    return workshop


@pytest.fixture(autouse=True)
def no_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        init, "newest", lambda _, requirement: {"cmake": None}.get(requirement.name, "9.8")
    )


def made(workshop: Workshop, name: str) -> Path:
    return workshop.root / "projects" / f"{name}.yaml"


# -- what is written


@pytest.mark.parametrize("kind", TREES)
def test_what_is_written_is_a_project_that_fits_its_tree(
    tmp_path: Path, workshop: Workshop, kind: str
) -> None:
    tree = grow(tmp_path / kind, TREES[kind])
    init.init(workshop, str(tree), "hull")
    project = read(made(workshop, "hull"))
    assert project.source.directory == str(tree)
    check_tree(tree, project, made(workshop, "hull"))
    assert project.summary
    assert project.license
    assert project.maintainer


def test_a_cmake_tree_comes_out_like_this(tmp_path: Path, workshop: Workshop) -> None:
    tree = grow(
        tmp_path / "hull", {**TREES["cmake"], "LICENSE": "Boost Software License - Version 1.0"}
    )
    init.init(workshop, str(tree))
    assert (
        made(workshop, "hull").read_text()
        == f"""\
# yaml-language-server: $schema=../slipway/project.schema.json
{chr(10).join(draft.comment(draft.HEAD.format(name="hull", place=tree)))}

name: hull  # from CMakeLists.txt
summary: the hull library  # not found: what it is, in one line
license: BSL-1.0  # from LICENSE
# homepage: ""  # not found: address of the project's page
maintainer: Your Name <you@example.org>  # not found: who makes the packages

source:
  directory: {draft.scalar(str(tree))}

build:
  system: cmake  # from CMakeLists.txt
  options:
    BUILD_TESTS: 'ON'  # tests, which CMakeLists.txt leaves out by default
  apt:
    - zlib1g-dev  # find_package(ZLIB), CMakeLists.txt

test:
  ctest: true

# package:
#   no install() in CMake's files: without install rules there is nothing to package
"""
    )


def test_a_python_project_pins_what_it_is_built_with(tmp_path: Path, workshop: Workshop) -> None:
    init.init(workshop, str(grow(tmp_path / "hull", TREES["pep517"])))
    project = read(made(workshop, "deep-hull"))
    assert project.build.pip == ("scikit-build-core==9.8", "cmake>=3.20")
    assert project.build.apt == ("python3-numpy", "python3-yaml")
    assert project.test.pytest == ("tests",)
    assert project.package.section == "python"
    assert project.package.depends == ("python3-numpy", "python3-yaml")
    assert project.image.about[:2] == ("python3", "-c")
    text = made(workshop, "deep-hull").read_text()
    assert "# newest for scikit-build-core>=0.10, pyproject.toml" in text
    assert "not pinned: the package index has no such wheel" in text


def test_an_index_that_does_not_answer_is_asked_once(
    tmp_path: Path, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def silence(_: Workshop, requirement: Requirement) -> str:
        asked.append(requirement.name)
        raise SlipwayError("silence", code=UNAVAILABLE)

    monkeypatch.setattr(init, "newest", silence)
    init.init(workshop, str(grow(tmp_path / "hull", TREES["pep517"])))
    assert asked == ["scikit-build-core"]
    assert read(made(workshop, "deep-hull")).build.pip == ("scikit-build-core>=0.10", "cmake>=3.20")


def test_nothing_is_written_into_the_tree(tmp_path: Path, workshop: Workshop) -> None:
    tree = grow(tmp_path / "hull", TREES["pep517"])
    before = sorted(tree.rglob("*"))
    init.init(workshop, str(tree))
    assert sorted(tree.rglob("*")) == before


def test_what_was_found_is_told_in_a_few_lines(
    tmp_path: Path, workshop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = grow(tmp_path / "hull", {"CMakeLists.txt": CMAKE + "enable_testing()\n"})
    init.init(workshop, str(tree))
    assert (
        capsys.readouterr().out
        == f"""\
projects/hull.yaml written
seen in {tree}:
  name     hull
  system   CMake (CMakeLists.txt)
  version  3.2, from CMakeLists.txt
  licence  not found
  tests    CTest
to be filled in: summary, license, maintainer
next: ./go invoke all --project projects/hull.yaml
"""
    )


def test_a_wheel_is_named_by_its_hash(tmp_path: Path, workshop: Workshop) -> None:
    tags = {"cp313-cp313": True, "cp39-abi3": False, "py3-none": False}
    for number, (tag, one) in enumerate(tags.items()):
        wheel = tmp_path / f"deep_hull-1.{number}-{tag}-manylinux_2_28_x86_64.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            text = "Name: deep-hull\nVersion: 1\nSummary: Hull\nRequires-Dist: numpy>1\n"
            archive.writestr(f"deep_hull-1.{number}.dist-info/METADATA", text)
            archive.writestr("deep_hull/__init__.py", "")
        init.init(workshop, str(wheel), f"hull{number}")
        project = read(made(workshop, f"hull{number}"))
        digest = fetched.sha256(wheel)
        assert project.source.wheel == "deep-hull"
        assert project.source.version == f"1.{number}"
        assert project.source.sha256 == ({"cp313": digest} if one else digest)
        assert "# variants: {cpu: {}}" in made(workshop, f"hull{number}").read_text()


def test_an_sdist_is_named_by_its_hash_and_unpacked_only_to_look(
    tmp_path: Path, workshop: Workshop
) -> None:
    archive = tmp_path / "deep_hull-1.4.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("deep_hull-1.4/pyproject.toml", PYPROJECT)
    init.init(workshop, str(archive))
    source = read(made(workshop, "deep-hull")).source
    assert (source.sdist, source.version) == ("deep-hull", "1.4")
    assert source.sha256 == fetched.sha256(archive)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkout", archive.name]


# -- what is refused


@pytest.mark.parametrize("name", ["Hull", "hull_1", "h", "-hull", "hull/../x", "größe"])
def test_an_illegal_name_is_an_error_that_says_the_rule(
    tmp_path: Path, workshop: Workshop, name: str
) -> None:
    tree = grow(tmp_path / "hull", TREES["cmake"])
    with pytest.raises(SlipwayError, match="no name for a Debian package") as caught:
        init.init(workshop, str(tree), name)
    assert caught.value.code == USAGE
    assert "small letters, digits, + - ." in caught.value.cause
    assert not (workshop.root / "projects").exists()


@pytest.mark.parametrize(
    ("text", "name"),
    [("Deep_Hull", "deep-hull"), ("lib Größe++", "lib-gr-e"), ("1", ""), ("_", "")],
)
def test_a_name_is_made_legal(text: str, name: str) -> None:
    assert init.legal_name(text) == name


def test_a_tree_without_a_name_takes_its_directory_s(tmp_path: Path, workshop: Workshop) -> None:
    init.init(workshop, str(grow(tmp_path / "My Boat", TREES["silent"])))
    assert read(made(workshop, "my-boat")).name == "my-boat"
    with pytest.raises(SlipwayError, match="no name for") as caught:
        init.init(workshop, str(grow(tmp_path / "_", TREES["silent"])))
    assert caught.value.code == USAGE
    assert "--name NAME" in caught.value.fix[0]


@pytest.mark.parametrize(
    ("source", "code"), [("", USAGE), ("gone", NO_INPUT), ("checkout", USAGE), ("a.txt", USAGE)]
)
def test_a_source_that_is_none_is_an_error(
    tmp_path: Path, workshop: Workshop, source: str, code: int
) -> None:
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(SlipwayError) as caught:
        init.init(workshop, str(tmp_path / source) if source else "")
    assert caught.value.code == code
    assert "--source DIR" in caught.value.fix[0]


@pytest.mark.parametrize("name", ["hull.zip", "hull.tar.gz", "hull.whl"])
def test_an_archive_that_does_not_say_its_release_is_an_error(
    tmp_path: Path, workshop: Workshop, name: str
) -> None:
    with pytest.raises(SlipwayError, match="does not say which release") as caught:
        (init.source_of_wheel if name.endswith("whl") else init.source_of_sdist)(tmp_path / name)
    assert caught.value.code == USAGE


def test_a_file_that_was_edited_is_not_overwritten(
    tmp_path: Path, workshop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    tree, file = grow(tmp_path / "hull", TREES["cmake"]), made(workshop, "hull")
    init.init(workshop, str(tree))
    text = file.read_text()
    init.init(workshop, str(tree))
    assert "was the same before" in capsys.readouterr().out
    file.write_text("mine\n")
    with pytest.raises(SlipwayError, match=r"projects/hull\.yaml is there already") as caught:
        init.init(workshop, str(tree))
    assert caught.value.code == CANNOT_CREATE
    assert file.read_text() == "mine\n"
    init.init(workshop, str(tree), force=True)
    assert file.read_text() == text


def test_dry_prints_and_writes_nothing(
    tmp_path: Path, whole: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = grow(tmp_path / "hull", TREES["cmake"])
    dry = Workshop(whole.root, whole.settings, dry=True)
    before = sorted(tmp_path.rglob("*"))
    init.init(dry, str(tree))
    init.init(dry, str(tree), adopt=True)
    assert sorted(tmp_path.rglob("*")) == before
    said = capsys.readouterr().out
    assert "\nname: hull  # from CMakeLists.txt\n" in said
    assert "projects/hull.yaml would be written" in said
    assert f"{tree}/slipway would be made" in said


# -- lines of YAML


@pytest.mark.parametrize(
    "value",
    ["yes", "1.0", "a: b", "# x", "it's", "- x", "", " x ", "a\nb", "größe", "{x}", "*a", "\x07"],
)
def test_any_text_survives(value: str) -> None:
    lines = [
        *draft.entry("k", value, "a # comment\nof two lines"),
        *draft.items([Seen(value, "w" * 99)]),
    ]
    assert yaml.safe_load("\n".join(lines[:-2])) == {"k": value}
    assert yaml.safe_load("\n".join(lines[-2:])) == [value]


def test_a_part_of_comments_only_is_a_comment() -> None:
    lines = draft.part("package", draft.comment("nothing is installed"))
    assert lines == ["", "# package:", "#   nothing is installed"]
    assert draft.part("package", []) == []


def test_no_line_is_too_long_to_read(tmp_path: Path) -> None:
    hint = Seen("word " * 60, "build")
    text = draft.draft(
        Survey(hints=(hint,), summary=Seen("s" * 75, "f" * 50)),
        name="hull",
        source={"directory": "/x"},
        remark="r " * 80,
        place="/x",
        schema="s.json",
    )
    assert max(map(len, text.splitlines())) <= 100


# -- the newest version

WHEELS = [
    File("tool-1.0-py3-none-any.whl", ""),
    File("tool-1.2-py3-none-any.whl", ""),
    File("tool-1.10-cp313-cp313-manylinux_2_28_x86_64.whl", ""),
    File("tool-1.11-cp312-cp312-manylinux_2_28_x86_64.whl", ""),
    File("tool-1.12-py3-none-any.whl", "", yanked=True),
    File("tool-2.0rc1-py3-none-any.whl", ""),
    File("tool-1.20.tar.gz", ""),
    File("other-9-py3-none-any.whl", ""),
]


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("tool", "1.10"),
        ("tool<1.10", "1.2"),
        ("tool~=1.0,!=1.10", "1.2"),
        ("tool>=1.5,<2", "1.10"),
        ("tool>=2.0rc1", "2.0rc1"),
        ("tool>=3", None),
        ("absent", None),
    ],
)
def test_the_newest_version_is_the_highest_with_a_wheel_that_fits(
    text: str, version: str | None
) -> None:
    assert newest_of(Requirement(text), WHEELS, "cp313") == version


def test_an_index_says_what_was_taken_back() -> None:
    page = '<a href="a-1.whl" data-yanked="">a</a> <a href="a-2.whl">a</a>'
    files = indexes.parse_page(page, "https://x.org/a/", "text/html")
    assert [file.yanked for file in files] == [True, False]
    rows = [{"filename": "a", "url": "a", "yanked": "broken"}, {"filename": "b", "url": "b"}]
    data = json.dumps({"files": rows})
    files = indexes.parse_page(data, "https://x.org/a/", "application/json")
    assert [file.yanked for file in files] == [True, False]


# -- adopting


def test_adopting_makes_the_documented_files_and_nothing_else(
    tmp_path: Path, whole: Workshop
) -> None:
    tree = grow(tmp_path / "hull", TREES["cmake"])
    before = sorted(tree.rglob("*"))
    init.init(whole, str(tree), adopt=True)
    folder = tree / "slipway"
    assert sorted(path.name for path in folder.iterdir()) == sorted(adopt.CONTENTS)
    assert sorted(path for path in tree.rglob("*") if not path.is_relative_to(folder)) == before
    assert not any(path.is_symlink() for path in folder.rglob("*"))
    assert [path.name for path in (folder / "slipway").iterdir()] == ["a.py"]
    assert (
        (folder / "project.yaml")
        .read_text()
        .splitlines()[0]
        .endswith("=slipway/project.schema.json")
    )
    assert read(folder / "project.yaml").source.directory == ".."
    assert yaml.safe_load((folder / "invoke.yaml").read_text()) == {"project": "project.yaml"}
    assert not (whole.root / "projects").exists()


def test_what_is_documented_is_there_to_be_copied() -> None:
    made_for_it = {"README.md", "project.yaml"}
    assert [n for n in adopt.CONTENTS if n not in made_for_it and not (ROOT / n).exists()] == []


def test_the_one_project_is_set_in_invoke_yaml_whatever_it_says() -> None:
    for text in ((ROOT / "invoke.yaml").read_text(), "engine: host\n", ""):
        changed = yaml.safe_load(adopt.settings(text))
        assert changed["project"] == "project.yaml"


def test_its_readme_is_short_and_says_how_to_be_rid_of_it() -> None:
    assert len(adopt.README.splitlines()) <= 20
    assert "delete the folder" in adopt.README
    assert "./go invoke all" in adopt.README


@pytest.mark.parametrize("there", ["file", "link", "full"])
def test_what_is_in_the_way_is_named_and_left_alone(
    tmp_path: Path, whole: Workshop, there: str
) -> None:
    tree = grow(tmp_path / "hull", TREES["cmake"])
    folder = tree / "slipway"
    if there == "file":
        folder.write_text("")
    elif there == "link":
        folder.symlink_to(tmp_path)
    else:
        grow(folder, {"mine.py": ""})
    before = sorted(tree.iterdir())
    with pytest.raises(SlipwayError, match="slipway is in the way") as caught:
        init.init(whole, str(tree), adopt=True, force=True)
    assert caught.value.code == CANNOT_CREATE
    assert ("mine.py" in caught.value.cause) == (there == "full")
    assert sorted(tree.iterdir()) == before


def test_an_empty_directory_is_no_obstacle(tmp_path: Path, whole: Workshop) -> None:
    tree = grow(tmp_path / "hull", TREES["cmake"])
    (tree / "slipway").mkdir()
    init.init(whole, str(tree), adopt=True)
    assert (tree / "slipway" / "go").is_file()


def test_half_a_copy_is_never_left(tmp_path: Path, whole: Workshop) -> None:
    tree = grow(tmp_path / "hull", TREES["cmake"])
    (whole.root / "tasks.py").unlink()
    with pytest.raises(FileNotFoundError):
        init.init(whole, str(tree), adopt=True)
    assert [path.name for path in tree.iterdir()] == ["CMakeLists.txt"]


def test_only_a_directory_can_adopt(tmp_path: Path, whole: Workshop) -> None:
    (tmp_path / "hull-1.0.zip").write_text("")
    with pytest.raises(SlipwayError, match="is not a directory") as caught:
        init.init(whole, str(tmp_path / "hull-1.0.zip"), adopt=True)
    assert caught.value.code == USAGE

"""``invoke init`` typed at real trees: needs no engine and no network."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
import yaml

from slipway.adopt import CONTENTS
from slipway.project import read
from tests.integration.workbench import (
    CMAKE,
    ROOT,
    Checkout,
    clone_working_tree,
    git,
    refused,
    snapshot,
    succeed,
    tree,
)

PYPROJECT = """\
[build-system]
requires = ["backend>=1"]
build-backend = "backend.api"
[project]
name = "Deep_Hull"
version = "1.4"
"""
TREES = {
    "cmake": {"CMakeLists.txt": CMAKE},
    "python": {"pyproject.toml": PYPROJECT, "tests/test_hull.py": ""},
    "meson": {"meson.build": "project('sail', 'c', license: 'MIT')\n"},
    "autotools": {"configure": "#!/bin/sh\n", "Makefile.in": "check:\n"},
    "make": {"Makefile": "all:\ninstall:\n"},
    "below": {"cpp/CMakeLists.txt": CMAKE, "docs/Makefile": "all:\n"},
}


@pytest.fixture(scope="module")
def checkout(area: Path) -> Checkout:
    """A clone in which nothing was built."""
    root = area / "init, a b" / "slipway"
    clone_working_tree(ROOT, root)
    return Checkout(root)


@pytest.fixture(scope="module")
def index(area: Path) -> dict[str, str]:
    """The variable that names a package index of two files on this disk."""
    for version in ("1.5", "2.0"):
        wheel = area / "index" / "backend" / f"backend-{version}-py3-none-any.whl"
        wheel.parent.mkdir(parents=True, exist_ok=True)
        wheel.write_bytes(b"")
    return {"INVOKE_MIRRORS_PIP": (area / "index").as_uri()}


def plant(directory: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)
    return directory


@pytest.mark.parametrize("kind", TREES)
def test_a_tree_gets_a_project_yaml_that_is_right(
    checkout: Checkout, index: dict[str, str], tmp_path: Path, kind: str
) -> None:
    source = plant(tmp_path / "Größe a b" / kind, TREES[kind])
    before = snapshot(source)
    done = checkout.invoke("init", "--source", str(source), "--name", f"a-{kind}", env=index)
    said = succeed(done)
    file = checkout.root / "projects" / f"a-{kind}.yaml"
    project = read(file)
    assert project.source.directory == str(source)
    assert snapshot(source) == before
    assert f"next: ./go invoke all --project projects/a-{kind}.yaml" in said
    if kind == "python":
        assert project.build.pip == ("backend==2.0",)
    schema = file.read_text().splitlines()[0].rpartition("=")[2]
    assert json.loads((file.parent / schema).read_text())["title"]


def test_a_tree_without_a_build_system_is_refused(checkout: Checkout, tmp_path: Path) -> None:
    source = plant(tmp_path / "bare", {"main.c": "", "pyproject.toml": "[tool.ruff]\n"})
    done = checkout.invoke("init", "--source", str(source))
    refused(done, 66, "has no build system", "CMakeLists.txt", "system: script")
    assert not (checkout.root / "projects" / "bare.yaml").exists()


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--source", "examples/oar", "--name", "Hull_1"], 64, "invoke init --name hull-1"),
        (["--source", "/nowhere"], 66, "no directory or file /nowhere"),
        (["--source", "README.md"], 64, "no source tree, no wheel and no sdist"),
        (["--source", "."], 64, "is Slipway itself"),
        ([], 64, "init needs --source"),
    ],
)
def test_bad_input_is_answered_with_the_next_command(
    checkout: Checkout, flags: list[str], code: int, words: str
) -> None:
    refused(checkout.invoke("init", *flags), code, words)


def test_a_file_that_says_something_else_stays_unless_forced(
    checkout: Checkout, tmp_path: Path
) -> None:
    source = plant(tmp_path / "kept", {"Makefile": "all:\n"})
    command = ("init", "--source", str(source))
    succeed(checkout.invoke(*command))
    file = checkout.root / "projects" / "kept.yaml"
    text = file.read_text()
    file.write_text(text + "# edited\n")
    refused(checkout.invoke(*command), 73, "projects/kept.yaml", "--force")
    assert file.read_text() == text + "# edited\n"
    succeed(checkout.invoke(*command, "--force"))
    assert file.read_text() == text


def test_dry_writes_nothing(checkout: Checkout, tmp_path: Path) -> None:
    source = plant(tmp_path / "dry", TREES["cmake"])
    before = snapshot(checkout.root), snapshot(source)
    for more in ([], ["--adopt"]):
        said = succeed(checkout.invoke("--dry", "init", "--source", str(source), *more))
        assert "\nname: tiny  # from CMakeLists.txt\n" in said
    assert (snapshot(checkout.root), snapshot(source)) == before


def test_the_schema_is_all_that_is_printed(checkout: Checkout) -> None:
    said = succeed(checkout.invoke("init", "--schema"))
    assert json.loads(said)["$defs"]["Project"]["additionalProperties"] is False
    assert said == (checkout.root / "slipway" / "project.schema.json").read_text()


def test_an_sdist_is_looked_at_and_named_by_its_hash(checkout: Checkout, tmp_path: Path) -> None:
    archive = tmp_path / "sailcloth-1.2.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("sailcloth-1.2/Makefile", "all:\n")
    succeed(checkout.invoke("init", "--source", str(archive)))
    source = read(checkout.root / "projects" / "sailcloth.yaml").source
    assert (source.sdist, source.version) == ("sailcloth", "1.2")
    assert [path.name for path in tmp_path.iterdir()] == [archive.name]


def test_a_library_adopts_slipway_as_one_folder(checkout: Checkout, tmp_path: Path) -> None:
    source = tree(tmp_path / "library")
    (source / "project.yaml").unlink()
    git(source, "init", "--quiet")
    git(source, "add", "--all")
    git(source, "-c", "commit.gpgsign=false", "commit", "--quiet", "--message", "first")
    before = snapshot(source)
    said = succeed(checkout.invoke("init", "--source", str(source), "--adopt"))
    folder = source / "slipway"
    assert f"next: cd {folder} && ./go invoke all" in said
    assert sorted(path.name for path in folder.iterdir()) == sorted(CONTENTS)
    after = {k: v for k, v in snapshot(source).items() if not k.startswith("slipway")}
    assert after == before
    assert read(folder / "project.yaml").source.directory == ".."
    assert (
        git(source, "status", "--porcelain", "--untracked-files=all", "--ignored").count("!!") == 0
    )

    # It works there by itself: the tasks load, but for bench, and know the one project.
    adopted = Checkout(folder)
    listed = succeed(adopted.invoke("--list"))
    assert "  all " in listed
    assert "  bench " not in listed
    assert yaml.safe_load((folder / "invoke.yaml").read_text()) == {"project": "project.yaml"}
    refused(adopted.invoke("build", "--variant", "none"), 64, "no variant 'none'")
    refused(checkout.invoke("init", "--source", str(source), "--adopt"), 73, "is in the way")

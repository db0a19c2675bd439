"""Trees that come from elsewhere, through the same tasks."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.conftest import Built
from tests.integration.workbench import commit, git, refused, succeed, tree


@pytest.fixture
def repository(area: Path, tiny: Path) -> Path:
    """A git repository with a tag, and a project.yaml beside it that names the tag."""
    origin = area / "origins" / tiny.name
    tree(origin)
    (origin / "project.yaml").unlink()
    git(origin, "init", "--quiet")
    git(origin, "add", "--all")
    git(origin, "-c", "commit.gpgsign=false", "commit", "--quiet", "--message", "first")
    git(origin, "tag", "v1.4.0")
    (origin / "main.cc").write_text("this is no C++\n")
    commit(origin, "after the tag")
    for file in tiny.iterdir():
        if file.name != "project.yaml":
            file.unlink()
    return origin


def name_source(tiny: Path, line: str) -> None:
    with (tiny / "project.yaml").open("a") as stream:
        stream.write(f"source: {line}\n")


def test_a_git_tag_is_built_tested_and_packaged_under_its_version(
    built: Built, tiny: Path, repository: Path
) -> None:
    name_source(tiny, f"{{git: {repository}, ref: v1.4.0}}")
    said = succeed(built.checkout.invoke("test", "--project", str(tiny)))
    assert "tested tiny 1.4.0 cpu" in said
    succeed(built.checkout.invoke("deb", "--project", str(tiny)))
    dist = built.checkout.root / "dist" / "tiny-1.4.0"
    assert [deb.name for deb in dist.iterdir()] == ["tiny_1.4.0+deb13_amd64.deb"]
    said = succeed(built.checkout.invoke("build", "--project", str(tiny)))
    assert "no work to do" in said
    assert "source:" not in said  # nothing was fetched again


def test_a_ref_that_does_not_exist_is_told_before_anything_is_made(
    built: Built, tiny: Path, repository: Path
) -> None:
    name_source(tiny, f"{{git: {repository}, ref: v1.4.1}}")
    done = built.checkout.invoke("build", "--project", str(tiny))
    refused(done, 66, "v1.4.1", "v1.4.0")


def test_a_debian_package_that_does_not_exist_is_an_error(built: Built, tiny: Path) -> None:
    name_source(tiny, "{debian: no-such-library-anywhere}")
    done = built.checkout.invoke("build", "--project", str(tiny))
    refused(done, done.returncode, "nothing was fetched")
    assert done.returncode != 0

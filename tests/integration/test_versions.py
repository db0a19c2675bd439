"""Versions of real git repositories, and their order as dpkg sees it."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.version import Version as Pep440

from slipway.errors import SlipwayError
from slipway.versions import Version, debian_spelling, version_of

DATE = 1_700_000_000


@pytest.fixture(autouse=True)
def plain_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings of the person who runs the tests, and commits that are the same each time."""
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "A Writer")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "writer@example.org")
        monkeypatch.setenv(f"GIT_{who}_DATE", f"{DATE} +0000")


class Repo:
    """A repository with one file, and verbs that read as what is done to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self.git("init", "-q")
        self.commit()

    def git(self, *arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(self.path), *arguments], check=True, capture_output=True, text=True
        ).stdout.strip()

    def commit(self, times: int = 1) -> None:
        for _ in range(times):
            with (self.path / "kernel.cpp").open("a") as file:
                file.write("// one more line\n")
            self.git("add", "-A")
            self.git("commit", "-q", "-m", "a change")

    @property
    def short(self) -> str:
        return self.git("rev-parse", "HEAD")[:7]


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return Repo(tmp_path / "repo")


def test_at_a_lightweight_tag(repo: Repo) -> None:
    repo.git("tag", "v1.2.3")
    commit = repo.git("rev-parse", "HEAD")
    assert version_of(repo.path, "9.9.9") == Version("1.2.3", "1.2.3", "1.2.3", commit, False, DATE)


def test_at_an_annotated_tag(repo: Repo) -> None:
    repo.commit()
    repo.git("tag", "-a", "-m", "the release", "1.2.3")
    assert version_of(repo.path).pep440 == "1.2.3"


@pytest.mark.parametrize("annotate", [(), ("-a", "-m", "the release")])
def test_commits_after_a_tag(repo: Repo, annotate: tuple[str, ...]) -> None:
    repo.commit(2)
    repo.git("tag", *annotate, "v1.2.3")
    repo.commit(5)
    version = version_of(repo.path)
    assert version.pep440 == f"1.2.4.dev5+g{repo.short}"
    assert version.debian == f"1.2.4~~dev5+g{repo.short}"
    assert version.tag == f"1.2.4.dev5-g{repo.short}"


def test_commits_of_a_merged_branch_count(repo: Repo) -> None:
    repo.git("tag", "v1.2.3")
    repo.git("checkout", "-q", "-b", "side")
    repo.commit(2)
    repo.git("checkout", "-q", "-")
    repo.git("merge", "-q", "--no-ff", "-m", "merge", "side")
    assert version_of(repo.path).pep440 == f"1.2.4.dev3+g{repo.short}"


def test_the_highest_tag_counts_not_the_newest(repo: Repo) -> None:
    repo.git("tag", "v1.10.0")
    repo.commit()
    repo.git("tag", "v1.9.1")
    repo.commit()
    assert version_of(repo.path).pep440 == f"1.10.1.dev2+g{repo.short}"


def test_a_tag_at_head_comes_before_a_higher_one_that_it_contains(repo: Repo) -> None:
    repo.git("tag", "v1.10.0")
    repo.commit()
    repo.git("tag", "v1.9.1")
    assert version_of(repo.path).pep440 == "1.9.1"


def test_a_release_comes_before_its_candidate_at_the_same_commit(repo: Repo) -> None:
    repo.git("tag", "v1.2.3rc1")
    repo.git("tag", "v1.2.3")
    assert version_of(repo.path).pep440 == "1.2.3"


def test_a_tag_that_head_does_not_contain_is_no_ones(repo: Repo) -> None:
    repo.git("checkout", "-q", "-b", "side")
    repo.commit()
    repo.git("tag", "v2.0.0")
    repo.git("checkout", "-q", "-")
    assert version_of(repo.path, "0.1.0").pep440 == f"0.1.0.dev1+g{repo.short}"


def test_tags_that_name_no_release_are_skipped(repo: Repo) -> None:
    repo.git("tag", "v1.2.3")
    repo.commit()
    for tag in ("nightly", "v1", "20240131"):
        repo.git("tag", tag)
    assert version_of(repo.path).pep440 == f"1.2.4.dev1+g{repo.short}"


def test_without_a_tag_all_commits_count(repo: Repo) -> None:
    repo.commit(6)
    assert version_of(repo.path, "0.1.0").pep440 == f"0.1.0.dev7+g{repo.short}"
    assert version_of(repo.path).pep440 == f"0.0.0.dev7+g{repo.short}"


# -- changes


def test_a_changed_file_is_dirty(repo: Repo) -> None:
    repo.git("tag", "v1.2.3")
    (repo.path / "kernel.cpp").write_text("changed")
    version = version_of(repo.path)
    assert (version.dirty, version.pep440) == (True, f"1.2.4.dev0+g{repo.short}.dirty")
    assert version.epoch == DATE


def test_an_untracked_file_is_dirty_whatever_the_user_wants_to_see(repo: Repo) -> None:
    repo.git("config", "status.showUntrackedFiles", "no")
    (repo.path / "new.cpp").touch()
    assert version_of(repo.path).dirty


def test_an_ignored_file_is_not_dirty(repo: Repo) -> None:
    (repo.path / ".gitignore").write_text("*.o\n")
    repo.commit()
    (repo.path / "kernel.o").touch()
    assert not version_of(repo.path).dirty


def test_a_change_beside_the_source_directory_is_not_dirty(repo: Repo) -> None:
    (repo.path / "python").mkdir()
    (repo.path / "python" / "api.py").touch()
    repo.commit()
    (repo.path / "kernel.cpp").write_text("changed")
    assert version_of(repo.path).dirty
    assert not version_of(repo.path / "python").dirty


# -- odd repositories


def test_a_shallow_clone_without_a_tag_cannot_count(repo: Repo, tmp_path: Path) -> None:
    repo.git("tag", "v1.2.3")
    repo.commit(5)
    clone = tmp_path / "clone"
    repo.git("clone", "-q", "--depth=2", repo.path.as_uri(), str(clone))
    assert version_of(clone, "0.1.0").pep440 == f"0.1.0.dev0+g{repo.short}"


def test_a_shallow_clone_with_its_tag_can(repo: Repo, tmp_path: Path) -> None:
    repo.commit(5)
    repo.git("tag", "v1.2.3")
    repo.commit()
    clone = tmp_path / "clone"
    repo.git("clone", "-q", "--depth=2", repo.path.as_uri(), str(clone))
    assert version_of(clone).pep440 == f"1.2.4.dev1+g{repo.short}"


def test_a_worktree(repo: Repo, tmp_path: Path) -> None:
    repo.git("tag", "v1.2.3")
    repo.commit()
    repo.git("worktree", "add", "-q", str(tmp_path / "tree"), "v1.2.3")
    assert version_of(tmp_path / "tree").pep440 == "1.2.3"


def test_a_submodule_has_its_own_version(repo: Repo, tmp_path: Path) -> None:
    repo.git("tag", "v1.2.3")
    outer = Repo(tmp_path / "outer")
    add = ("-c", "protocol.file.allow=always", "submodule", "add", "-q", str(repo.path), "oar")
    outer.git(*add)
    outer.commit()
    assert version_of(outer.path / "oar").pep440 == "1.2.3"
    assert version_of(outer.path).pep440 == f"0.0.0.dev2+g{outer.short}"


@pytest.mark.parametrize("ignored", [True, False])
def test_a_tree_unpacked_inside_another_repository_is_not_that_one(
    repo: Repo, ignored: bool
) -> None:
    (repo.path / ".gitignore").write_text("out/\n" if ignored else "")
    repo.commit()
    repo.git("tag", "v1.2.3")
    unpacked = repo.path / "out" / "library"
    unpacked.mkdir(parents=True)
    (unpacked / "api.cpp").touch()
    os.utime(unpacked / "api.cpp", (5, 5))
    assert version_of(unpacked, "4.5.6") == Version("4.5.6", "4.5.6", "4.5.6", "", False, 5)


def test_a_repository_without_a_commit(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path / "new")], check=True)
    assert version_of(tmp_path / "new", "0.1.0").pep440 == "0.1.0"


def test_a_worktree_whose_repository_is_elsewhere_is_a_plain_folder(tmp_path: Path) -> None:
    (tmp_path / ".git").write_text("gitdir: /nowhere/.git/worktrees/tree\n")
    assert version_of(tmp_path, "0.1.0").pep440 == "0.1.0"


def test_a_tree_that_belongs_to_another_user(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    repo.git("tag", "v1.2.3")
    if os.geteuid() == 0:
        for path in (repo.path, *repo.path.rglob("*")):
            os.chown(path, 12345, 12345)
    else:
        monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    with pytest.raises(subprocess.CalledProcessError):
        repo.git("status")
    assert version_of(repo.path).pep440 == "1.2.3"


def test_a_repository_that_git_cannot_read_is_an_error(repo: Repo) -> None:
    (repo.path / ".git" / "config").write_text("[core\n")
    with pytest.raises(SlipwayError, match="git cannot read") as caught:
        version_of(repo.path, "0.1.0")
    assert "bad config" in caught.value.cause


def test_inside_a_hook_of_another_repository(
    repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.git("tag", "v1.2.3")
    other = Repo(tmp_path / "other")
    monkeypatch.setenv("GIT_DIR", str(other.path / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other.path / ".git" / "index"))
    assert version_of(repo.path).pep440 == "1.2.3"


# -- without git


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    path = tmp_path / "tree"
    (path / "src").mkdir(parents=True)
    for name, date in (("README", 1000), ("src/kernel.cpp", 2000)):
        (path / name).touch()
        os.utime(path / name, (date, date))
    return path


def test_without_git_the_declared_version_and_the_newest_file(tree: Path) -> None:
    assert version_of(tree, "0.1.0") == Version("0.1.0", "0.1.0", "0.1.0", "", False, 2000)


def test_with_nothing_at_all(tree: Path) -> None:
    assert version_of(tree).pep440 == "0.0.0"


def test_without_the_git_program(
    repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.git("tag", "v1.2.3")
    os.utime(repo.path / "kernel.cpp", (1000, 1000))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert version_of(repo.path, "0.1.0") == Version("0.1.0", "0.1.0", "0.1.0", "", False, 1000)


@pytest.mark.parametrize("place", ["repo", "tree"])
def test_source_date_epoch_wins(
    place: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = request.getfixturevalue(place)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "12345")
    assert version_of(found.path if isinstance(found, Repo) else found).epoch == 12345


def test_a_source_date_epoch_that_is_none_is_an_error(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(SlipwayError, match="SOURCE_DATE_EPOCH is 'yesterday'"):
        version_of(tree)


# -- what it costs, and what it leaves


def test_git_is_started_four_times_at_most(
    repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.git("tag", "v1.2.3")
    repo.commit(3)
    log, folder = tmp_path / "log", tmp_path / "bin"
    folder.mkdir()
    (folder / "git").write_text(f'#!/bin/sh\necho x >>"{log}"\nexec "{shutil.which("git")}" "$@"\n')
    (folder / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    version_of(repo.path)
    assert 1 <= len(log.read_text().splitlines()) <= 4


def test_the_index_is_not_written(repo: Repo) -> None:
    index = repo.path / ".git" / "index"
    os.utime(repo.path / "kernel.cpp", (5, 5))  # `git status` would note that only the date differs
    before = index.read_bytes()
    version_of(repo.path)
    assert index.read_bytes() == before
    repo.git("status")
    assert index.read_bytes() != before


# -- the order


def spellings() -> Iterator[Pep440]:
    parts = (
        ("", "1!"),
        ("1.2.3", "1.2.10", "1.3.0"),
        ("", "a1", "b1", "rc1", "rc2", "rc10"),
        ("", ".post1", ".post2"),
        ("", ".dev0", ".dev5", ".dev12"),
        ("", "+g1a2b3c4", "+g1a2b3c4.dirty", "+zen"),
    )
    return (Pep440("".join(some)) for some in itertools.product(*parts))


def test_dpkg_orders_versions_as_pep_440_does() -> None:
    ordered = [debian_spelling(version) for version in sorted(spellings())]
    wrong = [
        pair
        for pair in itertools.pairwise(ordered)
        if subprocess.run(["dpkg", "--compare-versions", pair[0], "lt", pair[1]]).returncode
    ]
    assert wrong == []


def test_a_history_is_in_order(repo: Repo) -> None:
    seen = [version_of(repo.path, "1.0.0a1")]
    for tag in ("v1.0.0a1", "v1.0.0rc1", "v1.0.0", "v1.0.1", "v1.2", "v1.2.1"):
        repo.commit()
        repo.git("tag", tag)
        seen.append(version_of(repo.path))
        (repo.path / "kernel.cpp").write_text("changed")
        seen.append(version_of(repo.path))
        repo.commit()
        seen.append(version_of(repo.path))
    versions = [Pep440(version.pep440) for version in seen]
    assert versions == sorted(versions)
    assert len(set(versions)) == len(versions)
    for one, other in itertools.pairwise(seen):
        subprocess.run(["dpkg", "--compare-versions", one.debian, "lt", other.debian], check=True)

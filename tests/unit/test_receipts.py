"""What is unchanged is said to be, and only that."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from slipway import receipts
from slipway.images import file_hash
from slipway.receipts import facts, read, tree_fingerprint, write, write_whole


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "receipts" / "deb.json"


def test_a_receipt_is_found_for_the_same_inputs_only(file: Path) -> None:
    before = time.time()
    written = write(file, "inputs", {"executed": 3})
    assert before <= written.made_at <= time.time()
    assert read(file, "inputs") == written
    assert read(file, "others") is None
    assert facts(file) == {"executed": 3}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"inputs": "i"}',
        '{"inputs": "i", "made_at": 1, "facts": null}',
        '{"inputs": "i", "made_at": 1, "facts": {"files": {"/gone": "x"}}}',
        '{"inputs": "i", "made_at": 1, "facts": {}, "more": 1}',
    ],
)
def test_a_file_that_is_no_receipt_is_none(file: Path, text: str) -> None:
    file.parent.mkdir()
    file.write_text(text)
    assert read(file, "i") is None
    assert isinstance(facts(file), dict)


def test_where_there_is_no_receipt_there_are_no_facts(file: Path) -> None:
    assert read(file, "i") is None
    assert facts(file) == {}


def test_an_artifact_that_is_gone_or_changed_is_made_again(file: Path, tmp_path: Path) -> None:
    made = tmp_path / "x.deb"
    made.write_text("package")
    write(file, "i", {"files": {str(made): file_hash(made)}})
    assert read(file, "i") is not None
    made.write_text("packagf")
    assert read(file, "i") is None
    made.unlink()
    assert read(file, "i") is None


def test_a_write_that_fails_leaves_what_was_there(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_whole(file, "old")

    def full(self: Path, *_: object, **__: object) -> None:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(file, "new")
    assert file.read_text() == "old"
    assert list(file.parent.iterdir()) == [file]


# -- trees


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    (top / "src").mkdir(parents=True)
    (top / "src" / "a.cc").write_text("a")
    (top / "b.cc").write_text("b")
    return top


def test_a_tree_that_did_not_change_has_the_same_fingerprint(tree: Path) -> None:
    assert tree_fingerprint(tree) == tree_fingerprint(tree)


def test_every_change_of_a_file_is_seen(tree: Path) -> None:
    seen = {tree_fingerprint(tree)}
    file = tree / "src" / "a.cc"
    file.write_text("longer")
    seen.add(tree_fingerprint(tree))
    os.utime(file, ns=(1, 1))
    seen.add(tree_fingerprint(tree))
    file.chmod(0o755)
    seen.add(tree_fingerprint(tree))
    file.rename(tree / "src" / "c.cc")
    seen.add(tree_fingerprint(tree))
    (tree / "src" / "new.cc").touch()
    seen.add(tree_fingerprint(tree))
    (tree / "b.cc").unlink()
    seen.add(tree_fingerprint(tree))
    (tree / "link").symlink_to("src")
    seen.add(tree_fingerprint(tree))
    assert len(seen) == 8


@pytest.mark.parametrize("name", ["out", "dist", "build", ".github"])
def test_a_directory_of_the_tree_may_be_called_out(tree: Path, name: str) -> None:
    before = tree_fingerprint(tree)
    (tree / "src" / name).mkdir()
    (tree / "src" / name / "x.cc").write_text("x")
    assert tree_fingerprint(tree) != before


@pytest.mark.parametrize("name", [".git", "__pycache__"])
def test_what_git_and_python_keep_for_themselves_is_no_source(tree: Path, name: str) -> None:
    before = tree_fingerprint(tree)
    (tree / name).mkdir()
    (tree / name / "x").write_text("x")
    assert tree_fingerprint(tree) == before


def test_files_come_in_a_fixed_order(tree: Path) -> None:
    for name in ("z", "y", "x"):
        (tree / name).mkdir()
        (tree / name / "f").touch()
    found = [str(path.relative_to(tree)) for path in receipts.files_below(tree)]
    assert found == ["b.cc", "src/a.cc", "x/f", "y/f", "z/f"]

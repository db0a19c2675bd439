"""``invoke lint``: what the tree's own settings say of it, and nothing written unasked."""

from __future__ import annotations

import os
import shutil
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from slipway.errors import BAD_CONFIG, BAD_DATA, CANNOT_CREATE, UNAVAILABLE
from tests.integration.conftest import Built
from tests.integration.test_in_place import OFFLINE, dev_image, in_container
from tests.integration.workbench import (
    Checkout,
    commit,
    git,
    give_to,
    refused,
    snapshot,
    strangers,
    succeed,
    tree,
)

FOUND = 1  # the exit status where there are findings
GOOGLE = "BasedOnStyle: Google\n"
NULLPTR = "Checks: '-*,modernize-use-nullptr'\n"
RULES = 'lint.select = ["F"]\n'
ODDLY = "int two( ){\n  return 2;}\n"
ZERO = "inline int* nowhere() { return 0; }\n"
UNUSED = "import os\nimport sys\n\nprint( sys.argv )\n"


def settle(directory: Path, **settings: str) -> Path:
    """Put settings beside a tree's files: ``format``, ``tidy``, ``ruff``."""
    names = {"format": ".clang-format", "tidy": ".clang-tidy", "ruff": "ruff.toml"}
    for key, text in settings.items():
        (directory / names[key]).write_text(text)
    return directory


def in_git(directory: Path) -> Path:
    """Make a tree a repository whose branch ``main`` has all of it."""
    git(directory, "init", "--quiet", "--initial-branch", "main")
    git(directory, "add", "--all")
    git(directory, "-c", "commit.gpgsign=false", "commit", "--quiet", "--message", "all of it")
    return directory


@pytest.fixture(scope="module")
def critic(cloned: Callable[[str], Checkout]) -> Checkout:
    """A clone in which somebody looks at code."""
    return cloned("critic")


def test_a_fresh_clone_passes_and_nothing_of_it_is_written_to(critic: Checkout) -> None:
    before = snapshot(critic.root / "examples" / "oar")
    said = succeed(critic.invoke("lint"))
    assert "linted oar: clang-format 0 in " in said
    assert "; clang-tidy 0 in 0 files of those that differ from origin/" in said
    assert "; ruff 0 in " in said
    assert "left out" not in said
    assert ",readonly" in said
    assert snapshot(critic.root / "examples" / "oar") == before


@pytest.mark.full
def test_all_of_oar_passes(critic: Checkout) -> None:
    said = succeed(critic.invoke("lint", "--all", timeout=1200))
    assert "differ from" not in said
    assert "clang-tidy 0 in " in said
    assert "clang-tidy 0 in 0 files" not in said


def test_findings_are_told_by_file_and_line_and_fail(critic: Checkout, tiny: Path) -> None:
    tree(tiny, two=ODDLY, main='#include "zero.h"\nint one();\nint main() { return one() - 1; }\n')
    settle(tiny, format=GOOGLE, tidy=NULLPTR, ruff=RULES)
    (tiny / "zero.h").write_text(ZERO)
    (tiny / "tool.py").write_text(UNUSED)
    before = snapshot(tiny)
    done = critic.invoke("lint", "--project", str(tiny))
    refused(done, FOUND, "4 findings in tiny", "try: invoke lint --fix")
    assert f"\n{tiny}/two.cc:1: not as clang-format has it\n" in done.stdout
    assert f"\n{tiny}/zero.h:1:32: use nullptr [modernize-use-nullptr]\n" in done.stdout
    assert f"\n{tiny}/tool.py:1:8: `os` imported but unused [F401]\n" in done.stdout
    assert f"\n{tiny}/tool.py:4: not as ruff has it\n" in done.stdout
    last = "linted tiny: clang-format 1 in 4 files; clang-tidy 1 in 4 files; ruff 2 in 1 file; "
    assert last in done.stdout
    assert snapshot(tiny) == before
    assert strangers(critic.out / "tiny", os.getuid()) == []


def test_fix_writes_what_is_to_be_mended_and_nothing_else(critic: Checkout, tiny: Path) -> None:
    """Every tool's remedy at once, in files of odd modes and with a second name."""
    tree(tiny, two=ODDLY, main='#include "zero.h"\nint one();\nint main() { return one() - 1; }\n')
    settle(tiny, format=GOOGLE, tidy=NULLPTR, ruff=RULES)
    (tiny / "zero.h").write_text(ZERO)
    (tiny / "tool.py").write_text(UNUSED)
    (tiny / "tool.py").chmod(0o755)
    (tiny / "two.cc").chmod(0o640)
    os.link(tiny / "zero.h", tiny / "second-name")
    for name in ("two.cc", "zero.h", "tool.py"):
        os.chown(tiny / name, 1234, 1234)
    before = snapshot(tiny)
    said = succeed(critic.invoke("lint", "--fix", "--project", str(tiny)))
    assert [line for line in said.splitlines() if line.startswith("mended ")] == [
        f"mended {tiny}/{name}" for name in ("tool.py", "two.cc", "zero.h")
    ]
    assert (tiny / "two.cc").read_text() == "int two() { return 2; }\n"
    assert (tiny / "second-name").read_text() == "inline int* nowhere() { return nullptr; }\n"
    assert (tiny / "tool.py").read_text() == "import sys\n\nprint(sys.argv)\n"
    after = snapshot(tiny)
    assert {name for name in after if after[name] != before.get(name)} == {
        *("two.cc", "zero.h", "second-name", "tool.py")
    }
    for name in ("two.cc", "zero.h", "tool.py"):
        assert after[name][0] == before[name][0]
        assert (tiny / name).stat().st_uid == 1234
    for command in (line for line in said.splitlines() if line.startswith("$ docker run")):
        assert f"source={tiny},target={tiny},readonly" in command
    assert "\nmended " not in succeed(critic.invoke("lint", "--fix", "--project", str(tiny)))


def test_clang_tidy_looks_at_what_differs_from_the_default_branch(
    critic: Checkout, tiny: Path
) -> None:
    bad = "int* {name}() {{ return 0; }}\n"
    tree(tiny, two="int two() { return 2; }\n" + bad.format(name="old"))
    in_git(settle(tiny, tidy=NULLPTR))
    lint = ("lint", "--project", str(tiny))
    assert "in 0 files of those that differ from main" in succeed(critic.invoke(*lint))
    git(tiny, "checkout", "--quiet", "-b", "work")
    one = tiny / "one.cc"
    one.write_text(one.read_text() + bad.format(name="committed"))
    commit(tiny, "worse")
    (tiny / "main.cc").write_text((tiny / "main.cc").read_text() + bad.format(name="edited"))
    done = critic.invoke(*lint)
    refused(done, FOUND, "2 findings in tiny")
    assert f"{one}:2:" in done.stdout
    assert f"{tiny}/main.cc:4:" in done.stdout
    assert "clang-tidy 2 in 2 files of those that differ from main" in done.stdout
    assert "return 0; }\n" in done.stdout  # with the line itself
    refused(critic.invoke(*lint, "--all"), FOUND, "3 findings in tiny")


def test_what_the_tree_has_no_settings_for_is_left_out_and_said(
    critic: Checkout, tiny: Path
) -> None:
    (tiny / "tool.py").write_text(UNUSED)
    tree(tiny, two=ODDLY)
    said = succeed(critic.invoke("lint", "--project", str(tiny)))
    for name in (".clang-format", ".clang-tidy", "ruff.toml"):
        assert name in said
    assert said.count("is left out") == 3
    assert "nothing of tiny to look at" in said
    assert "docker run" not in said


def test_a_tree_that_make_builds_has_no_clang_tidy_and_says_so(
    critic: Checkout, tiny: Path
) -> None:
    (tiny / "CMakeLists.txt").unlink()
    (tiny / "Makefile").write_text("all:\n\tfalse\n")
    with (tiny / "project.yaml").open("a") as stream:
        stream.write("build: {system: make}\n")
    settle(tiny, tidy=NULLPTR, format=GOOGLE)
    said = succeed(critic.invoke("lint", "--project", str(tiny)))
    assert (
        "clang-tidy is left out: it needs CMake's compile commands, and this tree is built by make"
        in said
    )
    assert "clang-format 0 in 3 files" in said


def test_nothing_starts_with_dry(critic: Checkout, tiny: Path) -> None:
    settle(tree(tiny, two=ODDLY), format=GOOGLE)
    said = succeed(critic.invoke("--dry", "lint", "--fix", "--project", str(tiny)))
    assert "/scripts/lint" in said
    assert "linted" not in said
    assert (tiny / "two.cc").read_text() == ODDLY


# -- bad input

BROKEN = {
    "clang-format": ("format", "BasedOnStyle: Gogle\n", "Gogle"),
    "clang-tidy": ("tidy", "Checks: [\n", ".clang-tidy:"),
    "ruff": ("ruff", "lin-length = 1\n", "unknown field `lin-length`"),
}


@pytest.mark.parametrize("tool", BROKEN)
def test_broken_settings_are_told_with_the_tool_s_own_words(
    critic: Checkout, tiny: Path, tool: str
) -> None:
    kind, text, words = BROKEN[tool]
    settle(tiny, **{kind: text})
    (tiny / "tool.py").write_text("print(1)\n")
    done = critic.invoke("lint", "--fix", "--project", str(tiny))
    refused(done, BAD_CONFIG, f"{tool} cannot read its settings", words)


def test_a_file_that_is_not_python_is_a_finding(critic: Checkout, tiny: Path) -> None:
    settle(tiny, ruff=RULES)
    (tiny / "tool.py").write_text("def f(:\n")
    done = critic.invoke("lint", "--project", str(tiny))
    refused(done, FOUND, "in tiny")
    assert f"{tiny}/tool.py:1:7: " in done.stdout


def test_a_tree_that_does_not_compile_is_told_by_the_build(critic: Checkout, tiny: Path) -> None:
    tree(tiny, two="int two() { return x; }\n")
    settle(tiny, tidy=NULLPTR)
    done = critic.invoke("lint", "--project", str(tiny))
    assert done.returncode not in (0, FOUND) or "was not built" in done.stdout
    assert "error: tiny 1.0 cpu was not built" in done.stdout
    assert f"{tiny}/two.cc:1:" in done.stdout
    assert "Traceback" not in done.stdout


def test_a_build_without_compile_commands_is_told_why(critic: Checkout, tiny: Path) -> None:
    text = (tiny / "CMakeLists.txt").read_text()
    off = "set(CMAKE_EXPORT_COMPILE_COMMANDS OFF)\n"
    (tiny / "CMakeLists.txt").write_text(text.replace("add_executable", f"{off}add_executable", 1))
    settle(tiny, tidy=NULLPTR)
    done = critic.invoke("lint", "--project", str(tiny))
    refused(done, BAD_DATA, "no compile_commands.json", "CMAKE_EXPORT_COMPILE_COMMANDS")


def test_fix_on_files_that_are_read_only_changes_none(ordinary: Checkout, area: Path) -> None:
    source = settle(tree(area / "trees" / "closed", one=ODDLY.replace("two", "one"), two=ODDLY))
    settle(source, format=GOOGLE)
    give_to(source, 1000)
    (source / "two.cc").chmod(0o444)
    before = snapshot(source)
    done = ordinary.invoke("lint", "--fix", "--project", str(source))
    refused(done, CANNOT_CREATE, f"--fix cannot write {source}/two.cc", "nothing was changed")
    assert snapshot(source) == before
    shutil.rmtree(source)


def test_in_place_without_the_tools_they_are_named(
    built: Built, cloned: Callable[[str], Checkout]
) -> None:
    checkout = cloned("uncritical")
    settle(tree(checkout.root / "tiny"), format=GOOGLE, tidy=NULLPTR)
    command = ["invoke", "lint", "--engine", "host", "--project", "tiny"]
    done = in_container(dev_image(built.checkout), checkout, command, more=OFFLINE)
    refused(
        *(done, UNAVAILABLE, "missing on this machine: clang-format, clang-tidy"),
        "sudo apt-get install clang-format clang-tidy libomp-dev",
    )


def test_what_was_fetched_is_not_changed(critic: Checkout, tiny: Path) -> None:
    tree(tiny, two=ODDLY)
    in_git(settle(tiny, format=GOOGLE))
    file = critic.root / "projects" / "fetched.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(
        textwrap.dedent(f"""\
        name: tiny
        summary: a tree for a test
        license: Apache-2.0
        maintainer: Test <test@example.org>
        variants: {{cpu: {{}}}}
        source: {{git: {tiny}, ref: main}}
        """)
    )
    lint = ("lint", "--project", str(file))
    refused(critic.invoke(*lint), FOUND, "1 finding in tiny")
    refused(critic.invoke(*lint, "--fix"), 64, "which was fetched")

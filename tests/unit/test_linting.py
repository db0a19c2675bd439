"""Which files are looked at, what the tools are told, and what their answers mean."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from slipway import linting, versions
from slipway.errors import BAD_CONFIG, BAD_DATA, CANNOT_CREATE, UNAVAILABLE, SlipwayError
from slipway.findings import (
    BATCH,
    FORMAT,
    RUFF,
    TIDY,
    Edit,
    Finding,
    Said,
    Tool,
    deps_of,
    edited,
    failure,
    for_clang,
    formatting,
    misformatted,
    remedies_of,
    ruff_checks,
    ruff_findings,
    ruff_fix,
    tidy_findings,
    tidying,
    units_of,
)
from slipway.images import lint_recipe, locked
from slipway.linting import Checked, Scope, governed, summary, unwritable, why_not
from slipway.settings import ROOT
from tests.unit.fakes import make_site, make_workshop

A, B, H = "/t/a.cc", "/t/b.cc", "/t/h.h"


def grow(root: Path, *names: str) -> list[Path]:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")
    return [root / name for name in names]


# -- which files


def test_a_file_counts_where_settings_stand_beside_or_above_it(tmp_path: Path) -> None:
    files = grow(tmp_path, "in/a.cc", "in/deep/b.h", "in/c.py", "out/d.cc", "in/e.cu")
    (settings,) = grow(tmp_path, "in/.clang-format")
    assert governed(FORMAT, files, tmp_path) == (files[:2], [settings])
    assert governed(TIDY, files, tmp_path) == ([], [])


def test_settings_above_the_top_do_not_count(tmp_path: Path) -> None:
    files = grow(tmp_path, "tree/src/a.cc")
    grow(tmp_path, ".clang-format")
    assert governed(FORMAT, files, tmp_path / "tree") == ([], [])
    assert governed(FORMAT, files, tmp_path)[0] == files


def test_the_nearest_settings_are_the_ones_that_are_named(tmp_path: Path) -> None:
    files = grow(tmp_path, "src/a.cc", "b.cc")
    settings = grow(tmp_path, ".clang-format", "src/_clang-format")
    assert governed(FORMAT, files, tmp_path) == (files, settings)


@pytest.mark.parametrize(
    ("text", "counts"),
    [("[tool.ruff]\n", True), ("[project]\n\n[tool.ruff.lint]\n", True), ("[tool.mypy]\n", False)],
)
def test_a_pyproject_counts_where_it_says_something_of_ruff(
    tmp_path: Path, text: str, counts: bool
) -> None:
    files = grow(tmp_path, "a.py", "b.cc")
    (tmp_path / "pyproject.toml").write_text(text)
    assert governed(RUFF, files, tmp_path)[0] == (files[:1] if counts else [])


def test_a_tool_that_takes_no_part_says_why(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    files = [site.tree.source / "a.cc"]
    assert "has no .clang-format" in why_not(FORMAT, site, files, [])
    assert why_not(FORMAT, site, files, files) == ""
    assert why_not(RUFF, site, files, []) == ""  # there is nothing that it could look at
    assert why_not(TIDY, site, files, files) == ""


@pytest.mark.parametrize(
    ("build", "words"),
    [
        ({"system": "make"}, "this tree is built by make"),
        ({"writable": True}, "a copy of this tree is built by cmake"),
    ],
)
def test_clang_tidy_needs_the_compile_commands_of_cmake(
    tmp_path: Path, build: dict[str, Any], words: str
) -> None:
    site = make_site(tmp_path, build=build)
    files = [site.tree.source / "a.cc"]
    assert words in why_not(TIDY, site, files, files)
    assert why_not(FORMAT, site, files, files) == ""


# -- clang-tidy's units

DEPS = """\
ninja: Entering directory `/o'
a.o: #deps 3, deps mtime 17 (VALID)
    ../t/a.cc
    /t/sub/../h.h
    /usr/include/stdio.h

b.o: #deps 2, deps mtime 17 (STALE)
    /t/b.cc
    /t/h.h
"""


def test_ninja_s_list_becomes_full_paths() -> None:
    assert deps_of(DEPS, "/o") == [[A, H, "/usr/include/stdio.h"], [B, H]]
    assert deps_of("", "/o") == []


def test_a_source_stands_for_itself_and_a_header_for_the_first_that_includes_it() -> None:
    deps = deps_of(DEPS, "/o")
    assert units_of([A, B], deps, [B, H]) == {B: {B}, A: {H}}
    assert units_of([B], deps, [A, B, H]) == {B: {B, H}}


def test_what_nobody_compiles_is_not_looked_at() -> None:
    assert units_of([A], deps_of(DEPS, "/o"), ["/t/other.cc", "/t/other.h"]) == {}


def test_the_database_holds_what_clang_can_compile_and_only_options_that_it_takes_alike() -> None:
    entries: list[dict[str, Any]] = [
        {"directory": "/o", "command": "/usr/bin/ccache g++ -c ../t/a.cc", "file": "../t/a.cc"},
        {"directory": "/o", "arguments": ["cc", "-mgeneral-regs-only", "-c", B], "file": B},
        {"directory": "/o", "command": "ccache /opt/cuda/bin/nvcc -c k.cu", "file": "/t/k.cu"},
    ]
    assert for_clang(entries) == [
        {"directory": "/o", "file": A, "arguments": ["g++", "-c", "../t/a.cc"]},
        {"directory": "/o", "file": B, "arguments": ["cc", "-c", B]},
    ]


# -- what the tools are told


def test_a_formatter_writes_to_standard_output_and_has_no_taste_of_its_own() -> None:
    step = formatting(FORMAT, "clang-format", A)
    assert step.argv == ["clang-format", "--style=file", "--fallback-style=none", A]
    assert step.stdin == ""
    step = formatting(RUFF, "/venv/ruff", "/t/a.py")
    assert step.argv[:2] == ["/venv/ruff", "format"]
    assert step.argv[-3:] == ["--stdin-filename", "/t/a.py", "-"]
    assert step.stdin == "/t/a.py"


def test_no_command_of_ruff_s_is_longer_than_a_system_takes() -> None:
    names = [f"/t/{number}.py" for number in range(2 * BATCH + 1)]
    steps = ruff_checks("ruff", names)
    assert [step.argv[-1] for step in steps] == [names[BATCH - 1], names[2 * BATCH - 1], names[-1]]
    assert ruff_checks("ruff", []) == []


def test_no_tool_is_told_to_write() -> None:
    steps = [
        *(formatting(FORMAT, "clang-format", A), formatting(RUFF, "ruff", "/t/a.py")),
        *(tidying("clang-tidy", "/o", A, "/w/f.yaml"), *ruff_checks("ruff", ["/t/a.py"])),
        ruff_fix("ruff", "/t/a.py"),
    ]
    for step in steps:
        assert not {"-i", "--fix", "--fix-errors"} & {*step.argv} or step.stdin
        assert "-fix" not in step.argv
    assert "--export-fixes=/w/f.yaml" in steps[2].argv


# -- what they answer


def test_a_file_that_looks_as_it_should_is_no_finding() -> None:
    assert misformatted(FORMAT, Path(A), "int a;\n", "int a;\n") is None
    assert misformatted(FORMAT, Path(A), "int a ;\n", "") is None  # a .clang-format-ignore


@pytest.mark.parametrize(
    ("text", "wanted", "line"),
    [
        ("int a;\nint b ;\n", "int a;\nint b;\n", 2),
        ("int a;\n\n", "int a;\n", 2),
        ("int a;", "int a;\n", 1),
        ("int a;\n", "int a;\nint b;\n", 1),
    ],
)
def test_a_misformatted_file_is_told_at_the_first_line_that_differs(
    text: str, wanted: str, line: int
) -> None:
    found = misformatted(FORMAT, Path(A), text, wanted)
    assert found
    assert found.text == f"{A}:{line}: not as clang-format has it"
    assert found.mendable


def test_ruff_s_rows_become_findings() -> None:
    row = {"filename": "/t/a.py", "location": {"row": 2, "column": 8}, "message": "unused"}
    rows = [
        {**row, "code": "F401", "fix": {"applicability": "safe", "edits": []}},
        {**row, "code": "B006", "fix": {"applicability": "unsafe", "edits": []}},
        {**row, "code": None, "fix": None},
    ]
    found = ruff_findings(json.dumps(rows))
    assert [f.text for f in found] == [
        "/t/a.py:2:8: unused [F401]",
        "/t/a.py:2:8: unused [B006]",
        "/t/a.py:2:8: unused [invalid-syntax]",
    ]
    assert [f.mendable for f in found] == [True, False, False]
    assert ruff_findings("") == []


TOLD = """\
/t/a.cc:2:3: warning: use nullptr [modernize-use-nullptr]
    2 |   int* p = 0;
      |            ^
/t/a.cc:1:1: note: here
../t/h.h:4:1: error: no 'x' [clang-diagnostic-error]
/t/b.cc:9:9: warning: of another file [misc-x]
/t/a.cc:2:3: warning: use nullptr [modernize-use-nullptr]
    2 |   int* p = 0;
      |            ^
/t/a.cc:1:1: note: here
"""


def test_clang_tidy_s_lines_become_findings_of_the_files_that_count() -> None:
    first, second = tidy_findings(TOLD, "/o", {A, H})
    assert (first.file, first.line, first.column) == (Path(A), 2, 3)
    assert first.words == "use nullptr [modernize-use-nullptr]"
    assert first.more.splitlines()[0] == "    2 |   int* p = 0;"
    assert first.text.endswith("note: here")
    assert second.text == f"{H}:4:1: no 'x' [clang-diagnostic-error]"
    assert tidy_findings("", "/o", {A}) == []


def fixes(*rows: tuple[str, list[tuple[str, int, int, str]]]) -> str:
    """A file of clang-tidy's, of levels and replacements."""
    keys = ("FilePath", "Offset", "Length", "ReplacementText")
    return json.dumps(
        {
            "Diagnostics": [
                {
                    "Level": level,
                    "DiagnosticMessage": {
                        "Replacements": [dict(zip(keys, part, strict=True)) for part in parts]
                    },
                }
                for level, parts in rows
            ]
        }
    )


def test_a_remedy_is_whole_and_stays_within_the_files_that_count() -> None:
    one = ("Warning", [(A, 4, 1, "nullptr")])
    both = ("Warning", [("../t/a.cc", 8, 1, "x"), ("/t/elsewhere.h", 0, 1, "x")])
    assert remedies_of(fixes(one, both, ("Warning", [])), "/o", {A}) == [
        [Edit(Path(A), 4, 1, "nullptr")]
    ]
    assert remedies_of("", "/o", {A}) == []


def test_what_does_not_compile_is_not_mended() -> None:
    text = fixes(("Warning", [(A, 4, 1, "nullptr")]), ("Error", [(A, 9, 0, ";")]))
    assert remedies_of(text, "/o", {A}) == []


def test_edits_count_bytes_and_do_not_move_each_other() -> None:
    text = "// é\nint* p = 0;\nint* q = 0;\n".encode()
    first, second = (text.index(b"0;", start) for start in (0, 18))
    edits = [[Edit(Path(A), at, 1, "nullptr")] for at in (first, second)]
    changed = edited([*edits, edits[0]], lambda _: text)
    assert changed[Path(A)].decode() == "// é\nint* p = nullptr;\nint* q = nullptr;\n"


def test_of_two_remedies_that_clash_the_first_is_taken_and_the_second_not_at_all() -> None:
    whole = [[Edit(Path(A), 0, 3, "long")], [Edit(Path(A), 2, 1, "x"), Edit(Path(B), 0, 1, "y")]]
    assert edited(whole, lambda _: b"int a;") == {Path(A): b"long a;"}


# -- when a tool fails


def refusal(tool: Tool, said: Said, *found: Finding) -> SlipwayError:
    error = failure(tool, said, found)
    assert error
    return error


@pytest.mark.parametrize(
    ("tool", "status", "words"),
    [
        (FORMAT, 1, "/t/.clang-format:1:1: error: x\nError reading /t/.clang-format: Invalid"),
        (TIDY, 0, "/t/.clang-tidy:1:10: error: x\nError parsing /t/.clang-tidy: Invalid"),
        (RUFF, 2, "ruff failed\n  Cause: Failed to parse /t/pyproject.toml"),
    ],
)
def test_broken_settings_are_told_as_such(tool: Tool, status: int, words: str) -> None:
    error = refusal(tool, Said(status, "", f"{words}\n{words}\n"))
    assert error.code == BAD_CONFIG
    assert error.what == f"{tool.name} cannot read its settings"
    assert error.cause == words  # once, however often the tool says it


def test_findings_are_no_failure_and_a_failure_without_any_is() -> None:
    finding = Finding(Path(A), 1, 1, "x", TIDY.name)
    assert failure(TIDY, Said(0, "", "2 warnings generated.")) is None
    assert failure(TIDY, Said(1, "", ""), [finding]) is None
    error = refusal(TIDY, Said(1, "error: unknown argument '-fx' [clang-diagnostic-error]", ""))
    assert error.code == BAD_DATA
    assert "unknown argument '-fx'" in error.cause
    other = Said(1, f"{B}:1:1: error: no 'x' [clang-diagnostic-error]", "")
    assert "no 'x'" in refusal(TIDY, other, finding).cause  # what was found may be wrong then
    assert (
        failure(TIDY, other, [Finding(Path(B), 1, 1, "no 'x' [clang-diagnostic-error]", "")])
        is None
    )
    assert refusal(FORMAT, Said(139, "", ""), finding).what == "clang-format failed: status 139"


def test_files_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    gone = [tmp_path / "a.cc", tmp_path / "b.cc"]
    error = unwritable(gone)
    assert error
    assert error.code == CANNOT_CREATE
    assert f"cannot write {gone[0]} and 1 more" in error.what
    assert unwritable(grow(tmp_path, "c.cc")) is None


# -- what is said


def test_the_last_line_counts_by_tool(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    files = {"clang-format": [Path(A), Path(B)], "clang-tidy": [Path(A)], "ruff": [Path("/t/a.py")]}
    scope = Scope(files, "origin/main", [], [])
    checked = Checked([Finding(Path(A), 1, 0, "x", FORMAT.name)], units=1)
    assert summary(site, scope, checked, 1.25) == (
        "linted oar: clang-format 1 in 2 files; "
        "clang-tidy 0 in 1 file of those that differ from origin/main; ruff 0 in 1 file; 1.2 s"
    )


def test_what_fix_writes_to_is_what_can_be_mended() -> None:
    found = [
        Finding(Path(A), 1, 0, "x", FORMAT.name, mendable=True),
        Finding(Path(B), 1, 0, "x", TIDY.name),
    ]
    assert Checked(found).mendable == {Path(A)}
    assert Checked(found, [[Edit(Path(H), 0, 1, "")]]).mendable == {Path(A), Path(H)}


# -- where they run


def test_in_place_each_tool_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = make_site(tmp_path, host=True)
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(SlipwayError, match="missing on this machine: clang-tidy") as caught:
        linting.programs_of(site, [TIDY])
    assert caught.value.code == UNAVAILABLE
    assert caught.value.fix == ("sudo apt-get install clang-format clang-tidy libomp-dev",)


def test_in_the_image_they_have_their_usual_names(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    assert linting.programs_of(site, [FORMAT, RUFF]) == {
        "clang-format": "clang-format",
        "ruff": "ruff",
    }


def test_the_image_has_the_tasks_own_ruff_and_nothing_else_of_their_lock(tmp_path: Path) -> None:
    block = locked((ROOT / "requirements.txt").read_text(), "ruff")
    first, *hashes = block.splitlines()
    assert first.startswith("ruff==")
    assert all(line.strip().startswith("--hash=sha256:") for line in hashes)
    assert not block.rstrip().endswith("\\")
    workshop = make_workshop(tmp_path)
    recipe = lint_recipe(workshop, "slipway-dev:1")
    (workshop.root / "requirements.txt").write_text("mypy==1\nruff==2.0 \\\n    --hash=sha256:1\n")
    assert recipe.files["requirements-lint.txt"] == "ruff==1.0 \\\n    --hash=sha256:0\n"
    assert lint_recipe(workshop, "slipway-dev:1").key != recipe.key
    with pytest.raises(SlipwayError, match="locks no rufus"):
        locked("ruff==1.0\n", "rufus")


# -- which branch

Answers = Callable[..., Any]


@pytest.fixture
def repository(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What git says, by a word of the question; a question that is not there fails."""
    known: dict[str, str] = {}

    def run(_: Path, *arguments: str) -> Any:
        key = " ".join(arguments)
        done: Any = subprocess.CompletedProcess(arguments, 0, "", "")
        if key in known:
            done.stdout = known[key]
        else:
            done.returncode, done.stderr = 128, "fatal: no such ref"
        return done

    monkeypatch.setattr(versions, "run_git", run)
    return known


def test_work_is_compared_with_the_default_branch_first(
    tmp_path: Path, repository: dict[str, str]
) -> None:
    assert linting.branch_point(tmp_path) == ("", "")
    repository["merge-base HEAD main"] = "3\n"
    repository["merge-base HEAD @{upstream}"] = "2\n"
    assert linting.branch_point(tmp_path) == ("@{upstream}", "2")
    repository["merge-base HEAD origin/HEAD"] = "1\n"
    repository["rev-parse --abbrev-ref origin/HEAD"] = "origin/trunk\n"
    assert linting.branch_point(tmp_path) == ("origin/trunk", "1")


def test_changed_is_what_differs_from_there_and_what_git_does_not_know_yet(
    tmp_path: Path, repository: dict[str, str]
) -> None:
    site = make_site(tmp_path)
    source = site.tree.source
    files = grow(source, "a.cc", "b.cc", "new.cc", "dir with space/c.cc")
    (source / "link.cc").symlink_to("a.cc")
    diff = "diff --name-only -z --no-renames --no-ext-diff --relative 1"
    repository.update(
        {
            "ls-files -z": "a.cc\0b.cc\0gone.cc\0link.cc\0dir with space/c.cc\0",
            "ls-files -z --others --exclude-standard": "new.cc\0",
            "merge-base HEAD origin/main": "1\n",
            diff: "b.cc\0gone.cc\0",
        }
    )
    found, changed, since = linting.files_of(site)
    assert sorted(found) == sorted(files)
    assert changed & {*found} == {files[1], files[2]}
    assert since == "origin/main"


def test_a_tree_that_is_not_in_git_is_looked_at_whole(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    tree = replace(site.tree, version=replace(site.tree.version, commit=""))
    (file,) = grow(site.tree.source, "a.cc")
    found, changed, since = linting.files_of(replace(site, tree=tree))
    assert file in found
    assert (changed, since) == (set(), "")


def test_what_is_ours_is_not_looked_at(tmp_path: Path) -> None:
    """Where the library has adopted Slipway, the checkout lies in its tree."""
    site = make_site(tmp_path)
    tree = replace(site.tree, source=tmp_path, version=replace(site.tree.version, commit=""))
    file, ours = grow(tmp_path, "a.cc", "out/b.cc")
    found, _, _ = linting.files_of(replace(site, tree=tree))
    assert file in found
    assert ours not in found


def test_what_is_no_source_of_the_caller_s_is_refused(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    assert linting.not_lintable(site, fix=True) is None
    fetched = replace(site, tree=replace(site.tree, source=tmp_path / "out" / "sources" / "x"))
    assert linting.not_lintable(fetched, fix=False) is None
    error = linting.not_lintable(fetched, fix=True)
    assert error
    assert "which was fetched" in error.what
    wheel = replace(site, tree=replace(site.tree, wheel=tmp_path / "x-1-py3-none-any.whl"))
    error = linting.not_lintable(wheel, fix=False)
    assert error
    assert "x-1-py3-none-any.whl is a wheel" in error.what


def test_a_database_that_another_tree_has_left_is_none(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    file = site.build / "compile_commands.json"
    file.parent.mkdir(parents=True)
    ours = {"directory": "/o", "command": "g++ -c x", "file": str(site.tree.source / "a.cc")}
    for entries, told in (([ours], False), ([], True), ([{**ours, "file": A}], True)):
        file.write_text(json.dumps(entries))
        if told:
            with pytest.raises(SlipwayError, match="no compile_commands") as caught:
                linting.database_of(site)
            assert caught.value.code == BAD_DATA
        else:
            assert len(linting.database_of(site)) == 1

"""Why something was done again, told from what was configured with and from Ninja's own words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from slipway.why import MOST, lines, of_configuration, of_copy, of_ninja, read, stamp

SOURCE = "/home/me/oar"
PARTS = {
    "image": "slipway-dev:0123456789ab",
    "CXXFLAGS": "-march=x86-64-v3 -g",
    "LDFLAGS": "-fuse-ld=mold",
    "source": SOURCE,
    "build": ["cmake", "", [], [], False],
}


def stamped(options: dict[str, str] | None = None, **parts: object) -> str:
    return json.dumps({"toolchain": {**PARTS, **parts}, "options": options or {}})


def explained(*texts: str) -> str:
    return "".join(f"ninja explain: {text}\n" for text in texts)


def older(output: str, newer: str) -> str:
    return f"output {output} older than most recent input {newer} (179 vs 180)"


# -- configuring


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        (
            stamped(image="slipway-dev:ba9876543210"),
            ("image", "slipway-dev:ba9876543210, before slipway-dev:0123456789ab"),
        ),
        (stamped(image=""), ("image", "none: in place, before slipway-dev:0123456789ab")),
        (
            stamped(CXXFLAGS="-march=x86-64-v2 -g"),
            ("configuration", "CXXFLAGS gained -march=x86-64-v2, lost -march=x86-64-v3"),
        ),
        (
            stamped(CXXFLAGS="-g -march=x86-64-v3"),
            ("configuration", "CXXFLAGS are in another order"),
        ),
        (
            stamped(source="/elsewhere"),
            ("configuration", "the source is /elsewhere, before /home/me/oar"),
        ),
        (
            stamped(build=["make"]),
            (
                "configuration",
                f'build in project.yaml says ["make"], before {json.dumps(PARTS["build"])}',
            ),
        ),
        (stamped({"A": "1"}), ("configuration", "A is 1, before not set")),
    ],
)
def test_what_was_configured_with_and_what_is_now(now: str, reason: tuple[str, str]) -> None:
    assert of_configuration(stamped(), now, "again") == [reason]


def test_options_that_changed_or_went_are_named() -> None:
    before, now = stamped({"A": "1", "B": "2", "C": ""}), stamped({"A": "2", "C": ""})
    assert of_configuration(before, now, "again") == [
        ("configuration", "A is 2, before 1"),
        ("configuration", "B is not set any more, before 2"),
    ]


def test_what_was_not_configured_again_has_no_reason() -> None:
    assert of_configuration(stamped(), stamped({"A": "1"}), "no") == []


@pytest.mark.parametrize("before", ["", "{", "[]", "null", '{"toolchain": "x", "options": {}}'])
def test_a_stamp_that_says_nothing_is_that_of_a_new_directory(before: str) -> None:
    ((kind, text),) = of_configuration(before, stamped(), "fresh")
    assert kind == "configuration"
    assert "has not been configured" in text


def test_ninja_s_own_file_may_be_what_is_missing() -> None:
    assert of_configuration(stamped(), stamped(), "again") == [
        ("configuration", "what Ninja reads was not there")
    ]


def test_a_stamp_is_read_where_there_is_one(tmp_path: Path) -> None:
    assert stamp(tmp_path / "none") == ""
    (tmp_path / "one").write_text("{}")
    assert stamp(tmp_path / "one") == "{}"


# -- Ninja


def test_a_source_file_is_named_relative_to_the_source_with_what_was_made_for_it() -> None:
    said = explained(
        older("CMakeFiles/oar.dir/src/adam.cc.o", f"{SOURCE}/src/adam.cc"),
        "CMakeFiles/oar.dir/src/adam.cc.o is dirty",
        "liboar.so is dirty",
    )
    assert of_ninja(said, SOURCE) == [("source file", "src/adam.cc has changed, for adam.cc.o")]


def test_a_header_of_many_files_is_one_line_and_comes_first() -> None:
    header = f"{SOURCE}/include/oar.h"
    said = explained(
        older("z.o", f"{SOURCE}/a.cc"), *(older(f"{name}.o", header) for name in "abc")
    )
    assert of_ninja(said, SOURCE) == [
        ("source file", "include/oar.h has changed, for 3 files"),
        ("source file", "a.cc has changed, for z.o"),
    ]


def test_a_header_of_the_compiler_s_is_the_compiler() -> None:
    path = "/usr/include/c++/14/vector"
    assert of_ninja(explained(older("a.o", path)), SOURCE) == [
        ("compiler", f"{path} has changed, for a.o")
    ]


@pytest.mark.parametrize("name", ["CMakeLists.txt", "cmake/Oar.cmake"])
def test_a_file_of_cmake_s_is_configuration(name: str) -> None:
    said = explained(older("build.ninja", f"{SOURCE}/{name}"))
    assert of_ninja(said, SOURCE) == [("configuration", f"{name} has changed, for CMake")]


def test_what_is_made_because_something_before_it_was_is_left_out() -> None:
    said = explained(
        older("gen.h", f"{SOURCE}/gen.py"), older("a.o", "gen.h"), "recorded mtime of x"
    )
    assert of_ninja(said, SOURCE) == [("source file", "gen.py has changed, for gen.h")]


def test_the_recorded_time_counts_as_the_file_s_does() -> None:
    said = explained(
        f"recorded mtime of gen.h older than most recent input {SOURCE}/gen.py (1 vs 2)"
    )
    assert of_ninja(said, SOURCE) == [("source file", "gen.py has changed, for gen.h")]


def test_other_commands_are_counted_once_for_each_output() -> None:
    said = explained(*["command line changed for a.o"] * 2, "command line changed for b.o")
    assert of_ninja(said, SOURCE) == [
        ("configuration", "the commands have changed, for 2 files"),
    ]


NOTHING_YET = explained(
    "output a.o doesn't exist",
    "command line not found in log for b.o",
    "deps for 'c.o' are missing",
    "stored deps info out of date for 'd.o' (1 vs 2)",
    "output all of phony edge with no inputs doesn't exist",
)


def test_what_was_not_there_is_counted_but_where_cmake_has_just_removed_it() -> None:
    assert of_ninja(NOTHING_YET, SOURCE) == [("configuration", "nothing was there, for 5 files")]
    assert of_ninja(NOTHING_YET, SOURCE, afresh=True) == []


def test_what_ninja_left_is_read_once(tmp_path: Path) -> None:
    file = tmp_path / ".slipway-explained"
    file.write_text(explained(older("a.o", f"{SOURCE}/a.cc")) + "ninja: warning: something\n")
    assert read(tmp_path, SOURCE, afresh=False) == [("source file", "a.cc has changed, for a.o")]
    assert read(tmp_path, SOURCE, afresh=False) == []


# -- what is shown


def test_it_is_one_line_for_each_reason_image_first() -> None:
    reasons = [("source file", "a.cc has changed"), ("image", "x, before y")]
    assert lines("oar 1.0 cpu", reasons) == [
        "why oar 1.0 cpu was done again:",
        "  image: x, before y",
        "  source file: a.cc has changed",
    ]


def test_no_reason_is_said_too() -> None:
    (line,) = lines("oar 1.0 cpu", [])
    assert line.startswith("why oar 1.0 cpu: no image")


def test_a_long_list_is_cut() -> None:
    shown = lines("x", of_copy([f"{number}.c" for number in range(MOST + 3)]))
    assert len(shown) == MOST + 2
    assert shown[-1] == "  source file: and 3 more"

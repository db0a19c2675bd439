"""What is run on an emulated CPU, what cannot be, and what is said of it."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import signal
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from slipway import emulation, testing
from slipway.engine import Mount
from slipway.errors import SlipwayError
from slipway.settings import ROOT
from slipway.variants import TABLE
from tests.unit.fakes import make_project, make_tree, make_workshop

HELP = """\
Available CPUs:
  Haswell               (alias configured by machine type)
  Nehalem               (alias configured by machine type)
x86 Nehalem-v1            Intel Core i7 9xx (Nehalem Class Core i7)
  qemu64-v1             QEMU Virtual CPU version 2.5+

Recognized CPUID flags:
  3dnow 3dnowext
"""


def load() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("emulate", str(ROOT / "scripts" / "emulate"))
    spec = importlib.util.spec_from_loader("emulate", loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    loader.exec_module(module)
    sys.dont_write_bytecode = before
    return module


inside: Any = load()


def test_the_cpus_are_those_that_qemu_lists_without_the_flags() -> None:
    assert emulation.known_cpus(HELP) == ["Haswell", "Nehalem", "Nehalem-v1", "qemu64-v1"]


def test_a_cpu_may_be_followed_by_features() -> None:
    emulation.check_name("Nehalem,-sse4.2", ["Nehalem"])


@pytest.mark.parametrize("typed", ["nehalem", "Nehalm", "NEHALEM"])
def test_an_unknown_cpu_is_told_the_nearest(typed: str) -> None:
    with pytest.raises(SlipwayError) as error:
        emulation.check_name(typed, emulation.known_cpus(HELP))
    assert error.value.code == 64
    assert "did you mean Nehalem" in str(error.value.message)
    assert error.value.fix[0] == "invoke test --cpu Nehalem"


@pytest.mark.parametrize(
    ("level", "variant", "fix"),
    [
        ("x86-64-v2", "cpu", "invoke test --variant noavx --cpu X"),
        ("x86-64-v2", "gpu", "invoke test --variant gpu-noavx --cpu X"),
        ("x86-64", "noavx", "invoke test --variant noavx --cpu Nehalem"),
        ("x86-64", "cpu", "invoke test --variant cpu --cpu Haswell"),
    ],
)
def test_a_cpu_below_the_variant_is_refused_and_what_fits_is_named(
    level: str, variant: str, fix: str
) -> None:
    with pytest.raises(SlipwayError) as error:
        emulation.check_level("X", level, variant, TABLE)
    assert error.value.code == 64
    assert error.value.fix == (fix,)


@pytest.mark.parametrize("level", ["x86-64-v2", "x86-64-v3"])
def test_a_cpu_at_or_above_the_variant_passes(level: str) -> None:
    emulation.check_level("X", level, "noavx", TABLE)


def listed(**properties: Any) -> dict[str, Any]:
    rows = [{"name": key, "value": value} for key, value in properties.items()]
    return {"tests": [{"name": "t", "command": ["/b/t", "-x"], "properties": rows}]}


def test_what_ctest_lists_is_taken_over() -> None:
    tests, not_run = emulation.planned(
        listed(
            WORKING_DIRECTORY="/b",
            ENVIRONMENT=["A=1", "B=x=y"],
            TIMEOUT=7.5,
            WILL_FAIL=True,
            SKIP_RETURN_CODE=77,
            SKIP_REGULAR_EXPRESSION=["\\[  SKIPPED \\]"],
            RUN_SERIAL=True,
            LABELS=["slow"],
            _BACKTRACE_TRIPLES=[],
        )
    )
    assert not_run == []
    assert tests == [
        {
            "name": "t",
            "command": ["/b/t", "-x"],
            "directory": "/b",
            "environment": {"A": "1", "B": "x=y"},
            "timeout": 7.5,
            "will_fail": True,
            "skip_code": 77,
            "pass": [],
            "fail": [],
            "skip": ["\\[  SKIPPED \\]"],
            "alone": True,
        }
    ]


@pytest.mark.parametrize(
    ("properties", "why"),
    [
        ({"DISABLED": True}, "DISABLED"),
        ({"FIXTURES_REQUIRED": ["db"], "DEPENDS": ["a"]}, "DEPENDS, FIXTURES_REQUIRED"),
        ({"ENVIRONMENT_MODIFICATION": ["A=set:1"]}, "ENVIRONMENT_MODIFICATION"),
    ],
)
def test_a_test_that_would_be_judged_wrongly_is_not_run_and_says_why(
    properties: dict[str, Any], why: str
) -> None:
    tests, not_run = emulation.planned(listed(**properties))
    assert tests == []
    assert [row["name"] for row in not_run] == ["t"]
    assert why in not_run[0]["why"]


def test_a_test_that_was_not_built_is_not_run() -> None:
    assert emulation.planned({"tests": [{"name": "t"}]})[1][0]["why"] == "it has not been built"


def test_a_filter_for_one_kind_runs_that_kind_alone(tmp_path: Path) -> None:
    tree = make_tree(
        tmp_path, test={"pytest": ["t"], "scripts": ["a.py"], "commands": ["make check"]}
    )
    every = emulation.kinds(tree, "", [])
    assert every == emulation.Kinds(True, True, True, ("make check",))
    assert emulation.kinds(tree, "Relu", []) == emulation.Kinds(True, False, False, ())
    assert emulation.kinds(tree, "", ["-k", "x"]) == emulation.Kinds(False, True, False, ())
    assert emulation.kinds(tree, "Relu", ["-k", "x"]) == emulation.Kinds(True, True, False, ())


def test_a_project_without_a_test_that_could_be_emulated_is_an_error(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, test={"ctest": False, "commands": ["make check"]})
    with pytest.raises(SlipwayError) as error:
        emulation.kinds(tree, "", [])
    assert error.value.code == 65


def test_emulating_without_an_engine_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    with pytest.raises(SlipwayError) as error:
        testing.check_flags(make_workshop(tmp_path), "host", "", "Nehalem")
    assert error.value.code == 64
    assert "needs a container engine" in str(error.value.message)
    testing.check_flags(make_workshop(tmp_path), "docker", "prod", "Nehalem")


def test_no_two_mounts_have_one_place() -> None:
    copy = Mount(Path("/copy"), instead_of=Path("/a"))
    mounts = [copy, Mount(Path("/a")), Mount(Path("/b"), target="/x"), Mount(Path("/b"))]
    assert emulation.without_doubles(mounts) == [copy, mounts[2], mounts[3]]


def test_an_elf_file_is_handed_to_qemu_itself(tmp_path: Path) -> None:
    program = tmp_path / "t"
    program.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(11) + b"\x3e\x00" + bytes(40))
    assert inside.how_to_start(str(program)) == ([str(program)], "")


@pytest.mark.parametrize("line", ["#!/usr/bin/python3", "#!/usr/bin/env python3", "#! python3.11"])
def test_of_a_python_script_the_interpreter_is(tmp_path: Path, line: str) -> None:
    script = tmp_path / "t"
    script.write_text(f"{line}\nprint()\n")
    assert inside.how_to_start(str(script)) == ([sys.executable, str(script)], "")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"#!/bin/sh\n./t\n", "a script of /bin/sh"),
        (b"#!/usr/bin/env -S perl\n", "a script of -S"),
        (b"\x7fELF\x02\x01\x01" + bytes(11) + b"\xb7\x00", "no x86-64 program"),
        (b"", "no program"),
    ],
)
def test_what_cannot_be_emulated_is_not_started(tmp_path: Path, content: bytes, why: str) -> None:
    file = tmp_path / "t"
    file.write_bytes(content)
    argv, words = inside.how_to_start(str(file))
    assert argv == []
    assert why in words


def test_a_program_that_the_image_lacks_is_named() -> None:
    assert "has no /gone/t" in inside.how_to_start("/gone/t")[1]


def judged(status: int, text: str = "", **properties: Any) -> tuple[str, str]:
    result: tuple[str, str] = inside.verdict({**inside.plain("t"), **properties}, status, text)
    return result


@pytest.mark.parametrize(
    ("status", "text", "properties", "expected"),
    [
        (0, "", {}, "passed"),
        (1, "", {}, "failed"),
        (1, "", {"will_fail": True}, "passed"),
        (0, "", {"will_fail": True}, "failed"),
        (77, "", {"skip_code": 77}, "skipped"),
        (0, "[  SKIPPED ] x", {"skip": ["\\[  SKIPPED \\]"]}, "skipped"),
        (1, "all well", {"pass": ["all well"]}, "passed"),
        (0, "nothing", {"pass": ["all well"]}, "failed"),
        (0, "Error 3", {"fail": ["Error [0-9]"]}, "failed"),
        (0, "{}", {"pass": ["^{}$"]}, "passed"),
        (-signal.SIGILL, "", {}, "failed"),
        (-signal.SIGILL, "", {"will_fail": True}, "failed"),
        (-signal.SIGILL, "all well", {"pass": ["all well"]}, "failed"),
    ],
)
def test_a_test_is_judged_as_ctest_would_and_a_death_is_never_a_pass(
    status: int, text: str, properties: dict[str, Any], expected: str
) -> None:
    assert judged(status, text, **properties)[0] == expected


def test_an_illegal_instruction_and_a_missing_library_are_named() -> None:
    assert "Illegal instruction" in judged(-signal.SIGILL)[1]
    text = "t: error while loading shared libraries: libgtest.so.1: cannot open shared object file"
    assert "has no libgtest.so.1" in judged(127, text)[1]


def test_the_report_is_counted_as_every_other_is(tmp_path: Path) -> None:
    outcomes = [
        inside.outcome("a", "passed", ""),
        inside.outcome('b "<&\x00', "failed", "status 1"),
        inside.outcome("c", "skipped", "DISABLED is set"),
    ]
    file = tmp_path / "x.xml"
    file.write_text(inside.junit("C++", outcomes), encoding="utf-8")
    result = testing.read_reports({"C++": file})
    assert (result.executed, result.failed) == (2, 1)
    assert result.not_run == ("C++.c",)
    assert result.parts == "C++ 2"
    names = [case.get("name") for case in ElementTree.parse(file).iter("testcase")]  # noqa: S314
    assert names[1] == 'b "<&?'


def test_a_forked_process_that_dies_of_an_illegal_instruction_is_the_test_s() -> None:
    said = "qemu: uncaught target signal 4 (Illegal instruction) - core dumped"
    assert inside.outcome("a", "failed", "", text=said)["sigill"]
    assert not inside.outcome("a", "passed", "", text=said)["sigill"]  # a death test's


def test_programs_are_told_of_the_test_that_was_running() -> None:
    log = ["program /bin/a", "test one", "test two", "program /bin/b", "program /bin/c", "test x"]
    assert inside.who_started(log) == ("x", ["collecting", "two"])


@pytest.mark.parametrize("line", ["", "train.sh --fast", "'train.py"])
def test_a_script_is_named_by_a_line_that_begins_with_it(line: str) -> None:
    with pytest.raises(ValueError, match="scripts"):
        make_project(test={"scripts": [line]})


def test_scripts_stand_beside_project_yaml_and_bring_their_directory(tmp_path: Path) -> None:
    script = tmp_path / "demo" / "train.py"
    script.parent.mkdir()
    script.touch()
    tree = make_tree(tmp_path / "lib", test={"scripts": ["../demo/train.py --epochs 3"]})
    wanted = testing.installed(tree)
    assert wanted.scripts == ((script, ("--epochs", "3")),)
    assert wanted.mounts == [Mount(script.parent, readonly=True)]


def test_a_script_that_is_not_there_is_named(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, test={"scripts": ["gone.py"]})
    with pytest.raises(SlipwayError) as error:
        testing.installed(tree)
    assert error.value.code == 66
    assert f"no tests at {tmp_path}/gone.py" in str(error.value.message)

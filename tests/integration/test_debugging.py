"""A debugger in the dev image, what is kept of a crash, and why a build was done again."""

from __future__ import annotations

import os
import re
import shlex
import socket
from pathlib import Path

import pytest

from tests.integration.conftest import Built
from tests.integration.workbench import (
    Checkout,
    listening,
    refused,
    shown_commands,
    strangers,
    succeed,
    tree,
    wait_for,
)

MAIN = """\
#include <cstdlib>
#include <string>
#include <vector>
int one();
int two(const int* p);
int main(int argc, char** argv) {
  const std::vector<int> numbers{1, 2, 3};
  const std::string how = argc > 1 ? argv[1] : "";
  if (how == "abort") abort();
  if (const char* set = std::getenv("TINY")) return std::string(set) == "a b" ? 0 : 7;
  return one() + two(how == "die" ? nullptr : &numbers[1]) - 3;
}
"""
TWO = "int two(const int* p) {\n  return *p;\n}\n"
TESTS = """\
add_test(NAME "dies, by a signal" COMMAND tiny die)
add_test(NAME fails COMMAND tiny fails)
set_tests_properties(fails PROPERTIES ENVIRONMENT "TINY=b")
"""
CORE = "dies-by-a-signal.core"
# What an optimised program remembers of its caller's argument.
DEAD = "two (p=p@entry=0x0)"


@pytest.fixture
def crashing(tiny: Path) -> Path:
    """A tree of which one test dies, and another fails."""
    return tree(tiny, cmake=TESTS, main=MAIN, two=TWO)


def lines(*commands: str) -> str:
    """What a person types into gdb."""
    return "".join(f"{command}\n" for command in commands)


def test_gdb_stops_at_a_host_path_and_shows_what_the_library_s_types_hold(
    built: Built, crashing: Path
) -> None:
    typed = lines(f"break {crashing}/two.cc:2", "run", "up", "print how", "print numbers", "where")
    arguments = ("debug", "--project", str(crashing), "--target", "tiny", "--", "a b")
    said = succeed(built.checkout.invoke(*arguments, input=typed))
    assert f"at {crashing}/two.cc:2" in said
    assert f"at {crashing}/main.cc:11" in said
    assert '= "a b"' in said
    assert "std::vector of length 3" in said
    assert "{1, 2, 3}" in said
    assert "disabling address space randomization" not in said
    assert (built.checkout.out / "tiny" / "cpu.debug" / "build" / "tiny").is_file()
    started = shown_commands(said)[-1]
    assert "--cap-add SYS_PTRACE" in started
    assert "--network none" in started
    assert "--privileged" not in said


def test_a_test_of_ctest_s_is_debugged_with_its_arguments_and_environment(
    built: Built, crashing: Path
) -> None:
    common = ("debug", "--project", str(crashing), "--target")
    said = succeed(built.checkout.invoke(*common, "dies, by a signal", input=lines("run")))
    assert "Program received signal SIGSEGV" in said
    said = succeed(built.checkout.invoke(*common, "fails", input=lines("run")))
    assert "exited with code 07" in said


def test_a_python_script_stops_in_the_library_that_was_built(built: Built, area: Path) -> None:
    source = built.checkout.root / "examples" / "oar" / "src" / "activations.cc"
    text = source.read_text().splitlines()
    (line, *_) = (number for number, words in enumerate(text, 1) if "RequireSizes({n})" in words)
    script = area / "script" / "stops.py"
    script.parent.mkdir()
    script.write_text("import numpy, oar\noar.relu(numpy.zeros(3, numpy.float32))\nprint('end')\n")
    # In quotes, for what this path has in it.
    typed = lines(f'break "{source}":{line}', "run", "info args", "delete", "continue")
    said = succeed(built.checkout.invoke("debug", "--target", str(script), input=typed))
    assert f"at {source}:{line}" in said
    assert "n = 3" in said
    assert "\nend" in said


# -- a test that dies


def test_a_test_that_dies_leaves_a_backtrace_and_a_core_which_the_command_shown_opens(
    ordinary: Checkout, crashing: Path
) -> None:
    done = ordinary.invoke("test", "--project", str(crashing))
    out = ordinary.out / "tiny" / "cpu"
    error = refused(done, 8, "2 of 3 tests of tiny 1.0 cpu failed")
    assert f"#0  {DEAD} at {crashing}/two.cc:2" in done.stdout
    assert re.search(rf"#1 .* main .* at {re.escape(str(crashing))}/main\.cc:11", done.stdout)
    assert [f.name for f in (out / "cores").iterdir()] == [CORE]
    assert strangers(out, 1000) == []
    (command,) = re.findall(r"try: invoke (debug --core .*)", error)
    before = (out / "build" / "tiny").stat().st_mtime_ns
    said = succeed(ordinary.invoke(*shlex.split(command), input=lines("where", "list")))
    assert DEAD in said
    assert f"at {crashing}/main.cc:11" in said
    assert "2\t  return *p;" in said  # the source is found, though /usr/src/tiny is what it says
    assert (out / "build" / "tiny").stat().st_mtime_ns == before


def test_a_core_without_its_program_is_refused(built: Built, crashing: Path) -> None:
    project = ("--project", str(crashing))
    built.checkout.invoke("test", *project)
    home = built.checkout.out / "tiny" / "cpu"
    core = home / "cores" / CORE
    (home / "build" / "tiny").rename(home / "build" / "other")
    done = built.checkout.invoke("debug", *project, "--core", str(core))
    refused(done, 66, f"is not there: {home}/build/tiny", "invoke build --variant cpu")
    named = built.checkout.invoke(
        "debug", *project, "--core", str(core), "--target", "other", input=lines("where")
    )
    assert f"at {crashing}/two.cc:2" in succeed(named)


def test_a_file_that_is_no_core_is_refused(built: Built) -> None:
    done = built.checkout.invoke("debug", "--core", "README.md")
    refused(done, 65, "README.md is no core of a program")
    refused(built.checkout.invoke("debug", "--core", "nosuch.core"), 66, "no core nosuch.core")


def test_a_target_that_does_not_exist_gets_the_nearest_names(built: Built, crashing: Path) -> None:
    common = ("debug", "--project", str(crashing), "--target")
    for wrong, right in (("tinny", "'tiny'"), ("dies by signal", "'dies, by a signal'")):
        done = built.checkout.invoke(*common, wrong)
        refused(done, 64, f"nothing to debug is called '{wrong}'", f"did you mean {right}")
    refused(built.checkout.invoke(*common, "nosuch.py"), 66, "no script nosuch.py")


# -- gdbserver


def answer(connection: socket.socket, packet: str) -> str:
    """What a gdbserver says to one packet of the remote protocol."""
    check = sum(packet.encode()) % 256
    connection.sendall(f"${packet}#{check:02x}".encode())
    said = b""
    while not re.search(rb"\$.*#[0-9a-f]{2}", said):
        block = connection.recv(4096)
        assert block, f"closed after {said!r}"
        said += block
    connection.sendall(b"+")
    return said.decode(errors="replace")


def test_gdbserver_answers_at_127_0_0_1_and_ends_with_its_program(
    built: Built, crashing: Path
) -> None:
    arguments = ("debug", "--project", str(crashing), "--target", "tiny", "--server")
    with built.checkout.start(*arguments) as process:
        said = ""

        def listens() -> int:
            nonlocal said
            assert process.stdout is not None
            said += process.stdout.readline()
            assert process.poll() is None, said
            found = re.search(r"waiting for one debugger at 127\.0\.0\.1:(\d+)", said)
            return int(found[1]) if found and "Remote debugging using stdio" in said else 0

        port = wait_for(listens, "gdbserver listens")
        assert f"target remote 127.0.0.1:{port}" in said
        assert "--network none" in shown_commands(said)[-1]
        assert "--publish" not in said
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            assert re.search(r"\$[ST]05", answer(connection, "?"))
            connection.sendall(b"$k#6b")
        process.wait(timeout=30)


def test_a_port_in_use_is_refused(built: Built, crashing: Path) -> None:
    with listening("127.0.0.1") as server:
        port = server.getsockname()[1]
        done = built.checkout.invoke(
            *("debug", "--project", str(crashing), "--target", "tiny"),
            *("--server", "--port", str(port)),
        )
    refused(done, 75, f"port {port} of 127.0.0.1 is in use")


# -- the build type


def test_the_debug_tree_stands_beside_the_release_s_and_is_never_packaged(
    built: Built, tiny: Path
) -> None:
    project = ("--project", str(tiny))
    succeed(built.checkout.invoke("build", *project))
    out = built.checkout.out / "tiny"
    before = (out / "cpu" / "build" / "tiny").stat().st_mtime_ns
    succeed(built.checkout.invoke("test", *project, "--build-type", "debug"))
    program = out / "cpu.debug" / "build" / "tiny"
    assert os.fsencode(tiny) in program.read_bytes()
    assert b"/usr/src/tiny" not in program.read_bytes()
    released = out / "cpu" / "build" / "tiny"
    assert released.stat().st_mtime_ns == before
    assert os.fsencode(tiny) not in released.read_bytes()
    done = built.checkout.invoke("test", *project, "--build-type", "debug", "--image", "prod")
    refused(done, 64, "never packaged")
    done = built.checkout.invoke("build", *project, "--build-type", "dbg")
    refused(done, 64, "no build type 'dbg'", "did you mean 'debug'?")


# -- why


def why(said: str) -> list[str]:
    """The reasons that a build gave."""
    return [
        line.strip()
        for line in re.findall(r"(?m)^  (?:image|configuration|compiler|source)[ :].*", said)
    ]


def test_why_names_the_source_file_the_option_and_the_image(built: Built, tiny: Path) -> None:
    def build(*more: str) -> list[str]:
        arguments = ("build", "--project", str(tiny), "--why", *more)
        return why(succeed(built.checkout.invoke(*arguments)))

    succeed(built.checkout.invoke("clean", "--project", str(tiny)))
    (first,) = build()
    assert first.startswith("configuration: this directory has not been configured yet")
    assert build() == []
    (tiny / "two.cc").write_text("int two() { return 1 + 1; }\n")
    assert build() == ["source file: two.cc has changed, for two.cc.o"]
    with (tiny / "CMakeLists.txt").open("a") as cmake:
        cmake.write("target_compile_definitions(tiny PRIVATE X)\n")
    assert build() == [
        "configuration: CMakeLists.txt has changed, for CMake",
        "configuration: the commands have changed, for 3 files",
    ]
    project = tiny / "project.yaml"
    described = project.read_text()
    project.write_text(f"{described}build: {{options: {{Y: '1'}}}}\n")
    assert build() == ["configuration: Y is 1, before not set"]
    project.write_text(f"{described}build: {{options: {{Y: '1'}}, pip: [iniconfig]}}\n")
    (first,) = build()
    assert re.fullmatch(r"image: slipway-dev-tiny:\w+, before slipway-dev:\w+", first)

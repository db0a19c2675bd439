"""What is debugged, with which command line, and what of it is refused."""

from __future__ import annotations

import itertools
import json
import os
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from invoke.exceptions import Exit
from msgspec.structs import replace

from slipway import builds, cores, debugging, engine, gdb, targets, testing
from slipway.builds import Site
from slipway.debugging import Wish
from slipway.engine import Caller, Job, run_arguments
from slipway.errors import BAD_DATA, NO_INPUT, TEMPORARY, USAGE, SlipwayError
from slipway.processes import Heard
from slipway.targets import Program
from tests.unit.fakes import make_site

# -- command lines


def commands(argv: Sequence[str], option: str = "-iex") -> list[str]:
    return [word for before, word in itertools.pairwise(argv) if before == option]


def test_the_address_space_stays_random_since_seccomp_lets_nobody_change_that(
    tmp_path: Path,
) -> None:
    assert "set disable-randomization off" in commands(gdb.gdb(make_site(tmp_path)))


def test_a_breakpoint_in_a_library_that_is_not_loaded_yet_is_kept(tmp_path: Path) -> None:
    assert "set breakpoint pending on" in commands(gdb.gdb(make_site(tmp_path)))


def test_paths_in_a_release_build_are_put_back_the_longest_first(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    assert gdb.substitutions(site) == [
        f"set substitute-path /usr/src/oar/build {site.build}",
        f"set substitute-path /usr/src/oar {site.tree.source}",
    ]
    assert set(gdb.substitutions(site)) <= set(commands(gdb.gdb(site)))


def test_they_are_those_that_the_compiler_was_told(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    flags = builds.compiler_environment(site)["CXXFLAGS"]
    for line in gdb.substitutions(site):
        name, path = line.split()[2:]
        assert f"-ffile-prefix-map={path}={name}" in flags


def test_a_debug_build_has_its_own_paths(tmp_path: Path) -> None:
    assert gdb.substitutions(replace(make_site(tmp_path), build_type="debug")) == []


def test_a_path_with_blanks_and_quotes_is_one_word_of_gdb_s() -> None:
    assert gdb.quoted("/a b/c'd\"e\\f") == "/a\\ b/c\\'d\\\"e\\\\f"


def test_a_test_that_died_runs_again_and_leaves_a_core(tmp_path: Path) -> None:
    argv = gdb.again(make_site(tmp_path), "/out/a b.core", ("/t", "--x"))
    assert argv[0] == "timeout"
    assert commands(argv, "-ex") == ["run", "backtrace 40", "generate-core-file /out/a b.core"]
    assert argv[-3:] == ["--args", "/t", "--x"]


# -- what there is to debug


def elf(kind: int, *segments: int) -> bytes:
    """An ELF header with a table of segments of these types."""
    head = (
        b"\x7fELF\2\1\1"
        + bytes(9)
        + struct.pack("<HHIQQQIHHH", kind, 62, 1, 0, 64, 0, 0, 64, 56, len(segments))
    )
    return head.ljust(64, b"\0") + b"".join(struct.pack("<I52x", s) for s in segments)


@pytest.mark.parametrize(
    ("head", "is_one"),
    [
        (elf(3, 6, 3, 1), True),  # position-independent, and names its loader
        (elf(3, 1, 2), False),  # a library
        (elf(2, 1), True),  # static, at a fixed address
        (elf(1), False),  # an object file
        (b"#!/bin/sh\n", False),
        (b"\x7fELF\2\1", False),
        (b"", False),
    ],
)
def test_a_program_is_told_from_a_library(head: bytes, is_one: bool) -> None:
    assert targets.is_program(head) == is_one


def executable(path: Path, content: bytes = elf(3, 3)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(0o755)
    return path


def test_programs_are_found_by_what_they_are(tmp_path: Path) -> None:
    build = tmp_path / "build"
    executable(build / "tests" / "oar_tests")
    executable(build / "liboar.so", elf(3, 1))
    executable(build / "CMakeFiles" / "a.out")
    executable(build / "script", b"#!/bin/sh\n")
    executable(build / "off").chmod(0o644)
    (build / "link").symlink_to("tests/oar_tests")
    assert targets.programs({build: "/inside"}) == {"tests/oar_tests": "/inside/tests/oar_tests"}


def test_where_a_copy_is_built_programs_are_in_it_by_the_source_s_path(tmp_path: Path) -> None:
    site = make_site(tmp_path, build={"system": "make"})
    executable(site.copy / "bin" / "tool")
    found = targets.programs(targets.directories(site))
    assert found == {"bin/tool": f"{site.tree.source}/bin/tool"}


KNOWN = {"tests/cpp/oar_tests": "/b/tests/cpp/oar_tests", "a/x": "/b/a/x", "b/x": "/b/b/x"}


def test_a_program_is_named_by_its_path_or_by_the_end_of_it() -> None:
    for name in ("oar_tests", "cpp/oar_tests", "tests/cpp/oar_tests"):
        assert targets.among(name, KNOWN) == "/b/tests/cpp/oar_tests"
    assert targets.among("tests", KNOWN) == ""


def test_a_name_that_two_programs_have_is_refused() -> None:
    with pytest.raises(SlipwayError, match="several programs are called 'x'") as caught:
        targets.among("x", KNOWN)
    assert caught.value.cause == "a/x\nb/x"
    assert caught.value.code == USAGE


def test_an_unknown_name_gets_the_nearest_and_all_programs() -> None:
    error = targets.unknown("oar_test", KNOWN, {"Linear.Forward": Program(())})
    assert "did you mean 'oar_tests'?" in error.cause
    assert "programs that were built: oar_tests, x, x" in error.cause
    assert "1 tests of CTest's" in error.cause
    assert error.fix[0] == "invoke debug --target oar_tests"
    assert error.code == USAGE


def test_the_nearest_may_be_a_test() -> None:
    error = targets.unknown("Linear.Forwards", {}, {"Linear.Forward": Program(())})
    assert error.fix[0] == "invoke debug --target Linear.Forward"
    assert "programs that were built: none" in error.cause


LISTING: dict[str, Any] = {
    "tests": [
        {
            "name": "Linear.Forward",
            "command": ["/b/oar_tests", "--gtest_filter=Linear.Forward"],
            "properties": [
                {"name": "WORKING_DIRECTORY", "value": "/b"},
                {"name": "ENVIRONMENT", "value": ["A=1", "B=x=y"]},
            ],
        },
        {"name": "plain", "command": ["/b/plain"]},
        {"name": "not built", "properties": []},
    ]
}


def test_a_test_is_run_as_ctest_does() -> None:
    assert targets.tests(LISTING) == {
        "Linear.Forward": Program(
            ("/b/oar_tests", "--gtest_filter=Linear.Forward"), "/b", {"A": "1", "B": "x=y"}
        ),
        "plain": Program(("/b/plain",)),
    }


# -- a site whose jobs do nothing but leave what the tests say


@dataclass
class Recorder:
    """A place where jobs are written down, and leave files."""

    leaves: Mapping[str, str] = field(default_factory=dict)
    """By a word of the command, the content of the file that its last word but one names."""
    status: int = 0
    jobs: list[Job] = field(default_factory=list)

    def inside(self, path: Path) -> str:
        return str(path)

    def run(self, job: Job, image: str, heard: Heard | None = None) -> int:  # noqa: ARG002
        self.jobs.append(job)
        words = list(job.command)
        if "ctest" in words:
            Path(words[4]).write_text(json.dumps(LISTING))
        for word in words:
            name = word.removeprefix("generate-core-file ")
            if name != word and Path(name).name in self.leaves:
                Path(name).write_text(self.leaves[Path(name).name])
        return self.status


def recorded(tmp_path: Path, **parts: Any) -> tuple[Site, Recorder]:
    place = Recorder()
    site = replace(make_site(tmp_path, **parts), place=place)
    site.prepare()
    return site, place


def test_a_target_is_a_program_and_its_arguments(tmp_path: Path) -> None:
    site, place = recorded(tmp_path)
    executable(site.build / "oar_tests")
    found = targets.find_program(site, "oar_tests", ["a b"])
    assert found == Program((f"{site.build}/oar_tests", "a b"))
    assert place.jobs == []  # CTest is not asked


def test_a_target_may_be_a_test_of_ctest_s(tmp_path: Path) -> None:
    site, _ = recorded(tmp_path)
    found = targets.find_program(site, "Linear.Forward", ["--x"])
    assert found.command == ("/b/oar_tests", "--gtest_filter=Linear.Forward", "--x")


def test_a_target_that_is_neither_is_refused(tmp_path: Path) -> None:
    site, _ = recorded(tmp_path)
    executable(site.build / "oar_tests")
    with pytest.raises(SlipwayError, match="nothing to debug is called 'Linear'"):
        targets.find_program(site, "Linear", [])


def test_a_python_script_imports_what_was_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, _ = recorded(tmp_path, test={"pythonpath": ["python"]})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.py").touch()
    (site.tree.source / "y.py").touch()
    mine = targets.find_program(site, "x.py", ["--epochs", "3"])
    assert mine.command == ("python3", f"{tmp_path}/x.py", "--epochs", "3")
    assert mine.env["PYTHONPATH"] == f"{site.build}/python"
    assert [(m.source, m.readonly) for m in mine.mounts] == [(tmp_path, True)]
    theirs = targets.find_program(site, "y.py", [])
    assert theirs.command == ("python3", f"{site.tree.source}/y.py")
    assert theirs.mounts == ()


def test_a_path_with_a_colon_is_mounted_where_pythonpath_can_say_it(tmp_path: Path) -> None:
    site, _ = recorded(tmp_path / "a:b", test={"pythonpath": ["python"]})
    (site.tree.source / "y.py").touch()
    found = targets.find_program(site, "y.py", [])
    assert found.env["PYTHONPATH"] == "/run/slipway/python/0"
    assert [(m.source, m.target) for m in found.mounts] == [
        (site.build / "python", "/run/slipway/python/0")
    ]


def test_a_script_that_is_not_there_gets_the_nearest(tmp_path: Path) -> None:
    site, _ = recorded(tmp_path)
    (site.tree.source / "train.py").touch()
    with pytest.raises(SlipwayError, match=r"no script traim\.py") as caught:
        targets.find_program(site, "traim.py", [])
    assert caught.value.cause == "did you mean train.py?"
    assert caught.value.code == NO_INPUT


# -- what is started


def docker_run(job: Job) -> list[str]:
    root = Path("/checkout")
    user = Caller(1000, 1000, "me")
    return run_arguments(
        job, "image", checkout="c", root=root, user=user, identity=root, terminal=False
    )


def test_the_debugger_gets_one_capability_a_terminal_and_no_network(tmp_path: Path) -> None:
    site, place = recorded(tmp_path)
    debugging.start(site, ["gdb"], Program(("/t",), "/d", {"A": "1"}))
    (job,) = place.jobs
    assert job.capabilities == ("SYS_PTRACE",)
    assert (job.interactive, job.network, job.ports, job.stdin) == (True, False, (), None)
    assert (job.workdir, job.env["A"]) == ("/d", "1")
    arguments = docker_run(job)
    assert commands(arguments, "--cap-add") == ["SYS_PTRACE"]
    assert "--privileged" not in arguments
    assert "--security-opt" not in arguments


def test_gdbserver_has_no_port_and_no_network_and_speaks_to_who_is_connected_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, place = recorded(tmp_path)
    near, far = socket.socketpair()

    class Server:
        """Lets one debugger in."""

        closed = 0

        def accept(self) -> tuple[socket.socket, str]:
            return far, "debugger"

        def close(self) -> None:
            self.closed += 1

        def __enter__(self) -> None: ...

        def __exit__(self, *_: object) -> None: ...

    def echo(job: Job, image: str, heard: Heard | None = None) -> int:
        place.jobs.append(job)
        wire = os.dup(job.wire)
        os.write(wire, os.read(wire, 100).upper())
        os.close(wire)
        assert near.recv(100) == b"+$QSUPPORTED"
        return 0

    monkeypatch.setattr(place, "run", echo)
    near.sendall(b"+$qSupported")
    server = Server()
    debugging.serve(site, Program(("/t", "x")), server)  # type: ignore[arg-type]
    (job,) = place.jobs
    assert job.command == [
        *("gdbserver", "--once", "--no-disable-randomization", "-", "/t", "x"),
    ]
    arguments = docker_run(job)
    assert commands(arguments, "--network") == ["none"]
    assert "--publish" not in arguments
    assert server.closed == 1  # to nobody else
    assert near.recv(100) == b""
    near.close()


def test_a_relay_ends_when_either_end_hangs_up() -> None:
    for which in (0, 1):
        near, wire = socket.socketpair()
        far, debugger = socket.socketpair()

        class Server:
            def accept(self, far: socket.socket = far) -> tuple[socket.socket, str]:
                return far, ""

            def close(self) -> None: ...

        (wire, debugger)[which].close()
        debugging.relay(Server(), near)  # type: ignore[arg-type]
        (left,) = (end for end in (wire, debugger) if end.fileno() >= 0)
        assert left.recv(1) == b""
        left.close()


def test_the_debugger_s_status_is_ours(tmp_path: Path) -> None:
    site, place = recorded(tmp_path)
    place.status = 3
    with pytest.raises(Exit) as caught:
        debugging.start(site, ["gdb"], Program(("/t",)))
    assert caught.value.code == 3


def test_what_to_type_to_be_connected_names_port_and_program(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    told = "\n".join(debugging.attach(site, 40123, Program((f"{site.build}/t", "x"))))
    assert "-ex 'target remote 127.0.0.1:40123'" in told
    assert told.splitlines()[1].endswith(f" {site.build}/t")
    assert '"miDebuggerServerAddress": "127.0.0.1:40123"' in told
    assert "set substitute-path" in told
    assert "python3" not in "\n".join(debugging.attach(site, 1, Program(("python3", "/x.py"))))


def test_a_port_in_use_is_refused() -> None:
    with debugging.listen(0) as server:
        host, port = server.getsockname()
        assert host == "127.0.0.1"
        with pytest.raises(SlipwayError, match=rf"port {port} of 127\.0\.0\.1 is in") as caught:
            debugging.listen(port)
    assert caught.value.code == TEMPORARY
    debugging.listen(port).close()


def test_a_number_that_is_no_port_is_refused() -> None:
    with pytest.raises(SlipwayError, match="70000 is no port") as caught:
        debugging.listen(70000)
    assert caught.value.code == USAGE


@pytest.mark.parametrize(
    ("wish", "words", "code"),
    [
        (Wish(), "nothing to debug is named", USAGE),
        (Wish("t", port=1), "--port goes with --server", USAGE),
        (Wish(core="c", server=True), "--core opens what has ended", USAGE),
        (Wish(core="c", arguments=("x",)), "--core opens what has ended", USAGE),
        (Wish(core="/nowhere/x.core"), "no core /nowhere/x.core", NO_INPUT),
    ],
)
def test_what_does_not_go_together_is_refused(wish: Wish, words: str, code: int) -> None:
    with pytest.raises(SlipwayError, match=words) as caught:
        debugging.check(wish)
    assert caught.value.code == code
    assert caught.value.fix


def test_what_goes_together_is_not_refused(tmp_path: Path) -> None:
    core = tmp_path / "x.core"
    core.touch()
    for wish in (Wish("t"), Wish("t", server=True, port=1), Wish("t", core=str(core))):
        debugging.check(wish)


# -- cores


def note(kind: int, content: bytes) -> bytes:
    padded = content + bytes(-len(content) % 4)
    return struct.pack("<III", 5, len(content), kind) + b"CORE\0\0\0\0" + padded


def core(*notes: bytes, kind: int = 4) -> bytes:
    """The smallest core with these notes."""
    body = b"".join(notes)
    head = elf(kind, 4)[:64]
    return head + struct.pack("<IIQQQQQQ", 4, 0, 120, 0, 0, len(body), 0, 4) + body


def auxiliary(entry: int) -> bytes:
    return note(6, struct.pack("<6Q", 6, 4096, 9, entry, 0, 0))


def mapped(*files: tuple[int, int, str]) -> bytes:
    table = b"".join(struct.pack("<QQQ", start, end, 0) for start, end, _ in files)
    names = b"".join(os.fsencode(name) + b"\0" for _, _, name in files)
    return note(0x46494C45, struct.pack("<QQ", len(files), 4096) + table + names)


FILES = mapped(
    (0x1000, 0x2000, "/b/Größe, a/t"),
    (0x2000, 0x3000, "/b/Größe, a/t"),
    (0x9000, 0xA000, "/lib/libc.so.6"),
)


@pytest.mark.parametrize(
    ("content", "program"),
    [
        (core(note(1, b"xyz"), auxiliary(0x2010), FILES), "/b/Größe, a/t"),
        (core(auxiliary(0x9999), FILES), "/lib/libc.so.6"),
        (core(auxiliary(0xA000), FILES), ""),
        (core(FILES), ""),
        (core(auxiliary(0x2010)), ""),
        (core(), ""),
    ],
)
def test_a_core_is_of_the_file_that_was_mapped_where_the_program_begins(
    tmp_path: Path, content: bytes, program: str
) -> None:
    file = tmp_path / "x.core"
    file.write_bytes(content)
    assert cores.executable_of(file) == program


@pytest.mark.parametrize("content", [b"", b"no core at all", core(kind=3), core(auxiliary(1))[:90]])
def test_another_file_is_no_core(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x.core"
    file.write_bytes(content)
    with pytest.raises(SlipwayError, match="is no core of a program") as caught:
        cores.executable_of(file)
    assert caught.value.code == BAD_DATA


def test_a_program_in_a_checkout_that_was_moved_inside_is_found_on_this_machine() -> None:
    inside, moved = "/src/slipway/out/oar/cpu/build/t", Path("/usr/checkout")
    assert cores.on_host(inside, moved) == "/usr/checkout/out/oar/cpu/build/t"
    for root in (moved, Path("/home/me")):
        assert cores.on_host("/home/me/out/t", root) == "/home/me/out/t"


@pytest.mark.parametrize(
    ("program", "home"),
    [
        ("/o/oar/cpu/build/t", ("oar", "cpu", "release")),
        ("/o/oar/noavx.debug/build/a/t", ("oar", "noavx", "debug")),
        ("/o/oar/cpu.bookworm/build/t", ("oar", "cpu", "release")),
        ("/o/oar/t", ("", "", "")),
        ("/usr/bin/python3.13", ("", "", "")),
        ("", ("", "", "")),
    ],
)
def test_a_program_s_path_says_what_it_was_built_as(
    program: str, home: tuple[str, str, str]
) -> None:
    assert cores.home_of(program, Path("/o")) == home


def test_a_core_without_its_program_is_refused(tmp_path: Path) -> None:
    site, _ = recorded(tmp_path)
    file = site.out / "x.core"
    file.touch()
    with pytest.raises(SlipwayError, match=f"is not there: {site.build}/t") as caught:
        cores.check_core(site, file, f"{site.build}/t")
    assert caught.value.code == NO_INPUT
    assert caught.value.fix[0].startswith("invoke build --variant cpu")
    with pytest.raises(SlipwayError, match="does not say which program") as caught:
        cores.check_core(site, file, "")
    assert "--target NAME" in caught.value.fix[0]


def test_a_program_of_the_image_s_is_taken_to_be_there(tmp_path: Path) -> None:
    site, _ = recorded(tmp_path)
    cores.check_core(site, site.out / "x.core", "/usr/bin/python3.99")


def test_a_program_that_was_made_again_is_said_to_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site, _ = recorded(tmp_path)
    program, file = executable(site.build / "t"), site.out / "x.core"
    file.touch()
    os.utime(program, (1, 1))
    cores.check_core(site, file, str(program))
    assert capsys.readouterr().out == ""
    os.utime(file, (0, 0))
    cores.check_core(site, file, str(program))
    assert "was made again after this core" in capsys.readouterr().out


def test_a_core_is_opened_with_its_program_and_nothing_is_built(tmp_path: Path) -> None:
    site, place = recorded(tmp_path)
    program, file = executable(site.build / "t"), site.out / "x.core"
    file.touch()
    debugging.open_core(site, Wish(core=str(file)), str(program))
    (job,) = place.jobs
    assert job.command[-2:] == [str(program), str(file)]
    assert commands(job.command)[-1].startswith("set substitute-path")
    assert job.mounts == site.job("debug", [], {}).mounts


def test_a_core_of_the_image_s_python_is_opened_with_that(tmp_path: Path) -> None:
    site, place = recorded(tmp_path)
    site = replace(site, image="slipway-dev:0123456789ab")
    file = site.out / "x.core"
    file.touch()
    debugging.open_core(site, Wish(core=str(file)), "/usr/bin/env")  # this machine has one too
    (job,) = place.jobs
    assert job.command[-2:] == ["/usr/bin/env", str(file)]
    assert job.mounts == site.job("debug", [], {}).mounts


def test_a_core_from_elsewhere_is_mounted(tmp_path: Path) -> None:
    site, place = recorded(tmp_path)
    program, file = executable(site.build / "t"), tmp_path / "elsewhere" / "x.core"
    file.parent.mkdir()
    file.touch()
    debugging.open_core(site, Wish("t", core=str(file)), "/gone")
    (job,) = place.jobs
    assert job.command[-2:] == [str(program), str(file)]
    assert [(m.source, m.readonly) for m in job.mounts[-1:]] == [(file, True)]


# -- tests that died

LOG = """\
33% tests passed, 6 tests failed out of 9

The following tests FAILED:
\t  2 - dies, by signal (SEGFAULT)
\t 13 - aborts (Subprocess aborted)
\t 14 - old (Child aborted)
\t 15 - Emulated.Linear (x) (ILLEGAL)   label
\t 16 - fpe (NUMERICAL)
\t 17 - plain (Failed)
\t 18 - slow (Timeout)
\t 19 - killed by somebody (Subprocess killed)
Errors while running CTest
"""


def test_tests_that_died_by_a_signal_are_told_from_those_that_failed() -> None:
    died = ["dies, by signal", "aborts", "old", "Emulated.Linear (x)", "fpe"]
    assert cores.crashed(LOG) == died
    assert cores.crashed("100% tests passed, 0 tests failed out of 9\n") == []


def test_a_core_is_named_by_its_test() -> None:
    assert cores.core_name("dies, by signal") == "dies-by-signal.core"
    assert cores.core_name("A/Linear.Forward/3") == "A-Linear.Forward-3.core"


def log(site: Site, *names: str) -> None:
    lines = [f"\t  {number} - {name} (SEGFAULT)\n" for number, name in enumerate(names)]
    (site.reports / "ctest.log").write_text("".join(lines))


def test_the_command_names_a_tree_that_is_not_the_usual_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    site = make_site(tmp_path)
    assert cores.naming(site) == []
    source = tmp_path / "else where"
    elsewhere = replace(site, tree=replace(site.tree, source=source))
    assert cores.naming(elsewhere) == ["--source", "else where"]
    other = replace(site, tree=replace(site.tree, file=source / "project.yaml", source=source))
    assert cores.naming(other) == ["--project", "else where/project.yaml"]


def test_a_test_that_died_is_run_again_with_its_environment_and_its_core_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    site, place = recorded(tmp_path)
    place.leaves = {"Linear.Forward.core": "a core"}
    log(site, "Linear.Forward", "plain")
    (site.out / "cores").mkdir()
    (site.out / "cores" / "before.core").touch()
    assert cores.keep_cores(site) == ["invoke debug --core out/oar/cpu/cores/Linear.Forward.core"]
    assert [f.name for f in (site.out / "cores").iterdir()] == ["Linear.Forward.core"]
    job = place.jobs[1]
    assert job.capabilities == ("SYS_PTRACE",)
    assert (job.workdir, job.env["A"], job.interactive) == ("/b", "1", False)
    assert job.command[-2:] == ["/b/oar_tests", "--gtest_filter=Linear.Forward"]
    assert "no core of plain: it did not die again" in capsys.readouterr().out


def test_of_many_that_died_three_are_run_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site, place = recorded(tmp_path)
    log(site, *["plain", "Linear.Forward", "x", "y", "z"])
    cores.keep_cores(site)
    assert sum(job.command[0] == "timeout" for job in place.jobs) == 2  # CTest knows no x
    assert "2 more have died" in capsys.readouterr().out


def test_a_machine_without_gdb_is_told_so_where_jobs_run_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    site = make_site(tmp_path, host=True)
    site.prepare()
    monkeypatch.setattr(engine, "path_in_place", lambda _: str(tmp_path))
    with pytest.raises(SlipwayError, match="no gdb on this machine") as caught:
        debugging.start(site, ["gdb"], Program(("/t",)))
    assert caught.value.fix == ("sudo apt-get install gdb",)
    log(site, "plain")
    assert cores.keep_cores(site) == ["sudo apt-get install gdb"]
    assert "1 tests have died; no gdb on this machine" in capsys.readouterr().out
    executable(tmp_path / "gdb")
    assert gdb.lacks(site, "gdb") is None


def test_where_no_test_died_nothing_is_run_again(tmp_path: Path) -> None:
    site, place = recorded(tmp_path)
    assert cores.keep_cores(site) == []
    (site.reports / "ctest.log").write_text("\t  1 - plain (Failed)\n")
    assert cores.keep_cores(site) == []
    assert place.jobs == []


def test_the_error_of_the_tests_ends_with_how_to_open_the_core(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, place = recorded(tmp_path)
    place.status = 8

    def died(_: Site) -> list[str]:
        (site.reports / "ctest.xml").write_text(
            '<testsuite><testcase name="a"><failure/></testcase></testsuite>'
        )
        return ["invoke debug --core x.core"]

    monkeypatch.setattr(cores, "keep_cores", died)
    (site.reports / "ctest.xml").touch()
    run = place.run

    def leaving(job: Job, image: str, heard: Heard | None = None) -> int:
        died(site)
        return run(job, image, heard)

    monkeypatch.setattr(place, "run", leaving)
    with pytest.raises(SlipwayError, match="1 of 1 tests") as caught:
        testing.test_built(site)
    assert caught.value.fix[0] == "invoke debug --core x.core"

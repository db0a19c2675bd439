"""An image, and a library in it, on CPUs that lack what they were compiled for.

Those CPUs are emulated. Emulation ends where a program executes another, which then runs on this
machine's own CPU; so the program in question is always what qemu is handed.
"""

from __future__ import annotations

import struct
import subprocess
import textwrap
from pathlib import Path

import pytest

from slipway import isa
from slipway.errors import BAD_CONFIG
from slipway.preflight import refusal, sentences
from slipway.project import Tree, read
from slipway.variants import TABLE
from tests.integration.conftest import Built
from tests.integration.test_all import alias, docker_run, version

PREFLIGHT, ENTRYPOINT = "/usr/local/bin/preflight", "/usr/local/bin/entrypoint"
DYNAMIC, INTERPRETER = 2, 3  # PT_DYNAMIC, PT_INTERP


def on(
    cpu: str, qemu: Path, image: str, *command: str, more: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run a program of an image on an emulated CPU."""
    mount = f"type=bind,source={qemu},target=/mnt/qemu,readonly"
    started = ["--mount", mount, "--entrypoint", "/mnt/qemu", image, "-cpu", cpu, *command]
    return docker_run("--network", "none", "--init", *more, *started)


def start(cpu: str, qemu: Path, image: str, *command: str) -> subprocess.CompletedProcess[str]:
    return on(cpu, qemu, image, PREFLIGHT, ENTRYPOINT, *command)


def run_python(cpu: str, qemu: Path, image: str, code: str) -> subprocess.CompletedProcess[str]:
    return on(cpu, qemu, image, "/usr/bin/python3", "-c", textwrap.dedent(code))


def lines(text: str) -> list[str]:
    """What was said, without the emulator's warnings of what it cannot emulate."""
    return [line for line in text.splitlines() if not line.startswith("qemu: warning: ")]


@pytest.fixture
def oar(built: Built) -> Tree:
    source = built.checkout.root / "examples" / "oar"
    file = source / "project.yaml"
    return Tree(
        project=read(file), file=file, source=source, version=version(built), variants=TABLE
    )


# -- starting an image


@pytest.mark.parametrize(
    ("variant", "cpu", "level", "words"),
    [
        ("cpu", "Nehalem", "x86-64-v2", "use the package oar-noavx or the image oar:"),
        # AVX that the system does not let programs use is none: OSXSAVE is off.
        ("cpu", "Haswell,-xsave", "x86-64-v2", "use the package oar-noavx or the image oar:"),
        ("cpu", "qemu64", "x86-64", "no variant of oar runs on it"),
        ("noavx", "qemu64", "x86-64", "no variant of oar runs on it"),
    ],
)
def test_an_image_says_in_one_sentence_what_to_use_instead_and_exits_78(
    built: Built, qemu: Path, oar: Tree, variant: str, cpu: str, level: str, words: str
) -> None:
    done = start(cpu, qemu, alias(built, variant), "echo", "started")
    assert done.returncode == BAD_CONFIG, done
    assert done.stdout == ""
    assert lines(done.stderr) == [sentences(oar, variant)[level]]
    assert words in done.stderr


def test_the_image_that_is_named_exists_and_starts_on_that_cpu(built: Built, qemu: Path) -> None:
    said = start("Nehalem", qemu, alias(built, "cpu"), "true").stderr
    named = said.rpartition("the image ")[2].strip()
    assert named == alias(built, "noavx")
    assert start("Nehalem", qemu, named, "echo", "started").stdout == "started\n"


@pytest.mark.parametrize(("variant", "cpu"), [("cpu", "Haswell"), ("noavx", "Nehalem")])
def test_a_cpu_that_has_what_is_needed_gets_the_command(
    built: Built, qemu: Path, variant: str, cpu: str
) -> None:
    done = start(cpu, qemu, alias(built, variant), "sh", "-c", "echo started; exit 7")
    assert (done.returncode, done.stdout, lines(done.stderr)) == (7, "started\n", [])


@pytest.mark.parametrize(
    ("cpu", "level"),
    [("qemu64", "x86-64"), ("Nehalem", "x86-64-v2"), ("Haswell", "x86-64-v3")],
)
def test_the_program_tells_the_level_of_a_cpu(
    built: Built, qemu: Path, cpu: str, level: str
) -> None:
    assert on(cpu, qemu, alias(built, "cpu"), PREFLIGHT, "--level").stdout == f"{level}\n"


def test_the_program_is_small_static_and_for_every_cpu(built: Built) -> None:
    cat = ["docker", "run", "--rm", "--entrypoint", "cat", alias(built, "noavx"), PREFLIGHT]
    data = subprocess.run(cat, capture_output=True, check=True).stdout
    assert len(data) < 20_000
    offset, size, number = struct.unpack_from("<Q", data, 32) + struct.unpack_from("<HH", data, 54)
    kinds = {struct.unpack_from("<I", data, offset + i * size)[0] for i in range(number)}
    assert kinds
    assert not kinds & {DYNAMIC, INTERPRETER}
    verdict = isa.examine(data)
    assert verdict.beyond("x86-64") == []
    assert verdict.vectors == (0, 0)  # or a `cpu` image of a library without any would fail


def test_what_it_starts_has_the_environment_and_the_arguments_as_they_were(built: Built) -> None:
    given = ("--network", "none", "--hostname", "same", "--env", "A=x  y", "--env", "EMPTY=")
    image = alias(built, "cpu")
    plain = docker_run(*given, "--entrypoint", "/usr/bin/env", image, "-0")
    ours = docker_run(*given, "--entrypoint", PREFLIGHT, image, "/usr/bin/env", "-0")
    # In which order docker sets variables differs from one container to the next.
    assert sorted(plain.stdout.split("\0")) == sorted(ours.stdout.split("\0"))
    assert "A=x  y\0" in ours.stdout
    said = docker_run(image, "printf", "<%s>", "a b", "", "*", "$HOME").stdout
    assert said == "<a b><><*><$HOME>"


@pytest.mark.parametrize(
    ("command", "status", "words"),
    [
        (["/no/such"], 127, "cannot start /no/such: no such file"),
        (["/etc/passwd"], 126, "cannot start /etc/passwd"),
        ([], 64, "usage: preflight PROGRAM"),
    ],
)
def test_what_cannot_be_started_is_named(
    built: Built, command: list[str], status: int, words: str
) -> None:
    done = docker_run("--entrypoint", PREFLIGHT, alias(built, "cpu"), *command)
    assert done.returncode == status, done
    assert words in done.stderr


def test_an_image_starts_read_only_and_as_a_user_whom_nobody_knows(built: Built) -> None:
    options = ("--read-only", "--user", "12345:12345")
    done = docker_run(*options, alias(built, "cpu"), "python3", "-c", "import oar; print(oar.relu)")
    assert done.returncode == 0, done.stderr
    assert docker_run(alias(built, "cpu"), "no-such-program").returncode == 127


# -- importing the library


@pytest.mark.parametrize(
    ("variant", "cpu", "words"),
    [
        ("cpu", "Nehalem", "use the package oar-noavx or the image oar:"),
        ("noavx", "qemu64", "no variant of oar runs on it"),
    ],
)
def test_importing_raises_importerror_with_one_sentence_before_anything_is_loaded(
    built: Built, qemu: Path, oar: Tree, variant: str, cpu: str, words: str
) -> None:
    code = """
    import sys
    try:
        import oar
    except ImportError as error:
        print(error)
    print([name for name in sys.modules if name.partition(".")[0] in ("oar", "numpy")])
    print([line for line in open("/proc/self/maps") if "liboar" in line or "/_oar." in line])
    import oar
    """
    done = run_python(cpu, qemu, alias(built, variant), code)
    assert done.returncode == 1, done
    assert done.stdout.splitlines() == [refusal(oar, variant), "[]", "[]"]
    assert words in done.stdout
    assert lines(done.stderr)[-1] == f"ImportError: {refusal(oar, variant)}"


def test_without_the_check_the_same_import_dies_of_an_illegal_instruction(
    built: Built, qemu: Path
) -> None:
    code = """
    import sys, types
    sys.modules["oar._cpu"] = types.ModuleType("oar._cpu")
    import numpy, oar
    oar.linear(numpy.ones((64, 64), "f4"), numpy.ones((64, 64), "f4"))
    """
    assert run_python("Nehalem", qemu, alias(built, "cpu"), code).returncode == 132
    assert run_python("Nehalem", qemu, alias(built, "noavx"), code).returncode == 0


@pytest.mark.parametrize(("variant", "cpu"), [("cpu", "Haswell"), ("noavx", "Nehalem")])
def test_importing_works_on_a_cpu_that_has_what_is_needed(
    built: Built, qemu: Path, variant: str, cpu: str
) -> None:
    done = run_python(cpu, qemu, alias(built, variant), "import oar; print(oar.build_info())")
    assert done.returncode == 0, done.stderr
    assert f"'variant': '{variant}'" in done.stdout


@pytest.mark.parametrize("variant", ["cpu", "noavx"])
def test_the_module_that_asks_is_for_every_cpu(built: Built, variant: str) -> None:
    file = built.checkout.out / "oar" / variant / "build" / "python" / "oar" / "_cpu.abi3.so"
    assert isa.examine(file.read_bytes()).beyond("x86-64") == []

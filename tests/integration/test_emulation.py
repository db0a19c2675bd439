"""Tests on an emulated CPU: that what is for it runs there, and that nothing else looks as if."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from slipway.variants import CPUINFO, levels_of_host
from tests.integration.conftest import Built
from tests.integration.workbench import ROOT, Done, refused, succeed, tree

CMAKE = """\
foreach(name wants_it starts_one fails planted planted_will_fail)
  add_executable(${name} ${name}.cc)
  add_test(NAME ${name} COMMAND ${name})
endforeach()
set_tests_properties(wants_it PROPERTIES ENVIRONMENT "WORD=as it is" WORKING_DIRECTORY /usr)
set_tests_properties(fails planted_will_fail PROPERTIES WILL_FAIL ON)
add_test(NAME by_a_shell COMMAND sh -c "exit 0")
add_test(NAME by_script COMMAND ${CMAKE_SOURCE_DIR}/check.sh)
add_test(NAME by_hand COMMAND tiny)
set_tests_properties(by_hand PROPERTIES DISABLED ON)
"""
PLANTED = 'int main() { asm volatile("vaddps %%ymm0, %%ymm1, %%ymm2" ::: "xmm2"); return 0; }\n'
WANTS = """\
#include <cstdlib>
#include <cstring>
#include <unistd.h>
int main() {
  char here[100];
  return strcmp(getenv("WORD"), "as it is") || strcmp(getcwd(here, 100), "/usr");
}
"""


@pytest.fixture(autouse=True)
def only_its_own_packages(built: Built) -> Iterator[None]:
    """Other tests take what lies in dist/ for Oar's."""
    dist = built.checkout.root / "dist"
    before = set(dist.iterdir())
    yield
    for directory in set(dist.iterdir()) - before:
        shutil.rmtree(directory)


def type_(built: Built, *arguments: str) -> Done:
    return built.checkout.invoke("test", *arguments)


def made(tiny: Path, name: str, project: str = "", cmake: str = "", **files: str) -> Path:
    """A tree with both variants and a name of its own."""
    tree(tiny, project=project, cmake=cmake, **files)
    file = tiny / "project.yaml"
    text = file.read_text().replace("name: tiny", f"name: {name}")
    file.write_text(text.replace("variants: {cpu: {}}", "variants: {cpu: {}, noavx: {}}"))
    return tiny


def test_oar_without_avx_passes_on_a_cpu_without_avx(built: Built) -> None:
    said = succeed(type_(built, "--variant", "noavx", "--cpu", "Nehalem"))
    assert "Nehalem is x86-64-v2 here; the canary's AVX instruction: it died of SIGILL" in said
    end = re.search(
        r"tested image oar:\S+-noavx on an emulated Nehalem \(x86-64-v2\): (\d+) tests executed "
        r"\(C\+\+ (\d+), pytest (\d+), scripts 1\), ",
        said,
    )
    assert end, said
    executed, cpp, python = map(int, end.groups())
    assert cpp >= 99
    assert python >= 99
    assert executed == cpp + python + 1
    # One test asks another Python what it loads; that one is not emulated, and said not to be.
    (named,) = re.findall(r"^1 test started programs of their own.*: (.*)$", said, re.MULTILINE)
    assert named.startswith("tests/python/test_cuda_absent.py::")


def test_a_cpu_below_the_variant_is_refused_and_the_other_variant_named(built: Built) -> None:
    error = refused(
        type_(built, "--variant", "cpu", "--cpu", "Nehalem"),
        64,
        "Nehalem is x86-64-v2 as qemu emulates it, and the variant cpu is for x86-64-v3",
    )
    assert "try: invoke test --variant noavx --cpu Nehalem" in error
    refused(type_(built, "--variant", "noavx", "--cpu", "qemu64"), 64, "qemu64 is x86-64 as qemu")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ("--cpu nehalm", 64, ["no CPU 'nehalm'", "did you mean Nehalem"]),
        ("--cpu Nehalem,-nothing", 64, ["does not emulate 'Nehalem,-nothing'", "not found"]),
        ("--cpu Nehalem --engine host", 64, ["--cpu needs a container engine"]),
        ("--cpu Nehalem --image dev", 64, ["no image 'dev'"]),
        ("--cpu Nehalem --ctest-filter NoSuch", 65, ["no test of oar:", "was executed"]),
    ],
)
def test_bad_input_of_the_flag(built: Built, arguments: str, code: int, words: list[str]) -> None:
    refused(type_(built, "--variant", "noavx", *arguments.split()), code, *words)


def test_ctests_are_judged_as_ctest_does_and_an_illegal_instruction_never_passes(
    built: Built, tiny: Path
) -> None:
    made(
        tiny,
        "afloat",
        project="test: {commands: [make check]}\n",
        cmake=CMAKE,
        planted=PLANTED,
        planted_will_fail=PLANTED,
        wants_it=WANTS,
        fails="int main() { return 3; }\n",
        starts_one='#include <cstdlib>\nint main() { return system("true"); }\n',
    )
    (tiny / "check.sh").write_text("#!/bin/sh\nexit 0\n")
    (tiny / "check.sh").chmod(0o755)
    flags = ["--project", str(tiny), "--variant", "noavx", "--cpu", "Nehalem"]
    said = succeed(type_(built, *flags, "--ctest-filter", "starts_one|wants|fails|by_"))
    assert re.search(r"tested image afloat:1.0-noavx .*: 4 tests executed \(C\+\+ 4\), ", said)
    assert (
        "1 test started programs of their own, which ran on this machine's CPU: starts_one" in said
    )
    assert "not run: C++.by_a_shell" not in said  # sh is a program that qemu can be given
    assert {"not run: C++.by_hand", "not run: C++.by_script"} <= set(said.splitlines())
    assert "check.sh is a script of /bin/sh, whose commands would run natively: by_script" in said
    assert "C++: 1 not run, DISABLED is set: by_hand" in said
    error = refused(
        type_(built, *flags),
        65,
        "died of an illegal instruction: planted, planted_will_fail",
        "SIGILL",
        "invoke audit --variant noavx",
    )
    assert "starts_one" not in error
    haswell = ["--variant", "cpu", "--cpu", "Haswell", "--ctest-filter", "^planted$"]
    said = succeed(type_(built, *flags[:2], *haswell))
    assert "Haswell is x86-64-v3 here; the canary's AVX instruction: it lived" in said


def test_scripts_of_the_project_are_tests_of_the_image(built: Built, tiny: Path) -> None:
    made(tiny, "helm", project="test: {ctest: false, scripts: [demo/go.py --code 0]}\n")
    (tiny / "demo").mkdir()
    (tiny / "demo" / "beside").write_text("0")
    (tiny / "demo" / "go.py").write_text(
        "import sys, pathlib\n"
        "print('spoken by the script')\n"
        "beside = pathlib.Path(__file__).with_name('beside').read_text()\n"
        "sys.exit(int(beside) or int(sys.argv[2]))\n"
    )
    flags = ["--project", str(tiny), "--variant", "noavx"]
    said = succeed(type_(built, *flags, "--image", "prod"))
    assert "1 tests executed in it (scripts 1)" in said
    said = succeed(type_(built, *flags, "--cpu", "Nehalem"))
    assert "1 tests executed (scripts 1)" in said
    (tiny / "demo" / "beside").write_text("3")
    refused(type_(built, *flags, "--image", "prod"), 3, "1 of 1 tests of helm:1.0-noavx failed")
    done = type_(built, *flags, "--cpu", "Nehalem")
    refused(done, 1, "1 of 1 tests of helm:1.0-noavx on an emulated Nehalem failed")
    assert "spoken by the script" in done.stdout
    shutil.rmtree(tiny / "demo")
    refused(type_(built, *flags, "--cpu", "Nehalem"), 66, "no tests at", "demo/go.py")


NATIVE = '#!/bin/sh\n# A qemu that does not emulate.\nshift 2\nexec "$@"\n'
PRETENDS = (
    "#!/bin/sh\n# Only CPUID is emulated.\n"
    'case "$*" in *--level) exec {kit}/qemu-x86_64 "$@" ;; esac\nshift 2\nexec "$@"\n'
)


@pytest.mark.skipif(
    "x86-64-v3" not in levels_of_host(CPUINFO.read_text()), reason="this machine has no AVX"
)
@pytest.mark.parametrize(
    ("qemu", "words"),
    [
        (NATIVE, "where it said 'x86-64-v2 no-avx' in the dev image"),
        (PRETENDS, "Nehalem has no AVX, and the canary's AVX instruction was run"),
    ],
)
def test_an_emulation_that_is_none_runs_no_test(
    built: Built, tmp_path: Path, qemu: str, words: str
) -> None:
    refused(type_(built, "--variant", "noavx", "--cpu", "nehalm"), 64)  # makes what is needed
    (kit,) = (built.checkout.out / ".run" / "emulation").iterdir()
    false = tmp_path / "qemu"
    false.write_text(qemu.format(kit=f"'{kit}'"))
    false.chmod(0o755)
    plan: dict[str, Any] = {
        **{key: [] for key in ("ctest", "not_run", "scripts", "python_path", "pytest_path")},
        **{name: str(kit / name) for name in ("canary", "watch")},
        "cpu": "Nehalem",
        "level": "x86-64-v2 no-avx",
        "qemu": str(false),
        "pytest": ["--version"],
        "reports": str(tmp_path),
    }
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(plan))
    done = built.checkout.typed(sys.executable, str(ROOT / "scripts" / "emulate"), str(file))
    assert done.returncode == 65
    assert words in json.loads((tmp_path / "emulated.json").read_text())["wrong"]
    assert "pytest" not in done.stdout
    # The same with qemu itself goes on to the tests.
    file.write_text(json.dumps({**plan, "qemu": str(kit / "qemu-x86_64")}))
    done = built.checkout.typed(sys.executable, str(ROOT / "scripts" / "emulate"), str(file))
    assert "died of SIGILL, as it must" in done.stdout
    assert json.loads((tmp_path / "emulated.json").read_text())["wrong"] == ""

"""``invoke test`` with sanitizers, again and again, and of what failed."""

from __future__ import annotations

import os
import re
from pathlib import Path

from slipway.errors import BAD_DATA, USAGE
from tests.integration.conftest import Built
from tests.integration.workbench import refused, strangers, succeed, tree

# Each is a mistake that the program survives when nobody looks.
READS_BEYOND = """\
int two() {
  int* numbers = new int[2]{1, 2};
  volatile int index = 2;
  int beyond = numbers[index];
  delete[] numbers;
  return beyond == 12345 ? 3 : 2;
}
"""
OVERFLOWS = """\
int two() {
  volatile int big = 2147483647;
  volatile int more = big + 1;
  return more == 5 ? 3 : 2;
}
"""
# Fails the third time: the build directory remembers how often it was run.
FLAKY = """\
add_test(NAME flaky COMMAND sh -c "echo x >>runs && test $(wc -l <runs) -ne 3")
set_tests_properties(flaky PROPERTIES WORKING_DIRECTORY "${CMAKE_BINARY_DIR}")
"""


def test_a_sanitizer_sees_what_tests_survive(built: Built, area: Path) -> None:
    checkout = built.checkout
    beyond = str(tree(area / "trees" / "beyond", two=READS_BEYOND))
    overflow = str(tree(area / "trees" / "overflow", two=OVERFLOWS))
    for source in (beyond, overflow):
        succeed(checkout.invoke("test", "--project", source))
    done = checkout.invoke("test", "--project", beyond, "--sanitize", "address")
    assert done.returncode not in (0, 1)
    assert "AddressSanitizer: heap-buffer-overflow" in done.stdout
    assert "two.cc:4" in done.stdout
    assert "1 of 1 tests of tiny 1.0" in done.stdout
    assert (checkout.out / "tiny" / "cpu.address" / "build" / "build.ninja").is_file()
    done = checkout.invoke("test", "--project", overflow, "--sanitize", "undefined")
    assert done.returncode not in (0, 1)
    assert "signed integer overflow" in done.stdout
    # What users get lies beside, as it was.
    assert "no work to do" in succeed(checkout.invoke("build", "--project", overflow))


def test_oar_s_own_tests_pass_with_sanitizers(built: Built) -> None:
    said = succeed(built.checkout.invoke("test", "--sanitize", "address,undefined", timeout=900))
    assert re.search(r"tested oar \S+ cpu \(address, undefined\): \d+ tests executed", said)


def test_an_unknown_sanitizer_is_told_the_nearest(built: Built) -> None:
    done = built.checkout.invoke("test", "--sanitize", "adress")
    refused(done, USAGE, "no sanitizer 'adress'", "did you mean 'address'?")


def test_repeating_finds_a_test_that_fails_sometimes(built: Built, tiny: Path) -> None:
    project = str(tree(tiny, cmake=FLAKY))
    done = built.checkout.invoke("test", "--project", project, "--repeat", "10")
    assert "run 3 of 10" in done.stdout
    assert "run 4 of 10" not in done.stdout
    assert "1 of 2 tests of tiny 1.0" in done.stdout


def test_only_what_failed_is_run_again(built: Built, area: Path) -> None:
    checkout = built.checkout
    added = "add_test(NAME other COMMAND tiny x)\nadd_test(NAME bad COMMAND false)\n"
    source = tree(area / "trees" / "failing", cmake=added, project="test: {pytest: [tests]}\n")
    (source / "tests").mkdir()
    module = source / "tests" / "test_it.py"
    module.write_text("def test_good(): pass\ndef test_bad(): assert 0\n")
    whole = checkout.invoke("test", "--project", str(source))
    assert "2 of 5 tests of tiny 1.0" in whole.stdout
    again = checkout.invoke("test", "--project", str(source), "--failed")
    assert "2 of 2 tests of tiny 1.0" in again.stdout
    module.write_text("def test_good(): pass\ndef test_bad(): pass\n")
    again = checkout.invoke("test", "--project", str(source), "--failed")
    assert "1 of 2 tests of tiny 1.0" in again.stdout
    tree(source, cmake=added.replace("false", "true"), project="test: {pytest: [tests]}\n")
    again = checkout.invoke("test", "--project", str(source), "--failed")
    assert "1 tests executed (CTest 1)" in succeed(again)
    done = checkout.invoke("test", "--project", str(source), "--failed")
    refused(done, BAD_DATA, "no test of tiny 1.0 cpu failed last time")


def test_one_report_says_which_lines_the_tests_reach(built: Built) -> None:
    checkout = built.checkout
    said = succeed(checkout.invoke("test", "--coverage", timeout=900))
    found = re.search(r"^reached C and C\+\+ ([\d.]+) %, Python ([\d.]+) %: (\S+)$", said, re.M)
    assert found, said[-2000:]
    # Oar's tests reach nearly all of it; what they do not is the code for a GPU.
    assert float(found[1]) > 50
    assert float(found[2]) > 50
    report = checkout.out / "oar" / "cpu.coverage" / "coverage"
    assert found[3] == "out/oar/cpu.coverage/coverage/index.html"
    page = (report / "index.html").read_text()
    for link in re.findall(r'href="([^"]+)"', page):
        assert (report / link).is_file()
    assert "linear.cc" in (report / "cxx" / "index.html").read_text()
    assert "ops.py" in (report / "python" / "index.html").read_text()
    assert strangers(report, os.getuid()) == []

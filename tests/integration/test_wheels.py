"""Wheels as their users have them: installed by pip where nothing else is."""

from __future__ import annotations

import base64
import random
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from slipway.isa import is_elf
from tests.integration.conftest import Built, directory_name
from tests.integration.test_systems import BACKENDS, PYPROJECT, PYTHON, grow
from tests.integration.workbench import Checkout, refused, succeed

MADE = re.compile(r"^packed (dist/\S+\.whl),", re.MULTILINE)
TESTED = re.compile(r"^tested \S+\.whl: (\d+) tests executed in a bare (\S+),", re.MULTILINE)


def wheels(checkout: Checkout, said: str) -> list[Path]:
    return [checkout.root / name for name in MADE.findall(said)]


def metadata(wheel: Path) -> str:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        return archive.read(name).decode()


@pytest.fixture(scope="module")
def made(built: Built) -> str:
    """What was said when the wheels of two variants were made.

    Both are made here, whichever of them another module's tests had already needed.
    """
    for wheel in built.checkout.root.glob("dist/oar-*/*.whl"):
        wheel.unlink()
    return succeed(built.checkout.invoke("wheel", "--variant", "cpu,noavx"))


def test_every_variant_is_tested_in_a_bare_image_before_it_is_finished(
    built: Built, made: str
) -> None:
    cpu, noavx = wheels(built.checkout, made)
    assert re.fullmatch(r"oar-[^-]+-cp312-abi3-manylinux_2_\d+_x86_64\.whl", cpu.name)
    assert re.fullmatch(r"oar_noavx-[^-]+-cp312-abi3-manylinux_2_\d+_x86_64\.whl", noavx.name)
    counts = TESTED.findall(made)
    assert [base for _, base in counts] == ["debian:trixie-slim"] * 2
    assert all(int(count) > 50 for count, _ in counts)
    assert "Name: oar-noavx\n" in metadata(noavx)
    assert "Requires-Dist: numpy\n" in metadata(noavx)
    assert "Requires-Python: >=3.12\n" in metadata(noavx)


def test_a_second_time_nothing_is_done(built: Built, made: str) -> None:
    assert made
    said = succeed(built.checkout.invoke("wheel"))
    assert re.search(r"\.whl is unchanged since .*, \d+ tests passed then, none run now", said)
    assert not MADE.search(said)


def test_what_the_library_links_to_is_brought_in(built: Built, made: str) -> None:
    for wheel in wheels(built.checkout, made):
        with zipfile.ZipFile(wheel) as archive:
            native = [n for n in archive.namelist() if is_elf(archive.read(n)[:64])]
        libraries = sorted(re.sub(r"-[0-9a-f]{8}\.", ".", Path(n).name) for n in native)
        assert libraries[:3] == ["_cpu.abi3.so", "_oar.abi3.so", "libgomp.so.1.0.0"]
        assert any(name.startswith("liboar.so.0") for name in libraries)


def test_another_checkout_makes_the_same_bytes(built: Built, other: Checkout, made: str) -> None:
    (second,) = wheels(other, succeed(other.invoke("wheel")))
    first = wheels(built.checkout, made)[0]
    assert first.name == second.name
    assert first.read_bytes() == second.read_bytes()


def test_debian_12_has_a_wheel_for_its_own_python(built: Built) -> None:
    said = succeed(built.checkout.invoke("wheel", "--base", "bookworm", timeout=1200))
    (wheel,) = wheels(built.checkout, said)
    assert re.fullmatch(r"oar-[^-]+-cp311-cp311-manylinux_2_\d+_x86_64\.whl", wheel.name)
    assert TESTED.findall(said)[0][1] == "debian:bookworm-slim"
    assert "Requires-Python: ==3.11.*\n" in metadata(wheel)
    # Each base has a build directory of its own, and the usual one is as it was.
    assert "unchanged since" in succeed(built.checkout.invoke("wheel"))


@pytest.fixture
def place(area: Path, request: pytest.FixtureRequest) -> Path:
    directory = area / "places" / directory_name(request)
    directory.mkdir(parents=True)
    return directory


def summing(place: Path, project: str = "", name: str = "summing", **files: str) -> Path:
    """A Python package with an extension module, built by setuptools.

    :param name: of the package; what is found in dist/ is told apart by it.
    """
    package, backend, more = BACKENDS["setuptools"]
    tree = {
        **PYTHON,
        **more,
        "pyproject.toml": PYPROJECT.format(package=package, backend=backend),
        **files,
    }
    build = "build: {system: pep517, pip: [setuptools==80.9.0]}\ntest: {pytest: [tests]}\n"
    return grow(place, tree, build + project, name)


def test_a_python_package_keeps_its_own_metadata_under_the_variant_s_name(
    built: Built, place: Path
) -> None:
    head = PYPROJECT.format(package="setuptools", backend="setuptools.build_meta")
    project = summing(
        place,
        "variants: {noavx: {}}\n",
        **{"pyproject.toml": head + 'description = "its own words"\ndependencies = ["six"]\n'},
    )
    project.write_text(project.read_text().replace("variants: {cpu: {}}\n", "", 1))
    said = succeed(built.checkout.invoke("wheel", "--project", str(project)))
    (wheel,) = wheels(built.checkout, said)
    assert re.fullmatch(r"summing_noavx-1\.5\.0-cp313-cp313-manylinux\S+\.whl", wheel.name)
    assert "Name: summing-noavx\n" in metadata(wheel)
    assert "Summary: its own words\n" in metadata(wheel)
    assert "Requires-Dist: six\n" in metadata(wheel)


def test_a_wheel_whose_test_fails_is_not_finished(built: Built, place: Path) -> None:
    # It passes where the tree was built; where a user has it, it has no compiler.
    needs = "import shutil\n\ndef test_cc():\n    assert shutil.which('cc')\n"
    project = summing(place, name="failing", **{"tests/test_cc.py": needs})
    done = built.checkout.invoke("wheel", "--project", str(project))
    refused(done, 1, "1 of 2 tests of failing-1.5.0", "in a bare debian:trixie-slim failed")
    assert not list(built.checkout.root.glob("dist/failing-*/*.whl"))


def test_a_wheel_over_its_budget_is_not_finished(built: Built, place: Path) -> None:
    limit = "package: {python: [big.py], wheel_mb: 1}\n"
    project = summing(place, limit, "large", **{"big.py": noise()})
    done = built.checkout.invoke("wheel", "--project", str(project))
    refused(done, 65, "more than its budget of 1 MB", "big.py", "package.wheel_mb")
    assert not list(built.checkout.root.glob("dist/large-*/*.whl"))


def noise() -> str:
    """A Python module that no compression makes smaller than a megabyte."""
    words = base64.b64encode(random.Random(1).randbytes(1_200_000))  # noqa: S311  # of no secret
    return f"NOISE = '{words.decode()}'\n"


def test_a_library_without_python_modules_has_no_wheel(built: Built, tiny: Path) -> None:
    with (tiny / "CMakeLists.txt").open("a") as lists:
        lists.write("install(TARGETS tiny)\n")
    with (tiny / "project.yaml").open("a") as described:
        described.write("test: {installed: [CMakeLists.txt]}\n")
    done = built.checkout.invoke("wheel", "--project", str(tiny))
    refused(done, 65, "holds no Python module", "usr/lib/python3/dist-packages")


def test_a_prebuilt_wheel_is_one_already(built: Built) -> None:
    done = built.checkout.invoke("wheel", "--project", "examples/paddle", timeout=900)
    refused(done, 64, "is a wheel already", "invoke deb")


@pytest.mark.parametrize(
    ("base", "words"),
    [
        ("bookwrom", ("no base 'bookwrom'", "did you mean 'bookworm'")),
        ("debian:nonesuch-slim", ("no base image 'debian:nonesuch-slim'",)),
    ],
)
def test_a_base_that_does_not_exist(built: Built, base: str, words: tuple[str, ...]) -> None:
    env = {"INVOKE_PULL_WAIT_S": "3"}
    done = built.checkout.invoke("wheel", "--base", base, env=env)
    refused(done, done.returncode, *words)


@pytest.mark.parametrize(("version", "fits"), [("3.11", False), ("3.12", True), ("3.14", True)])
def test_pip_takes_the_wheel_for_the_pythons_that_it_names(
    built: Built, made: str, tmp_path: Path, version: str, fits: bool
) -> None:
    argv = ["download", "--no-deps", "--no-index", "--only-binary", ":all:", "--dest"]
    wheel = wheels(built.checkout, made)[0]
    platform = wheel.stem.rpartition("-")[2]
    system = ["--platform", platform, "--python-version", version]
    done = subprocess.run(
        [sys.executable, "-m", "pip", *argv, str(tmp_path), *system, str(wheel)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode == 0) == fits, done.stdout + done.stderr

"""The variants with CUDA, on a machine that has no GPU: compiled, tested, packaged and imported."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import Any

import pytest

from tests.integration.conftest import Built
from tests.integration.workbench import rows_of, succeed

BUILT = re.compile(r"^built \S+ \S+ (\S+) in .*?, (?:(\d+) of (\d+) compilations)", re.MULTILINE)


@pytest.fixture(scope="module")
def tested(built: Built) -> str:
    """What was said when the gpu variant was compiled and its tests ran."""
    return succeed(built.checkout.invoke("test", "--variant", "gpu", timeout=1200))


@pytest.fixture(scope="module")
def images(built: Built, tested: str) -> dict[str, str]:
    """Variant to the name of its image."""
    assert tested
    said = succeed(built.checkout.invoke("prod", "--variant", "gpu,gpu-noavx", timeout=1200))
    names = re.findall(r"^made image (\S+),", said, re.MULTILINE)
    cpu = rows_of(built.first.stdout)["image", "cpu"][2]
    return dict(zip(("cpu", "gpu", "gpu-noavx"), (cpu, *names), strict=True))


def run(image: str, *command: str) -> str:
    argv = ["docker", "run", "--rm", "--network", "none", image, *command]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def test_gpu_tests_are_named_as_not_run_and_counted_nowhere(tested: str) -> None:
    (executed,) = re.findall(r"^tested oar \S+ gpu: (\d+) tests executed", tested, re.MULTILINE)
    not_run = re.findall(r"^not run: (.*)$", tested, re.MULTILINE)
    assert len([name for name in not_run if "test_cuda." in name]) > 50
    assert int(executed) > 150
    passed = re.findall(r"(\d+) passed", tested)
    skipped = re.findall(r"(\d+) skipped", tested)
    assert int(skipped[-1]) > 50
    assert int(passed[-1]) < int(executed)


@pytest.mark.parametrize("variant", ["gpu", "gpu-noavx"])
def test_the_library_imports_without_a_gpu_and_says_that_there_is_none(
    images: dict[str, str], variant: str
) -> None:
    code = "import oar; print(oar.build_info()['variant'], oar.cuda.is_available())"
    assert run(images[variant], "python3", "-c", code) == f"{variant} False\n"
    code = "import oar; print(oar.cuda.why_unavailable())"
    assert "driver" in run(images[variant], "python3", "-c", code)


def test_code_for_gpus_costs_the_image_less_than_10_mb(images: dict[str, str], client: Any) -> None:
    sizes = {name: client.images.get(image).attrs["Size"] for name, image in images.items()}
    assert 0 < sizes["gpu"] - sizes["cpu"] <= 10e6
    assert 0 < sizes["gpu-noavx"] - sizes["cpu"] <= 10e6


def test_the_package_says_for_which_gpus_it_is_and_takes_the_place_of_the_others(
    built: Built, images: dict[str, str]
) -> None:
    assert images
    (deb,) = (built.checkout.root / "dist").glob("oar-*/oar-gpu_*.deb")
    fields = subprocess.run(
        ["dpkg-deb", "--field", str(deb)], check=True, capture_output=True, text=True
    ).stdout
    assert "Conflicts: oar, oar-noavx, oar-gpu-noavx\n" in fields
    assert "for GPUs (sm_80, sm_90, and later" in fields
    # The runtime is linked in: no package of CUDA's is needed to import it.
    assert "cuda" not in re.findall(r"^Depends: (.*)$", fields, re.MULTILINE)[0]


def test_the_wheel_of_a_gpu_variant_is_tested_where_only_python_is(
    built: Built, images: dict[str, str]
) -> None:
    assert images
    said = succeed(built.checkout.invoke("wheel", "--variant", "gpu"))
    assert re.search(
        r"^tested oar_gpu-\S+\.whl: \d\d+ tests executed in a bare ", said, re.MULTILINE
    )
    assert re.search(
        r"^packed dist/\S+/oar_gpu-\S+-cp312-abi3-manylinux_\S+\.whl,", said, re.MULTILINE
    )


def test_what_was_compiled_once_comes_from_the_cache(built: Built, images: dict[str, str]) -> None:
    assert images
    for variant in ("gpu", "gpu-noavx"):
        shutil.rmtree(built.checkout.out / "oar" / variant)
    said = succeed(built.checkout.invoke("build", "--variant", "gpu,gpu-noavx"))
    for variant, hits, compiled in BUILT.findall(said):
        assert int(hits) >= 0.95 * int(compiled), variant
    assert [row[0] for row in BUILT.findall(said)] == ["gpu", "gpu-noavx"]

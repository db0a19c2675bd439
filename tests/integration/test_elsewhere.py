"""The bundled projects of other people's trees, whole; and the page that leads to one's own."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from slipway import base
from slipway.project import read
from slipway.settings import Settings, Workshop
from tests.integration.conftest import Built, keep_record
from tests.integration.workbench import Checkout, Done, refused, rows_of, succeed

PAGE = Path(__file__).parents[2] / "docs" / "your-own-library.md"


def blocks(language: str) -> list[str]:
    """The code of one language on the page, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def in_bare_image(checkout: Checkout, directory: Path, script: str) -> Done:
    """Run a script where nothing is installed, with packages at /dist."""
    image = base.ensure_base(Workshop(checkout.root, Settings())).reference
    source = str(directory).replace('"', '""')
    argv = ["docker", "run", "--rm", "--label", f"slipway.checkout={checkout.name}"]
    argv += ["--mount", f'type=bind,"source={source}",target=/dist,readonly', image]
    start = """\
set -eu
export DEBIAN_FRONTEND=noninteractive
quietly() { apt-get -qq -o Dpkg::Use-Pty=0 --yes --no-install-recommends "$@" >/tmp/log 2>&1 || {
  cat /tmp/log
  exit 1
}; }
quietly update
"""
    return subprocess.run(
        [*argv, "sh", "-c", start + script],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """Keys with dots to values; a list is one."""
    if not isinstance(value, dict):
        return {path: value}
    return {k: v for key, below in value.items() for k, v in flat(below, f"{path}.{key}").items()}


def beyond_init(checkout: Checkout, name: str, source: Path) -> set[str]:
    """The keys of a bundled project.yaml that ``init`` would not have written so."""
    succeed(checkout.invoke("init", "--source", str(source), "--name", f"seen-{name}"))
    file = checkout.root / "projects" / f"seen-{name}.yaml"
    seen = flat(yaml.safe_load(file.read_text()))
    kept = flat(yaml.safe_load((checkout.root / "examples" / name / "project.yaml").read_text()))
    return {key for key, value in kept.items() if seen.get(key) != value} - {".name"}


# -- a C library of Debian's


@pytest.fixture(scope="module")
def fann(built: Built) -> Done:
    done = built.checkout.invoke("all", "--project", "fann", timeout=900)
    succeed(done)
    keep_record(built.checkout, done.stdout)
    return done


def test_debian_s_source_becomes_packages_and_images_of_both_variants(fann: Done) -> None:
    assert fann.stdout.count("Debian's libfann unpacked into out/sources/libfann") == 1
    rows = rows_of(fann.stdout)
    for variant in ("cpu", "noavx"):
        assert rows["test", variant][2] == "2 tests executed (commands 2)"
        assert rows["run", variant][2].startswith("docker run fann:")
        assert float(rows["image", variant][3].split()[0]) < 170


def test_its_packages_serve_who_compiles_against_it_and_go_again(built: Built, fann: Done) -> None:
    (directory,) = (built.checkout.root / "dist").glob("fann-*")
    script = """\
quietly install /dist/fann_*.deb /dist/fann-dev_*.deb gcc libc6-dev
cat >/tmp/a.c <<'END'
#include <fann.h>
#include <stdio.h>
int main(void) {
  struct fann *net = fann_create_standard(3, 2, 3, 1);
  printf("outputs %u\\n", fann_get_num_output(net));
  fann_destroy(net);
}
END
gcc -o /tmp/a /tmp/a.c -lfann
/tmp/a
quietly install /dist/fann-noavx_*.deb /dist/fann-noavx-dev_*.deb
/tmp/a
dpkg-query -Wf '${Package}\\n' | grep fann | paste -sd ' '
quietly purge fann-noavx fann-noavx-dev
[ ! -e /usr/include/fann.h ] && ! /tmp/a 2>/dev/null && echo gone
"""
    done = in_bare_image(built.checkout, directory, script)
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines() == [
        "outputs 1",
        "outputs 1",
        "fann-noavx fann-noavx-dev",
        "gone",
    ]


def test_it_says_little_that_init_does_not(built: Built, fann: Done) -> None:
    (source,) = (built.checkout.out / "sources").glob("libfann-*")
    more = beyond_init(built.checkout, "fann", source)
    assert len(more) <= 10, more


# -- a prebuilt wheel


@pytest.fixture(scope="module")
def paddle(built: Built) -> Done:
    done = built.checkout.invoke("all", "--project", "paddle", timeout=1500)
    succeed(done)
    keep_record(built.checkout, done.stdout)
    return done


def test_a_wheel_becomes_a_package_and_an_image_that_trains(built: Built, paddle: Done) -> None:
    rows = rows_of(paddle.stdout)
    assert rows["build", "cpu"][2] == "a prebuilt wheel: nothing to compile"
    assert rows["test image", "cpu"][2].startswith("3 tests executed in paddle:")
    assert float(rows["image", "cpu"][3].split()[0]) <= 1050
    said = built.checkout.invoke(
        *("run", "train.py", "--project", "paddle", "--", "--epochs", "100"),
        cwd=built.checkout.root / "examples" / "paddle",
    )
    accuracy = re.findall(r"epoch 100: .* accuracy ([\d.]+)", succeed(said))
    assert float(accuracy[0]) > 0.9


def test_python_in_that_image_is_the_one_that_sees_the_wheel_for_any_uid(
    built: Built, paddle: Done
) -> None:
    tag = rows_of(paddle.stdout)["image", "cpu"][2]
    for python in ("python", "python3", "paddle-python"):
        argv = ["docker", "run", "--rm", "--network", "none", "--user", "12345:12345", tag]
        code = "import paddle; print(paddle.to_tensor([1.0, 2.0]).sum().item())"
        done = subprocess.run([*argv, python, "-c", code], capture_output=True, text=True)
        assert done.stdout.split() == ["3.0"], done.stderr


def test_its_package_is_installed_without_pip_and_shares_nothing(
    built: Built, paddle: Done
) -> None:
    (directory,) = (built.checkout.root / "dist").glob("paddle-*")
    script = """\
quietly install /dist/paddle_*.deb
paddle-python -W ignore -c 'import paddle; print("private", paddle.__version__)'
! /usr/bin/python3 -c 'import paddle' 2>/dev/null && echo "not for others"
command -v pip || echo "no pip"
ls /usr/lib/paddle/paddlepaddle-*.dist-info | grep -ci licen
quietly purge paddle
[ ! -e /usr/lib/paddle ] && echo gone
"""
    done = in_bare_image(built.checkout, directory, script)
    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    assert lines[:3] == ["private 3.3.1", "not for others", "no pip"], done.stdout
    assert int(lines[3]) > 0
    assert lines[4] == "gone"


def test_a_variant_that_the_wheel_cannot_be_is_refused_with_the_reason(
    built: Built, paddle: Done
) -> None:
    done = built.checkout.invoke("build", "--project", "paddle", "--variant", "noavx")
    refused(done, 64, "no variant 'noavx'", "compiled with AVX")


def test_building_a_wheel_says_that_there_is_nothing_to_compile(built: Built, paddle: Done) -> None:
    said = succeed(built.checkout.invoke("build", "--project", "paddle"))
    assert "nothing to compile" in said
    done = built.checkout.invoke("test", "--project", "paddle")
    refused(done, 65, "names no tests", "invoke test --image prod")


def test_the_wheel_s_project_says_little_that_init_does_not(built: Built, paddle: Done) -> None:
    cache = Workshop(built.checkout.root, Settings()).cache
    (wheel,) = (cache / "downloads").glob("*/paddlepaddle-*-cp313-*.whl")
    more = beyond_init(built.checkout, "paddle", wheel)
    assert len(more) <= 10, more


# -- an sdist that takes minutes


@pytest.mark.full
def test_an_sdist_becomes_a_package_whose_trained_model_has_the_known_numbers(
    built: Built,
) -> None:
    done = built.checkout.invoke("all", "--project", "lightgbm", timeout=3600)
    rows = rows_of(succeed(done))
    for variant in ("cpu", "noavx"):
        assert rows["test image", variant][2].startswith("7 tests executed in lightgbm:")
    (source,) = (built.checkout.out / "sources").glob("lightgbm-*")
    more = beyond_init(built.checkout, "lightgbm", source)
    assert len(more) <= 10, more
    (directory,) = (built.checkout.root / "dist").glob("lightgbm-*")
    script = "quietly install /dist/lightgbm_*.deb\npython3 -c 'import lightgbm; print(1 + 1)'\n"
    done = in_bare_image(built.checkout, directory, script)
    assert done.stdout.split() == ["2"], done.stdout


# -- the page


def test_the_page_about_one_s_own_library_can_be_typed(ordinary: Checkout, area: Path) -> None:
    """As a user who is not root, in a clone, word for word."""
    assert ordinary.user
    done = ordinary.typed("bash", "-euo", "pipefail", "-c", "\n".join(blocks("sh")), timeout=900)
    said = succeed(done)
    assert "projects/tally.yaml written" in said
    rows = rows_of(said)
    for variant in ("cpu", "noavx"):
        assert rows["test", variant][2] == "1 tests executed (CTest 1)"
        assert rows["image", variant][2].startswith("tally:0.3.0")
    assert "/usr/lib/x86_64-linux-gnu/libtally.so.0.3.0" in said.splitlines()
    library = ordinary.user.home / "tally"
    assert {p.name for p in library.iterdir()} == {
        *("CMakeLists.txt", "LICENSE", "slipway", "tally.cc", "tally.h", "tests")
    }
    adopted = library / "slipway" / "out" / "tally" / "cpu" / "build"
    assert (adopted / "libtally.so.0.3.0").is_file()


def test_each_project_yaml_on_the_page_is_valid(tmp_path: Path) -> None:
    found = blocks("yaml")
    assert len(found) >= 8
    head = "name: tally\nsummary: s\nlicense: MIT\nmaintainer: Ann <ann@example.org>\n"
    for text in found:
        file = tmp_path / "project.yaml"
        file.write_text(head + text)
        assert read(file).name == "tally"


def test_every_code_block_of_the_page_is_one_that_is_tested() -> None:
    fences = re.findall(r"^```(\w*)$", PAGE.read_text(), re.MULTILINE)
    assert set(fences[::2]) == {"sh", "yaml"}
    assert set(fences[1::2]) == {""}

"""GPUs: what is said where none is, the probe in a container, and tests where one is."""

from __future__ import annotations

import json
import shutil
import subprocess
import textwrap
import time
from pathlib import Path

import pytest

from slipway import gpu
from slipway.settings import ROOT
from tests.integration.conftest import Built
from tests.integration.workbench import Checkout, containers, refused, succeed

without_driver = pytest.mark.skipif(gpu.DRIVER.exists(), reason="this machine has a driver")
SOON_S = 10  # nothing has been built by then


@without_driver
@pytest.mark.parametrize(
    "arguments",
    [
        "test --variant gpu --gpu on",
        "test --variant gpu-noavx --gpu on --image prod",
        "run tasks.py --gpu on",
        "shell --variant gpu --gpu on",
    ],
)
def test_on_without_a_gpu_names_what_is_missing_before_anything_is_built(
    other: Checkout, arguments: str
) -> None:
    start = time.monotonic()
    done = other.invoke(*arguments.split())
    error = refused(done, 69, "--gpu on asks for one", "driver: no NVIDIA driver", "nvidia-driver")
    if not shutil.which("nvidia-ctk"):
        assert "toolkit: no nvidia-container-toolkit" in error
        assert "apt-get install nvidia-container-toolkit" in error
    assert time.monotonic() - start < SOON_S
    assert "$ docker" not in done.stdout
    assert not (other.out / "oar" / "gpu").exists()


@without_driver
def test_on_by_the_setting_and_in_place_are_the_same_error(other: Checkout, tmp_path: Path) -> None:
    arguments = ("test", "--variant", "gpu")
    refused(other.invoke(*arguments, env={"INVOKE_GPU": "on"}), 69, "driver: no NVIDIA driver")
    done = other.invoke(*arguments, "--gpu", "on", "--engine", "host")
    assert "toolkit" not in refused(done, 69, "what is missing is driver", "driver: no NVIDIA")
    file = tmp_path / "on.yaml"
    file.write_text("gpu: 'on'\n")
    refused(other.invoke("-f", str(file), *arguments), 69, "driver: no NVIDIA driver")


@pytest.mark.parametrize("task", ["test", "run tasks.py", "shell"])
def test_an_unknown_gpu_mode(other: Checkout, task: str) -> None:
    refused(other.invoke(*task.split(), "--gpu", "maybe"), 64, "no GPU mode 'maybe'", "auto, off")


def test_an_unknown_gpu_mode_or_one_without_quotes_in_a_file(
    other: Checkout, tmp_path: Path
) -> None:
    file = tmp_path / "more.yaml"
    for text, words in (("onn", "did you mean 'on'?"), ("off", "put it in quotes")):
        file.write_text(f"gpu: {text}\n")
        refused(other.invoke("-f", str(file), "test"), 78, str(file), "gpu: ", words)
    refused(other.invoke("test", env={"INVOKE_GPU": "of"}), 78, "gpu: no 'of'", "'off'")


def test_an_unknown_gpu_in_the_table(other: Checkout, tmp_path: Path) -> None:
    file = tmp_path / "more.yaml"
    file.write_text("variants: {gpu: {cuda: [sm_99x]}}\n")
    done = other.invoke("-f", str(file), "build", "--variant", "gpu")
    refused(done, 78, "variants.gpu.cuda", "'sm_99x'", "did you mean 'sm_90'?", "sm_121")
    assert "$ docker" not in done.stdout
    done = other.invoke("build", env={"INVOKE_VARIANTS_GPU_CUDA": "sm_99x"})
    refused(done, 78, "INVOKE_VARIANTS_GPU_CUDA", "cannot be set by a variable")


def test_who_builds_for_the_cpu_hears_nothing_of_gpus(built: Built) -> None:
    for arguments in (
        ("test", "--", "-k", "relu", "-q"),
        ("shell", "--", "true"),
        ("shell", "--gpu", "off", "--", "true"),
    ):
        done = built.checkout.invoke(*arguments)
        succeed(done)
        lines = [line for line in done.stdout.splitlines() if not line.startswith("not run: ")]
        assert [line for line in lines if "GPU" in line or "gpu" in line] == []
    assert not (built.checkout.out / ".run" / "gpu.json").exists()


@without_driver
def test_doctor_notes_what_a_gpu_would_need_and_does_not_fail(built: Built) -> None:
    said = succeed(built.checkout.invoke("doctor"))
    (line,) = [line for line in said.splitlines() if "GPU" in line and "try:" not in line]
    assert line.startswith("note     no GPU: no NVIDIA driver on this machine")
    assert "nvidia-driver" in said


def test_the_probe_in_the_dev_image_finds_no_libcuda(built: Built) -> None:
    text = (ROOT / "scripts" / "gpu-probe").read_text()
    done = built.checkout.invoke("shell", "--", "python3", "-c", text)
    said = json.loads(succeed(done).strip().splitlines()[-1])
    assert said["why"].startswith("no libcuda: libcuda.so.1: cannot open shared object file")


def dev_image(built: Built) -> str:
    (line,) = [x for x in built.first.stdout.splitlines() if x.startswith("dev image ")]
    return line.split()[3]


@without_driver
@pytest.mark.parametrize("way", [gpu.CDI, gpu.RUNTIME], ids=lambda way: way.name)
def test_each_way_that_an_engine_refuses_is_understood(
    built: Built, client: object, way: gpu.Way
) -> None:
    """The engine's own words, not those that the unit tests remember."""
    label = "slipway.checkout=" + built.checkout.name
    argv = ["docker", "run", "--rm", "--network", "none", "--label", label, *way.arguments]
    done = subprocess.run(
        [*argv, dev_image(built), "true"], capture_output=True, text=True, check=False
    )
    devices, lack = gpu.read_probe(way, done.returncode, done.stdout, done.stderr)
    assert devices == ()
    assert lack
    assert lack.part in ("toolkit", "engine support", "driver")
    assert "status" not in lack.why, done.stderr  # else its words are new to us
    assert containers(client, built.checkout) == []


PROBED = """\
import sys
from pathlib import Path
from slipway import engine, gpu
from slipway.settings import ROOT, Settings, Workshop
from slipway.variants import TABLE
workshop = Workshop(ROOT, Settings())
place = engine.Docker(workshop)
for _ in range(2):
    gpu.decide(workshop, "auto", place, sys.argv[1], TABLE["gpu"])
"""


@without_driver
def test_a_remote_engine_is_asked_by_a_probe_once(built: Built) -> None:
    """A context counts as remote: the files here say nothing, and what was found is remembered."""
    done = built.checkout.typed(
        str(built.checkout.python),
        *("-c", PROBED, dev_image(built)),
        env={"DOCKER_CONTEXT": "default"},
    )
    first, second = succeed(done).splitlines()
    assert first.startswith("no GPU: ")
    assert "driver on this machine" not in first
    assert second == first
    memory = built.checkout.out / ".run" / "gpu.json"
    written = memory.stat().st_mtime_ns
    assert json.loads(memory.read_text())["facts"]["why"] == first.removeprefix("no GPU: ")
    succeed(
        built.checkout.typed(
            str(built.checkout.python),
            *("-c", PROBED, dev_image(built)),
            env={"DOCKER_CONTEXT": "default"},
        )
    )
    assert memory.stat().st_mtime_ns == written
    memory.unlink()


# -- on a machine with a GPU and an engine that hands it on

SCRIPT = """\
import oar
assert oar.cuda.is_available(), oar.cuda.why_unavailable()
print("ran on", oar.cuda.device_name(0))
"""


@pytest.mark.gpu
def test_on_a_machine_with_a_gpu_the_library_s_gpu_tests_run(scratch: Checkout) -> None:
    said = succeed(scratch.invoke("test", "--variant", "gpu", "--gpu", "on", timeout=1200))
    assert "GPU: " in said
    assert "GPU tests not run" not in said


@pytest.mark.gpu
def test_on_a_machine_with_a_gpu_run_chooses_the_variant_and_uses_it(scratch: Checkout) -> None:
    (scratch.root / "uses_gpu.py").write_text(textwrap.dedent(SCRIPT))
    succeed(scratch.invoke("prod", "--variant", "cpu,gpu", timeout=1200))
    for arguments in (("--gpu", "on"), ()):
        said = succeed(scratch.invoke("run", "uses_gpu.py", *arguments))
        assert "running gpu: this host has a GPU" in said
        assert "ran on " in said
    (scratch.root / "plain.py").touch()
    said = succeed(scratch.invoke("run", "plain.py", "--gpu", "off"))
    assert "running cpu: " in said

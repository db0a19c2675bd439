"""oar.cuda where there is nothing to run on: it imports, and says what is missing."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import oar
import pytest
from helpers import normal
from oar import cuda

WHY = cuda.why_unavailable()
HAS_CUDA = bool(oar.build_info()["cuda_archs"])
NOTHING: Any = None

needs_absence = pytest.mark.skipif(not WHY, reason="not run: this machine has a GPU")


def test_the_reason_is_one_sentence_and_is_available_is_its_absence() -> None:
    assert cuda.is_available() == (WHY == "")
    assert "\n" not in WHY
    assert not WHY.endswith(".")


def test_a_build_without_cuda_says_so() -> None:
    assert (WHY == "this build of Oar has no CUDA") == (not HAS_CUDA)


def test_the_archs_are_those_that_were_asked_for() -> None:
    archs = oar.build_info()["cuda_archs"]
    assert all(arch.startswith(("sm_", "compute_")) for arch in archs)
    if archs:
        assert archs[-1].startswith("compute_"), "no PTX for GPUs to come"


@needs_absence
def test_without_a_gpu_there_is_no_device() -> None:
    assert not cuda.is_available()
    assert cuda.device_count() == 0


@needs_absence
def test_without_a_gpu_every_function_raises_and_says_why() -> None:
    x = normal(2, 3)
    calls = {
        "from_numpy": lambda: cuda.from_numpy(x),
        "to_numpy": lambda: cuda.to_numpy(NOTHING),
        "synchronize": cuda.synchronize,
        "device_name": cuda.device_name,
    }
    for name in kernels():
        function = getattr(cuda, name)
        options = {
            key: (3, 3) if key in ("kernel", "size") else 1
            for key, parameter in inspect.signature(function).parameters.items()
            if parameter.default is parameter.empty
        }
        calls[name] = lambda function=function, options=options: function(**options)
    for call in calls.values():
        with pytest.raises(cuda.UnavailableError) as caught:
            call()
        assert str(caught.value) == f"oar.cuda: {WHY}"
        assert isinstance(caught.value, cuda.Error)
        assert isinstance(caught.value, RuntimeError)


def kernels() -> list[str]:
    return [name for name in oar.__all__ if hasattr(oar.ops, name) and "num_threads" not in name]


def test_every_kernel_of_the_cpu_has_a_twin_with_its_parameters() -> None:
    assert len(kernels()) == 17
    for name in kernels():
        host = inspect.signature(getattr(oar, name)).parameters
        twin = dict(inspect.signature(getattr(cuda, name)).parameters)
        stream = twin.pop("stream")
        assert (stream.kind, stream.default) == (stream.KEYWORD_ONLY, None)
        assert list(twin) == list(host)
        assert [p.default for p in twin.values()] == [p.default for p in host.values()]
        assert [p.kind for p in twin.values()] == [p.kind for p in host.values()]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="not run: reads /proc")
def test_importing_loads_neither_toolkit_nor_driver() -> None:
    # Where Oar is imported from here it is imported from there, too.
    code = (
        f"import sys; sys.path[:0] = [{str(Path(oar.__file__).parents[1])!r}]; import oar;"
        "print(open('/proc/self/maps').read())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "/liboar" in run.stdout  # liboar.so, or with a hash in its name where a wheel brings it
    assert "libcuda" not in run.stdout


@needs_absence
def test_the_cpu_s_kernels_do_not_mind() -> None:
    assert np.all(oar.relu(normal(5)) >= 0)

"""Build info, threads and the GIL."""

from __future__ import annotations

import os
import runpy
import sys
import threading
import time
from collections.abc import Iterator

import oar
import pytest
from helpers import normal
from numpy.testing import assert_array_equal
from oar import _native


@pytest.fixture(autouse=True)
def keep_num_threads() -> Iterator[None]:
    before = oar.get_num_threads()
    yield
    oar.set_num_threads(before)


def test_build_info_has_every_key_and_its_type() -> None:
    info = oar.build_info()
    assert {key: type(value) for key, value in info.items()} == {
        "version": str,
        "variant": str,
        "isa": str,
        "vector": str,
        "cuda_archs": list,
        "commit": str,
        "compiler": str,
        "openmp": bool,
    }
    assert info["version"] == oar.__version__ != ""


def test_the_vectors_are_those_of_the_isa() -> None:
    info = oar.build_info()
    expected = {"x86-64-v2": "sse4.2", "x86-64-v3": "avx2+fma", "x86-64-v4": "avx512"}
    if info["isa"] not in expected:
        pytest.skip(f"this build was made for isa {info['isa']!r}, which says nothing on vectors")
    assert info["vector"] == expected[info["isa"]]


def test_the_cpu_is_asked_before_anything_else_is_imported() -> None:
    assert next(name for name in sys.modules if name.startswith("oar.")) == "oar._cpu"


def test_module_prints_one_key_per_line(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_module("oar", run_name="__main__")
    keys = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert keys == list(oar.build_info())


def test_loading_leaves_the_environment_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    for before in (None, "active"):
        if before is None:
            monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
        else:
            monkeypatch.setenv("OMP_WAIT_POLICY", before)
        with _native.patient_threads():
            assert os.environ["OMP_WAIT_POLICY"] == (before or "passive")
        assert os.environ.get("OMP_WAIT_POLICY") == before


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    if not oar.build_info()["openmp"]:
        pytest.skip("built without OpenMP, so there is one thread only")
    x, weight = normal(300, 200), normal(310, 200, seed=1)
    oar.set_num_threads(1)
    assert oar.get_num_threads() == 1
    want = oar.linear(x, weight)
    oar.set_num_threads(5)
    assert oar.get_num_threads() == 5
    assert_array_equal(oar.linear(x, weight), want)


def test_kernels_release_the_gil() -> None:
    oar.set_num_threads(1)
    x = normal(700, 700)
    ticks: list[float] = []
    is_done = threading.Event()

    def tick() -> None:
        while not is_done.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.0005)

    def ticks_during_a_call() -> bool:
        start = time.perf_counter()
        oar.linear(x, x)
        end = time.perf_counter()
        # The first and last tenth may belong to the interpreter; it holds the GIL there.
        margin = (end - start) / 10
        return any(start + margin < at < end - margin for at in ticks[:])

    ticker = threading.Thread(target=tick)
    ticker.start()
    try:
        # A busy machine may not schedule the ticker during one call, but a held GIL never lets it.
        assert any(ticks_during_a_call() for _ in range(50))
    finally:
        is_done.set()
        ticker.join()

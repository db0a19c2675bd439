"""oar.cuda on a GPU: every kernel beside the CPU's, whose own tests hold it to NumPy.

Without a GPU each test is skipped, and the reason names what is missing.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import oar
import pytest
from helpers import normal
from numpy.testing import assert_allclose, assert_array_equal
from oar import cuda

pytestmark = pytest.mark.gpu

# Sums of float32 in another order differ by some 1e-7 * sqrt(n); elementwise results by less.
SUMS, ELEMENTWISE = 1e-4, 1e-5


@pytest.fixture(autouse=True)
def need_gpu() -> Iterator[None]:
    """Skip, or check afterwards that no kernel went wrong."""
    why = cuda.why_unavailable()
    if why:
        pytest.skip(f"not run, no GPU: {why}")
    yield
    cuda.synchronize()


class Case(NamedTuple):
    """A call of one kernel, the same for CPU and GPU."""

    arguments: tuple[Any, ...]
    options: dict[str, Any] = {}  # noqa: RUF012  # nobody writes to it
    tolerance: float = ELEMENTWISE


def labels(n: int, classes: int, dtype: type = np.int64) -> Any:
    return (np.arange(n) * 7 % classes).astype(dtype)


X, W, B, DY = normal(33, 70), normal(65, 70, seed=1), normal(65, seed=2), normal(33, 65, seed=3)
IMAGE, FILTERS = normal(3, 5, 17, 14), normal(20, 5, 3, 3, seed=1)
BAGS = np.array([5, 0, 0, 2, 1, 4]), np.array([0, 3, 3])
BAGS32 = BAGS[0].astype(np.int32), BAGS[1].astype(np.int32)
NORM = oar.layer_norm(X, X[0], X[1])
PROBABILITIES = oar.softmax_cross_entropy(X, labels(33, 70))[1]
POOLED = oar.max_pool2d(IMAGE, 3, stride=2, padding=1)

CASES: dict[str, list[Case]] = {
    "linear": [
        Case((X, W, B), tolerance=SUMS),
        Case((X, W), tolerance=SUMS),
        Case((normal(3, 3000), normal(4, 3000, seed=1)), tolerance=SUMS),
        Case((normal(1500, 40), normal(1100, 40, seed=1)), tolerance=SUMS),
        Case((normal(0, 4), normal(3, 4))),
        Case((normal(2, 0), normal(3, 0))),
    ],
    "linear_backward": [Case((DY, X, W), tolerance=SUMS)],
    "relu": [Case((X,)), Case((IMAGE,)), Case((normal(0),))],
    "relu_backward": [Case((X, X[::-1].copy()))],
    "gelu": [Case((X * 3,))],
    "gelu_backward": [Case((X, X[::-1].copy()))],
    "softmax_cross_entropy": [
        Case((X * 20, labels(33, 70))),
        Case((X, labels(33, 70, np.int32))),
    ],
    "softmax_cross_entropy_backward": [Case((X[:, 0].copy(), PROBABILITIES, labels(33, 70)))],
    "layer_norm": [Case((X, X[0], X[1]), {"eps": 1e-3}, SUMS)],
    "layer_norm_backward": [Case((X[::-1].copy(), X, X[0], NORM[1], NORM[2]), tolerance=SUMS)],
    "embedding_bag": [Case((X, *BAGS), {"mode": "mean"}), Case((X, *BAGS32))],
    "embedding_bag_backward": [
        Case((X[:3], *BAGS, 6), {"mode": "mean"}),
        Case((X[:3], *BAGS32, 9)),
    ],
    "conv2d": [
        Case((IMAGE, FILTERS, B[:20]), {"padding": 1}, SUMS),
        Case((IMAGE, FILTERS), {"stride": (2, 3), "padding": (0, 2)}, SUMS),
    ],
    "conv2d_backward": [
        Case((oar.conv2d(IMAGE, FILTERS, **options), IMAGE, FILTERS), options, SUMS)
        for options in ({"padding": 1}, {"stride": (2, 3), "padding": (0, 2)})
    ],
    "max_pool2d": [Case((IMAGE, 2)), Case((IMAGE, (3, 2)), {"stride": 1, "padding": 1})],
    "max_pool2d_backward": [Case((*POOLED, (17, 14)))],
}


def to_device(value: Any) -> Any:
    return cuda.from_numpy(np.ascontiguousarray(value)) if isinstance(value, np.ndarray) else value


def results(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


@pytest.mark.parametrize(
    ("name", "case"),
    [
        pytest.param(name, case, id=f"{name}-{number}")
        for name, cases in CASES.items()
        for number, case in enumerate(cases)
    ],
)
@pytest.mark.parametrize("stream", [None, 2], ids=["default-stream", "thread-stream"])
def test_values_are_the_cpu_s(name: str, case: Case, stream: int | None) -> None:
    want = results(getattr(oar, name)(*case.arguments, **case.options))
    arguments = [to_device(value) for value in case.arguments]
    got = results(getattr(cuda, name)(*arguments, **case.options, stream=stream))
    assert len(got) == len(want)
    for one, other in zip(got, want, strict=True):
        assert one.shape == other.shape
        assert one.dtype == other.dtype.name
        values = cuda.to_numpy(one)
        assert_allclose(values, other, rtol=case.tolerance, atol=case.tolerance * 10)


def test_every_kernel_is_compared() -> None:
    assert {*CASES, "adam_step"} == kernels()


def kernels() -> set[str]:
    return {
        name
        for name, function in vars(cuda).items()
        if inspect.isfunction(function) and hasattr(oar.ops, name) and not name.startswith("_")
    }


def test_adam_works_in_place() -> None:
    start = [normal(300, 7), np.zeros((300, 7), np.float32), np.zeros((300, 7), np.float32)]
    host = [values.copy() for values in start]
    device = [cuda.from_numpy(values) for values in start]
    for step in range(1, 4):
        grad = normal(300, 7, seed=step)
        oar.adam_step(host[0], grad, host[1], host[2], step=step)
        cuda.adam_step(device[0], cuda.from_numpy(grad), device[1], device[2], step=step, stream=2)
    for got, want in zip(device, host, strict=True):
        assert_allclose(cuda.to_numpy(got), want, rtol=1e-5, atol=1e-6)


def test_results_are_arguments_again() -> None:
    hidden = cuda.relu(cuda.linear(cuda.from_numpy(X), cuda.from_numpy(W)))
    assert_allclose(cuda.to_numpy(hidden), oar.relu(oar.linear(X, W)), rtol=SUMS, atol=SUMS)


def test_a_result_says_what_it_is() -> None:
    array = cuda.from_numpy(labels(4, 3))
    assert (array.shape, array.dtype, array.device) == ((4,), "int64", 0)
    assert array.__dlpack_device__() == (2, 0)
    assert repr(array) == "oar.cuda.Array(shape=(4,), dtype=int64, device=0)"
    assert_array_equal(cuda.to_numpy(array), labels(4, 3))


def test_the_machine_s_gpus_have_names() -> None:
    assert cuda.is_available()
    assert cuda.device_count() >= 1
    assert cuda.device_name()


def test_arrays_of_the_host_are_refused_by_name() -> None:
    with pytest.raises(
        TypeError, match=r"^weight: expected a CUDA array, got ndarray .*from_numpy"
    ):
        cuda.linear(cuda.from_numpy(X), W)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^x: expected a CUDA array, got list"):
        cuda.relu([1.0])  # type: ignore[arg-type]


WRONG_POSITION = np.full((1, 1, 1, 1), 9, np.int32)
ERRORS: list[tuple[str, type[Exception], Callable[[], object]]] = [
    ("weight: expected shape (*, 70), got (70, 65)", ValueError, lambda: call("linear", X, W.T)),
    ("x: expected dtype float32, got int64", TypeError, lambda: call("relu", labels(4, 3))),
    (
        "labels[2] is 70, outside [0, 70)",
        IndexError,
        lambda: call("softmax_cross_entropy", X[:4], np.array([0, 69, 70, -1])),
    ),
    (
        "indices[1] is -1, outside [0, 33)",
        IndexError,
        lambda: call("embedding_bag", X, np.array([0, -1]), np.array([0])),
    ),
    (
        "offsets must ascend",
        ValueError,
        lambda: call("embedding_bag", X, np.array([0, 1]), np.array([0, 2, 1])),
    ),
    (
        "positions[0] is 9, outside [0, 9)",
        IndexError,
        lambda: call("max_pool2d_backward", normal(1, 1, 1, 1), WRONG_POSITION, (3, 3)),
    ),
    ("the kernel is larger", ValueError, lambda: call("conv2d", IMAGE, normal(1, 5, 30, 3))),
]


def call(name: str, *arguments: Any) -> object:
    return getattr(cuda, name)(*map(to_device, arguments))


@pytest.mark.parametrize(("message", "kind", "wrong"), ERRORS, ids=[row[0] for row in ERRORS])
def test_errors_are_the_cpu_s(
    message: str, kind: type[Exception], wrong: Callable[[], object]
) -> None:
    with pytest.raises(kind) as caught:
        wrong()
    assert str(caught.value).startswith(message)


def test_a_result_too_large_for_the_gpu_is_a_memory_error() -> None:
    rows = cuda.from_numpy(np.empty((2**29, 0), np.float32))
    with pytest.raises(MemoryError):
        cuda.linear(rows, rows)


def test_memory_is_given_back() -> None:
    x = cuda.from_numpy(np.zeros(2**26, np.float32))  # 268 MB, and as much for each result
    for stream in [None, 2] * 400:
        cuda.relu(x, stream=stream)


class Foreign:
    """An array of a library that oar does not know."""

    def __init__(self, array: cuda.Array, *, is_read_only: bool = False) -> None:
        self.array, self.is_read_only = array, is_read_only
        self.asked: list[dict[str, Any]] = []

    def __dlpack__(self, **options: Any) -> Any:
        self.asked.append(options)
        if self.is_read_only and "max_version" not in options:
            raise BufferError("read-only arrays need version 1")
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()


def test_an_array_of_any_library_is_used_in_place_and_told_our_stream() -> None:
    param, grad, first, second = (
        Foreign(cuda.from_numpy(np.full((3, 4), value, np.float32))) for value in (1, 2, 0, 0)
    )
    cuda.adam_step(param, grad, first, second, step=1, learning_rate=0.5, stream=2)
    assert_allclose(cuda.to_numpy(param.array, stream=2), np.full((3, 4), 0.5), rtol=1e-5)
    assert [options["stream"] for options in param.asked] == [2]
    x = Foreign(cuda.from_numpy(X), is_read_only=True)
    assert_array_equal(cuda.to_numpy(cuda.relu(x)), np.maximum(X, 0))
    assert [options["stream"] for options in x.asked] == [1, 1]  # DLPack's default stream


def test_a_library_s_own_refusal_is_passed_on() -> None:
    class NeedsGradients(Foreign):
        def __dlpack__(self, **options: Any) -> Any:
            raise BufferError("requires gradients")

    with pytest.raises(BufferError, match="requires gradients"):
        cuda.relu(NeedsGradients(cuda.from_numpy(X)))


# ---- Other libraries, where they are installed with CUDA

OTHERS = {
    "cupy": (lambda m, x: m.asarray(x), lambda m, y: m.asnumpy(m.from_dlpack(y))),
    "torch": (lambda m, x: m.from_numpy(x).cuda(), lambda m, y: m.from_dlpack(y).cpu().numpy()),
    "paddle": (
        lambda m, x: m.to_tensor(x, place=m.CUDAPlace(0)),
        lambda m, y: m.utils.dlpack.from_dlpack(y).numpy(),
    ),
}
POINTERS: dict[str, Callable[[Any], int]] = {
    "cupy": lambda x: int(x.data.ptr),
    "torch": lambda x: int(x.data_ptr()),
    "paddle": lambda x: int(x.data_ptr()),
}


def has_cuda(name: str, module: Any) -> bool:
    if name == "torch":
        return bool(module.cuda.is_available())
    return name == "cupy" or bool(module.device.is_compiled_with_cuda())


@pytest.mark.parametrize("name", OTHERS)
def test_other_libraries_arrays_pass_both_ways_without_a_copy(name: str) -> None:
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        pytest.skip(f"not run, no {name}: {error}")
    if not has_cuda(name, module):
        pytest.skip(f"not run: this {name} has no CUDA")
    upload, download = OTHERS[name]
    x = upload(module, X)
    y = cuda.linear(x, upload(module, W))
    assert_allclose(download(module, y), oar.linear(X, W), rtol=SUMS, atol=SUMS)
    param = upload(module, X.copy())
    before = POINTERS[name](param)
    first, second = upload(module, np.zeros_like(X)), upload(module, np.zeros_like(X))
    cuda.adam_step(param, x, first, second, step=1, learning_rate=0.5)
    cuda.synchronize()
    assert POINTERS[name](param) == before
    assert np.abs(cuda.to_numpy(param) - X).min() > 0.4  # its own memory has changed

"""The kernels on a GPU: the functions of :mod:`oar.ops`, on arrays in a GPU's memory.

An argument is any array with the DLPack protocol that lies on an NVIDIA GPU, such as
PaddlePaddle's, CuPy's and PyTorch's; it is used where it stands, without a copy. What a kernel
computes, which shapes and dtypes it takes, and what it raises is said in :mod:`oar.ops`. All arrays
of one call lie on one GPU. Results are new arrays of the class :class:`Array`, which those
libraries take by their ``from_dlpack``, again without a copy.

``stream`` is the number of a CUDA stream, as ``cupy.cuda.Stream.ptr`` has it; by default it is the
legacy default stream. Work is enqueued there and may still run when a function returns. A result
handed to another library, or to a kernel on another stream, is waited for there by itself.

The module can be imported in any build and on any machine; where it cannot compute,
:func:`why_unavailable` says why, and the kernels raise :class:`UnavailableError`, which says it
too. A CUDA call that fails raises :class:`Error`, and MemoryError where the GPU's memory is full.
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from oar import ops

if TYPE_CHECKING:
    import oar._oar_cuda as _native
    from oar._oar_cuda import Array
else:
    try:
        import oar._oar_cuda as _native
        from oar._oar_cuda import Array
    except ModuleNotFoundError:  # a build without CUDA has no such module
        _native = None

        class Array:
            """Values in a GPU's memory; this build makes none."""


_pair = ops._pair  # noqa: SLF001  # one reader of pairs for both modules


class CudaArray(Protocol):
    """What an argument must have: the DLPack protocol."""

    def __dlpack__(self, **options: Any) -> Any:  # a capsule
        """Hand out the elements."""

    def __dlpack_device__(self) -> tuple[int, int]:
        """Say where they lie."""


class Error(RuntimeError):
    """A CUDA call failed."""


class UnavailableError(Error):
    """There is nothing here to run a kernel on."""


_HostArray: TypeAlias = "ops.FloatArray | ops.IndexArray"


def why_unavailable() -> str:
    """Say in one sentence why no kernel can run here; empty where one can."""
    if _native is None:
        return "this build of Oar has no CUDA"
    return _native.why_unavailable()


def is_available() -> bool:
    """Return whether a kernel can run here: there is a GPU, and this build has code for it."""
    return not why_unavailable()


def device_count() -> int:
    """Return how many GPUs this process may use."""
    return 0 if _native is None else _native.device_count()


def device_name(device: int = 0) -> str:
    """Return a GPU's name, as its driver tells it."""
    return _ready().device_name(device)


_is_known: bool = False  # that a kernel can run: asking takes some microseconds


def _ready() -> ModuleType:
    """Return the extension module, or raise UnavailableError."""
    global _is_known
    if not _is_known:
        why = why_unavailable()
        if why:
            raise UnavailableError(f"oar.cuda: {why}")
        _is_known = True
    return _native


def from_numpy(array: _HostArray, *, device: int = 0, stream: int | None = None) -> Array:
    """Return a copy of a NumPy array (float32, int32 or int64, C-contiguous) on a GPU."""
    return _ready().from_numpy(array, device, stream or 0)


def to_numpy(array: CudaArray, *, stream: int | None = None) -> Any:
    """Return a copy of a GPU's array as a NumPy array, once what is enqueued on it is done."""
    return _ready().to_numpy(array, stream or 0)


def synchronize(device: int = 0) -> None:
    """Wait until all that is enqueued on a GPU is done."""
    _ready().synchronize(device)


def linear(
    x: CudaArray, weight: CudaArray, bias: CudaArray | None = None, *, stream: int | None = None
) -> Array:
    """Do what :func:`oar.linear` does."""
    return _ready().linear(x, weight, bias, stream or 0)


def linear_backward(
    dy: CudaArray, x: CudaArray, weight: CudaArray, *, stream: int | None = None
) -> tuple[Array, Array, Array]:
    """Do what :func:`oar.linear_backward` does."""
    return _ready().linear_backward(dy, x, weight, stream or 0)


def relu(x: CudaArray, *, stream: int | None = None) -> Array:
    """Do what :func:`oar.relu` does."""
    return _ready().relu(x, stream or 0)


def relu_backward(dy: CudaArray, x: CudaArray, *, stream: int | None = None) -> Array:
    """Do what :func:`oar.relu_backward` does."""
    return _ready().relu_backward(dy, x, stream or 0)


def gelu(x: CudaArray, *, stream: int | None = None) -> Array:
    """Do what :func:`oar.gelu` does."""
    return _ready().gelu(x, stream or 0)


def gelu_backward(dy: CudaArray, x: CudaArray, *, stream: int | None = None) -> Array:
    """Do what :func:`oar.gelu_backward` does."""
    return _ready().gelu_backward(dy, x, stream or 0)


def softmax_cross_entropy(
    logits: CudaArray, labels: CudaArray, *, stream: int | None = None
) -> tuple[Array, Array]:
    """Do what :func:`oar.softmax_cross_entropy` does, and wait for the look at the labels."""
    return _ready().softmax_cross_entropy(logits, labels, stream or 0)


def softmax_cross_entropy_backward(
    dloss: CudaArray, probabilities: CudaArray, labels: CudaArray, *, stream: int | None = None
) -> Array:
    """Do what :func:`oar.softmax_cross_entropy_backward` does, and wait as the forward does."""
    return _ready().softmax_cross_entropy_backward(dloss, probabilities, labels, stream or 0)


def layer_norm(
    x: CudaArray,
    gamma: CudaArray,
    beta: CudaArray,
    *,
    eps: float = 1e-5,
    stream: int | None = None,
) -> tuple[Array, Array, Array]:
    """Do what :func:`oar.layer_norm` does."""
    return _ready().layer_norm(x, gamma, beta, eps, stream or 0)


def layer_norm_backward(
    dy: CudaArray,
    x: CudaArray,
    gamma: CudaArray,
    mean: CudaArray,
    rstd: CudaArray,
    *,
    stream: int | None = None,
) -> tuple[Array, Array, Array]:
    """Do what :func:`oar.layer_norm_backward` does."""
    return _ready().layer_norm_backward(dy, x, gamma, mean, rstd, stream or 0)


def embedding_bag(
    weight: CudaArray,
    indices: CudaArray,
    offsets: CudaArray,
    *,
    mode: Literal["sum", "mean"] = "sum",
    stream: int | None = None,
) -> Array:
    """Do what :func:`oar.embedding_bag` does, and wait for the look at the indices."""
    return _ready().embedding_bag(weight, indices, offsets, mode, stream or 0)


def embedding_bag_backward(
    dy: CudaArray,
    indices: CudaArray,
    offsets: CudaArray,
    rows: int,
    *,
    mode: Literal["sum", "mean"] = "sum",
    stream: int | None = None,
) -> Array:
    """Do what :func:`oar.embedding_bag_backward` does, and wait as the forward does.

    Its sums run in no fixed order, so the last digits of two calls may differ.
    """
    return _ready().embedding_bag_backward(dy, indices, offsets, rows, mode, stream or 0)


def conv2d(
    x: CudaArray,
    weight: CudaArray,
    bias: CudaArray | None = None,
    *,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    stream: int | None = None,
) -> Array:
    """Do what :func:`oar.conv2d` does."""
    steps, pads = _pair(stride, "stride"), _pair(padding, "padding")
    return _ready().conv2d(x, weight, bias, *steps, *pads, stream or 0)


def conv2d_backward(
    dy: CudaArray,
    x: CudaArray,
    weight: CudaArray,
    *,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    stream: int | None = None,
) -> tuple[Array, Array, Array]:
    """Do what :func:`oar.conv2d_backward` does."""
    steps, pads = _pair(stride, "stride"), _pair(padding, "padding")
    return _ready().conv2d_backward(dy, x, weight, *steps, *pads, stream or 0)


def max_pool2d(
    x: CudaArray,
    kernel: int | tuple[int, int],
    *,
    stride: int | tuple[int, int] | None = None,
    padding: int | tuple[int, int] = 0,
    stream: int | None = None,
) -> tuple[Array, Array]:
    """Do what :func:`oar.max_pool2d` does."""
    window = _pair(kernel, "kernel")
    steps = window if stride is None else _pair(stride, "stride")
    pads = _pair(padding, "padding")
    return _ready().max_pool2d(x, *window, *steps, *pads, stream or 0)


def max_pool2d_backward(
    dy: CudaArray, positions: CudaArray, size: tuple[int, int], *, stream: int | None = None
) -> Array:
    """Do what :func:`oar.max_pool2d_backward` does, and wait for the look at the positions.

    Its sums run in no fixed order, so the last digits of two calls may differ.
    """
    return _ready().max_pool2d_backward(dy, positions, *_pair(size, "size"), stream or 0)


def adam_step(
    param: CudaArray,
    grad: CudaArray,
    first: CudaArray,
    second: CudaArray,
    *,
    step: int,
    learning_rate: float = 1e-3,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    stream: int | None = None,
) -> None:
    """Do what :func:`oar.adam_step` does, in place."""
    _ready().adam_step(
        param, grad, first, second, step, learning_rate, beta1, beta2, eps, stream or 0
    )

"""The kernels. What all of them share (dtypes, errors, threads) is said in ``help(oar)``."""

from __future__ import annotations

import operator
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from oar._native import _oar

FloatArray: TypeAlias = NDArray[np.float32]
PositionArray: TypeAlias = NDArray[np.int32]
IndexArray: TypeAlias = "NDArray[np.int32] | NDArray[np.int64]"


def _pair(value: int | tuple[int, int], name: str) -> tuple[int, int]:
    """Read a (height, width) argument, in pixels; one number stands for both."""
    values = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(values) != 2:
        raise ValueError(f"{name}: expected one int or two, got {len(values)}")
    try:
        height, width = (operator.index(v) for v in values)
    except TypeError:
        raise TypeError(f"{name}: expected an int or a pair of ints, got {value!r}") from None
    if not (0 <= height < 2**31 and 0 <= width < 2**31):
        raise ValueError(f"{name}: expected values from 0 to 2**31 - 1, got {value!r}")
    return height, width


def set_num_threads(n: int) -> None:
    """Set how many threads a kernel may use, for the whole process.

    A build without OpenMP goes on using one. Raises ValueError unless ``1 <= n <= 1024``.
    """
    _oar.set_num_threads(n)


def get_num_threads() -> int:
    """Return how many threads a kernel may use.

    At first that is what OpenMP takes: ``OMP_NUM_THREADS``, else the CPUs of this process.
    """
    return _oar.num_threads()


def linear(x: FloatArray, weight: FloatArray, bias: FloatArray | None = None) -> FloatArray:
    """Return ``x @ weight.T + bias``.

    Shapes: x (batch, in), weight (out, in), bias (out,); result (batch, out).
    """
    return _oar.linear(x, weight, bias)


def linear_backward(
    dy: FloatArray, x: FloatArray, weight: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return (dx, dweight, dbias) of :func:`linear`, shaped like x, weight and bias.

    Shapes: dy (batch, out), x (batch, in), weight (out, in).
    """
    return _oar.linear_backward(dy, x, weight)


def relu(x: FloatArray) -> FloatArray:
    """Return ``max(x, 0)``, elementwise, for any shape; a NaN stays one."""
    return _oar.relu(x)


def relu_backward(dy: FloatArray, x: FloatArray) -> FloatArray:
    """Return dx of :func:`relu`: dy where ``x > 0``, else 0. All of one shape."""
    return _oar.relu_backward(dy, x)


def gelu(x: FloatArray) -> FloatArray:
    """Return ``x * Phi(x)``, elementwise, for any shape.

    Phi is the standard normal distribution function itself, not its tanh form; its absolute error
    is below 2e-7.
    """
    return _oar.gelu(x)


def gelu_backward(dy: FloatArray, x: FloatArray) -> FloatArray:
    """Return dx of :func:`gelu`: ``dy * (Phi(x) + x * phi(x))``. All of one shape."""
    return _oar.gelu_backward(dy, x)


def softmax_cross_entropy(logits: FloatArray, labels: IndexArray) -> tuple[FloatArray, FloatArray]:
    """Return (loss, probabilities) of each row: ``-log(softmax(logits)[label])``, in nats.

    Shapes: logits (batch, classes), labels (batch,); loss (batch,), probabilities (batch, classes).
    Raises IndexError for a label outside ``[0, classes)``.
    """
    return _oar.softmax_cross_entropy(logits, labels)


def softmax_cross_entropy_backward(
    dloss: FloatArray, probabilities: FloatArray, labels: IndexArray
) -> FloatArray:
    """Return dlogits of :func:`softmax_cross_entropy`.

    For the gradient of the mean loss, pass a dloss filled with ``1 / batch``.

    Shapes: dloss (batch,), probabilities (batch, classes), labels (batch,); result like
    probabilities. Raises IndexError for a label outside ``[0, classes)``.
    """
    return _oar.softmax_cross_entropy_backward(dloss, probabilities, labels)


def layer_norm(
    x: FloatArray, gamma: FloatArray, beta: FloatArray, *, eps: float = 1e-5
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return (y, mean, rstd) with ``y = (x - mean) * rstd * gamma + beta``, row by row.

    ``rstd`` is ``1 / sqrt(variance + eps)``, of the biased variance.

    Shapes: x (batch, features), gamma and beta (features,); y like x, mean and rstd (batch,).
    Raises ValueError when there are no features, or eps is negative or not finite.
    """
    return _oar.layer_norm(x, gamma, beta, eps)


def layer_norm_backward(
    dy: FloatArray, x: FloatArray, gamma: FloatArray, mean: FloatArray, rstd: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return (dx, dgamma, dbeta) of :func:`layer_norm`; mean and rstd are its results.

    Shapes: dy and x (batch, features), gamma (features,), mean and rstd (batch,).
    """
    return _oar.layer_norm_backward(dy, x, gamma, mean, rstd)


def embedding_bag(
    weight: FloatArray,
    indices: IndexArray,
    offsets: IndexArray,
    *,
    mode: Literal["sum", "mean"] = "sum",
) -> FloatArray:
    """Return the sum or mean of each bag's rows of weight; an empty bag gives zeros.

    Bag b is ``indices[offsets[b]:offsets[b + 1]]``, the last one up to the end.

    Shapes: weight (rows, dim), indices (count,), offsets (bags,), the last two of one dtype; result
    (bags, dim). Raises IndexError for an index outside ``[0, rows)``, ValueError unless offsets
    start at 0, ascend and stay within indices.
    """
    return _oar.embedding_bag(weight, indices, offsets, mode)


def embedding_bag_backward(
    dy: FloatArray,
    indices: IndexArray,
    offsets: IndexArray,
    rows: int,
    *,
    mode: Literal["sum", "mean"] = "sum",
) -> FloatArray:
    """Return dweight, shape (rows, dim), of :func:`embedding_bag`. It is dense.

    Shapes: dy (bags, dim), indices (count,), offsets (bags,). Raises as :func:`embedding_bag` does.
    """
    return _oar.embedding_bag_backward(dy, indices, offsets, rows, mode)


def conv2d(
    x: FloatArray,
    weight: FloatArray,
    bias: FloatArray | None = None,
    *,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
) -> FloatArray:
    """Return the cross-correlation of x, padded with zeros on all sides, with weight, plus bias.

    Stride and padding are in pixels: one number, or (height, width).

    Shapes: x (batch, channels, height, width), weight (out, channels, kernel_h, kernel_w), bias
    (out,); result (batch, out, out_h, out_w), with ``out_h = (height + 2 * padding - kernel_h) //
    stride + 1`` and out_w alike. Raises ValueError when the kernel does not fit the padded input,
    stride is below 1 or padding below 0.
    """
    return _oar.conv2d(x, weight, bias, *_pair(stride, "stride"), *_pair(padding, "padding"))


def conv2d_backward(
    dy: FloatArray,
    x: FloatArray,
    weight: FloatArray,
    *,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return (dx, dweight, dbias) of :func:`conv2d`, shaped like x, weight and bias.

    Shapes: dy (batch, out, out_h, out_w), x and weight as in :func:`conv2d`, which also says what
    raises ValueError.
    """
    return _oar.conv2d_backward(dy, x, weight, *_pair(stride, "stride"), *_pair(padding, "padding"))


def max_pool2d(
    x: FloatArray,
    kernel: int | tuple[int, int],
    *,
    stride: int | tuple[int, int] | None = None,
    padding: int | tuple[int, int] = 0,
) -> tuple[FloatArray, PositionArray]:
    """Return (y, positions): the largest value under each window, and where it stands.

    A position is ``row * width + column`` in its input plane, the first of equals. Padding never
    wins, a NaN always does. Kernel, stride (by default the kernel) and padding are in pixels: one
    number, or (height, width).

    Shapes: x (batch, channels, height, width); y and positions (batch, channels, out_h, out_w), see
    :func:`conv2d`. Raises ValueError as that does, and when padding exceeds half the kernel.
    """
    window = _pair(kernel, "kernel")
    step = window if stride is None else _pair(stride, "stride")
    return _oar.max_pool2d(x, *window, *step, *_pair(padding, "padding"))


def max_pool2d_backward(
    dy: FloatArray, positions: PositionArray, size: tuple[int, int]
) -> FloatArray:
    """Return dx of :func:`max_pool2d`, for an input of ``size`` = (height, width) pixels.

    Shapes: dy and positions (batch, channels, out_h, out_w); result (batch, channels, height,
    width). Raises IndexError for a position outside the plane.
    """
    return _oar.max_pool2d_backward(dy, positions, *_pair(size, "size"))


def adam_step(
    param: FloatArray,
    grad: FloatArray,
    first: FloatArray,
    second: FloatArray,
    *,
    step: int,
    learning_rate: float = 1e-3,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
) -> None:
    """Take one step of Adam (Kingma and Ba, 2015), in place on param, first and second.

    ``first`` and ``second`` are the moments, zeros before the first step; ``step`` counts from 1.

    Shapes: any, the same for all four, which must not share memory. Raises ValueError for step < 1,
    a beta outside ``[0, 1)``, a negative eps, or a learning rate that is not finite.
    """
    _oar.adam_step(param, grad, first, second, step, learning_rate, beta1, beta2, eps)

"""Forward results against NumPy in double precision."""

from __future__ import annotations

import math

import numpy as np
import oar
import pytest
from helpers import Doubles, normal
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray


@pytest.mark.parametrize(
    ("batch", "n_in", "n_out"), [(5, 7, 9), (64, 300, 33), (0, 3, 4), (3, 0, 4)]
)
def test_linear_is_a_matrix_product(batch: int, n_in: int, n_out: int) -> None:
    x, weight, bias = normal(batch, n_in), normal(n_out, n_in, seed=1), normal(n_out, seed=2)
    want = x.astype(float) @ weight.T.astype(float)
    assert_allclose(oar.linear(x, weight), want, rtol=1e-4, atol=1e-4)
    assert_allclose(oar.linear(x, weight, bias), want + bias, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(), (0,), (13,), (3, 1, 5)])
def test_activations_take_any_shape(shape: tuple[int, ...]) -> None:
    x = normal(*shape) if shape else np.array(-0.5, np.float32)
    phi = np.vectorize(lambda v: 0.5 * math.erfc(-v / math.sqrt(2)), otypes=[float])(x)
    for got, want in ((oar.relu(x), np.maximum(x, 0)), (oar.gelu(x), x * phi)):
        assert got.shape == shape
        assert_allclose(got, want, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_softmax_cross_entropy(dtype: type[np.int64]) -> None:
    logits = 5 * normal(11, 6)
    labels: oar.ops.IndexArray = (np.arange(11) % 6).astype(dtype)
    exp = np.exp(logits.astype(float))
    want = exp / exp.sum(axis=1, keepdims=True)
    loss, probabilities = oar.softmax_cross_entropy(logits, labels)
    assert_allclose(probabilities, want, rtol=1e-5, atol=1e-7)
    assert_allclose(loss, -np.log(want[np.arange(11), labels]), rtol=1e-5, atol=1e-6)


def test_layer_norm() -> None:
    x, gamma, beta = 3 * normal(8, 21) + 2, normal(21, seed=1), normal(21, seed=2)
    y, mean, rstd = oar.layer_norm(x, gamma, beta, eps=1e-3)
    wide = x.astype(float)
    want_mean = wide.mean(axis=1)
    want_rstd = 1 / np.sqrt(wide.var(axis=1) + 1e-3)
    assert_allclose(mean, want_mean, rtol=1e-5, atol=1e-6)
    assert_allclose(rstd, want_rstd, rtol=1e-5)
    normed = (wide - want_mean[:, None]) * want_rstd[:, None]
    assert_allclose(y, normed * gamma + beta, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_embedding_bag(dtype: type[np.int64]) -> None:
    weight = normal(10, 5)
    indices: oar.ops.IndexArray = np.array([3, 3, 9, 0, 1], dtype)
    offsets: oar.ops.IndexArray = np.array([0, 2, 2], dtype)
    bags = [weight[[3, 3]], weight[[]], weight[[9, 0, 1]]]
    want_sum = np.stack([bag.sum(axis=0) for bag in bags])
    want_mean = np.stack([bag.sum(axis=0) / max(len(bag), 1) for bag in bags])
    assert_allclose(oar.embedding_bag(weight, indices, offsets), want_sum, atol=1e-6)
    got_mean = oar.embedding_bag(weight, indices, offsets, mode="mean")
    assert_allclose(got_mean, want_mean, atol=1e-6)


def windows(x: NDArray[np.float32], kernel: tuple[int, int], stride: tuple[int, int]) -> Doubles:
    """Return x's windows: (batch, channels, out_h, out_w, kernel_h, kernel_w)."""
    view = np.lib.stride_tricks.sliding_window_view(x.astype(float), kernel, axis=(2, 3))
    return view[:, :, :: stride[0], :: stride[1]]


def padded(x: NDArray[np.float32], padding: tuple[int, int], fill: float) -> NDArray[np.float32]:
    """Return x with `fill` around its planes."""
    rows, columns = padding
    return np.pad(x, ((0, 0), (0, 0), (rows, rows), (columns, columns)), constant_values=fill)


@pytest.mark.parametrize(
    ("stride", "padding"), [((1, 1), (0, 0)), ((2, 1), (1, 2)), ((3, 2), (4, 0))]
)
def test_conv2d(stride: tuple[int, int], padding: tuple[int, int]) -> None:
    x, weight, bias = normal(3, 4, 9, 8), normal(5, 4, 3, 2, seed=1), normal(5, seed=2)
    view = windows(padded(x, padding, 0), (3, 2), stride)
    want = np.einsum("nchwij,ocij->nohw", view, weight.astype(float))
    got = oar.conv2d(x, weight, stride=stride, padding=padding)
    assert_allclose(got, want, rtol=1e-4, atol=1e-4)
    got = oar.conv2d(x, weight, bias, stride=stride, padding=padding)
    assert_allclose(got, want + bias[:, None, None], rtol=1e-4, atol=1e-4)


def test_one_number_for_stride_and_padding_means_both_axes() -> None:
    x, weight = normal(2, 3, 9, 9), normal(4, 3, 3, 3, seed=1)
    got = oar.conv2d(x, weight, stride=2, padding=1)
    assert_array_equal(got, oar.conv2d(x, weight, stride=(2, 2), padding=(1, 1)))


@pytest.mark.parametrize(("stride", "padding"), [((2, 3), (0, 0)), ((1, 2), (1, 1))])
def test_max_pool2d(stride: tuple[int, int], padding: tuple[int, int]) -> None:
    x = normal(2, 3, 8, 9)
    view = windows(padded(x, padding, -np.inf), (2, 3), stride)
    y, positions = oar.max_pool2d(x, (2, 3), stride=stride, padding=padding)
    assert_array_equal(y, view.max(axis=(4, 5)))
    flat = positions.reshape(2, 3, -1)
    assert_array_equal(np.take_along_axis(x.reshape(2, 3, -1), flat, axis=2), y.reshape(2, 3, -1))


def test_max_pool2d_steps_by_its_kernel() -> None:
    x = normal(1, 1, 6, 6)
    assert_array_equal(oar.max_pool2d(x, 3)[0], oar.max_pool2d(x, 3, stride=3)[0])


def test_adam_follows_the_paper_in_place() -> None:
    param, first, second = normal(4, 5), np.zeros((4, 5), np.float32), np.zeros((4, 5), np.float32)
    want, m, v = param.astype(float), np.zeros((4, 5)), np.zeros((4, 5))
    for step in range(1, 4):
        grad = normal(4, 5, seed=step)
        m = 0.8 * m + 0.2 * grad
        v = 0.95 * v + 0.05 * grad.astype(float) ** 2
        want -= 0.1 * (m / (1 - 0.8**step)) / (np.sqrt(v / (1 - 0.95**step)) + 1e-6)
        oar.adam_step(
            param, grad, first, second,
            step=step, learning_rate=0.1, beta1=0.8, beta2=0.95, eps=1e-6,
        )  # fmt: skip
    assert_allclose(param, want, rtol=1e-4, atol=1e-5)
    assert_allclose(first, m, rtol=1e-5, atol=1e-6)
    assert_allclose(second, v, rtol=1e-4, atol=1e-6)


def test_read_only_input_is_welcome() -> None:
    x = normal(3, 4)
    x.flags.writeable = False
    assert_array_equal(oar.relu(x), np.maximum(x, 0))


def test_results_own_their_memory() -> None:
    y = oar.relu(normal(1000))
    kept = y.copy()
    for seed in range(20):  # would land in y's memory had it been freed
        oar.relu(normal(1000, seed=seed))
    assert_array_equal(y, kept)
    y += 1  # and may be written

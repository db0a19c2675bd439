"""Every wrong argument is refused with the right exception, which names it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import oar
import pytest
from helpers import normal

X, W, B = normal(4, 5), normal(3, 5), normal(3)
IMAGE, FILTERS = normal(2, 3, 6, 6), normal(4, 3, 3, 3)
LABELS = np.zeros(4, np.int64)
ONES = np.ones(5, np.float32)
# What the annotations forbid, for the tests of what happens all the same.
TRIPLE: Any = (1, 1, 1)
UINT8: Any = np.zeros(4, np.uint8)
MODE: Any = "max"
HALVES: Any = 1.5


def unaligned(n: int) -> oar.ops.FloatArray:
    return np.zeros(4 * n + 1, np.uint8)[1:].view(np.float32)


SHAPES = [
    ("x: expected shape (*, *), got (5,)", lambda: oar.linear(ONES, W)),
    ("weight: expected shape (*, 5), got (3, 4)", lambda: oar.linear(X, normal(3, 4))),
    ("bias: expected shape (3,), got (4,)", lambda: oar.linear(X, W, normal(4))),
    ("dy: expected shape (4, 3), got (3, 4)", lambda: oar.linear_backward(normal(3, 4), X, W)),
    ("dy: expected shape (4, 5), got (20,)", lambda: oar.gelu_backward(normal(20), X)),
    ("labels: expected shape (4,)", lambda: oar.softmax_cross_entropy(X, LABELS[:3])),
    ("dloss: expected", lambda: oar.softmax_cross_entropy_backward(B, X, LABELS)),
    ("gamma: expected shape (5,)", lambda: oar.layer_norm(X, B, ONES)),
    ("rstd: expected shape (4,)", lambda: oar.layer_norm_backward(X, X, ONES, X[:, 0].copy(), B)),
    ("offsets: expected shape (*,)", lambda: oar.embedding_bag(W, LABELS, LABELS[:, None])),
    ("indices: expected", lambda: oar.embedding_bag(W, LABELS[:, None], LABELS)),
    ("offsets: expected", lambda: oar.embedding_bag_backward(X, LABELS, LABELS[:1], 3)),
    ("weight: expected shape (*, 3, *, *)", lambda: oar.conv2d(IMAGE, normal(4, 2, 3, 3))),
    ("dy: expected shape (2, 4, 4, 4)", lambda: oar.conv2d_backward(IMAGE, IMAGE, FILTERS)),
    ("x: expected shape (*, *, *, *)", lambda: oar.max_pool2d(X, 2)),
    ("grad: expected", lambda: oar.adam_step(ONES, X, ONES, ONES, step=1)),
]


@pytest.mark.parametrize(("message", "call"), SHAPES, ids=[message for message, _ in SHAPES])
def test_wrong_shape(message: str, call: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        call()


@pytest.mark.parametrize(
    ("argument", "got"),
    [
        (X.astype(np.float64), "got float64"),
        (X.astype(np.int32), "got int32"),
        (X.astype(np.complex64), "got complex64"),
        (X > 0, "got bool"),
        (X.astype(">f4"), "got ndarray"),
        (X.tolist(), "got list"),
        (None, "got NoneType"),
        (1.5, "got float"),
    ],
    ids=["float64", "int32", "complex64", "bool", "big-endian", "list", "None", "number"],
)
def test_wrong_type(argument: oar.ops.FloatArray, got: str) -> None:
    for call, name in (
        (lambda: oar.linear(argument, W), "x"),
        (lambda: oar.relu(argument), "x"),
        (lambda: oar.gelu_backward(X, argument), "x"),
        (lambda: oar.layer_norm_backward(argument, X, ONES, X[:, 0].copy(), X[:, 0].copy()), "dy"),
    ):
        with pytest.raises(TypeError, match=rf"^{name}: expected .*{got}$"):
            call()


def test_labels_and_indices_are_int32_or_int64() -> None:
    with pytest.raises(TypeError, match=r"^labels: expected dtype int32 or int64, got float32$"):
        oar.softmax_cross_entropy(X, X[:, 0].copy())
    with pytest.raises(TypeError, match=r"^indices: expected dtype int32 or int64, got uint8$"):
        oar.embedding_bag(W, UINT8, LABELS)
    with pytest.raises(TypeError, match=r"^offsets: expected dtype int64, got int32$"):
        oar.embedding_bag(W, LABELS, LABELS.astype(np.int32))


def test_arrays_that_are_not_c_contiguous() -> None:
    for array in (normal(5, 4).T, normal(4, 10)[:, ::2], normal(8, 5)[::-2]):
        with pytest.raises(ValueError, match=r"^x: .* numpy\.ascontiguousarray\(x\)$"):
            oar.linear(array, W)


def test_strides_of_axes_that_hold_one_element_do_not_matter() -> None:
    assert oar.relu(normal(4, 6)[:, :1].T[:, :1]).shape == (1, 1)
    assert oar.relu(normal(4, 6)[:0, ::2]).shape == (0, 3)


def test_unaligned_data() -> None:
    with pytest.raises(ValueError, match=r"^x: the data is not aligned"):
        oar.relu(unaligned(8))


@pytest.mark.parametrize("label", [-1, 5, 2**40])
def test_label_out_of_range(label: int) -> None:
    labels = np.array([0, 1, label, 2])
    message = rf"^labels\[2\] is {label}, outside \[0, 5\)$"
    with pytest.raises(IndexError, match=message):
        oar.softmax_cross_entropy(X, labels)
    with pytest.raises(IndexError, match=message):
        oar.softmax_cross_entropy_backward(X[:, 0].copy(), X, labels)


def test_index_or_position_out_of_range() -> None:
    with pytest.raises(IndexError, match=r"^indices\[1\] is 3, outside \[0, 3\)$"):
        oar.embedding_bag(W, np.array([0, 3]), np.array([0]))
    with pytest.raises(IndexError, match=r"^indices\[0\] is -1"):
        oar.embedding_bag_backward(X[:1], np.array([-1]), np.array([0]), 3)
    dy = normal(1, 1, 1, 1)
    with pytest.raises(IndexError, match=r"^positions\[0\] is 16, outside \[0, 16\)$"):
        oar.max_pool2d_backward(dy, np.full((1, 1, 1, 1), 16, np.int32), (4, 4))


VALUES = [
    ("offsets must start at 0", lambda: oar.embedding_bag(W, LABELS, LABELS + 1)),
    ("offsets must ascend", lambda: oar.embedding_bag(W, LABELS, np.array([0, 2, 1]))),
    ("offsets must not exceed", lambda: oar.embedding_bag(W, LABELS, np.array([0, 5]))),
    ("mode: expected 'sum' or 'mean'", lambda: oar.embedding_bag(W, LABELS, LABELS, mode=MODE)),
    ("rows: expected at least 0", lambda: oar.embedding_bag_backward(X, LABELS, LABELS, -1)),
    ("stride must be at least 1", lambda: oar.conv2d(IMAGE, FILTERS, stride=0)),
    ("padding: expected values from 0", lambda: oar.conv2d(IMAGE, FILTERS, padding=-1)),
    ("padding: expected values from 0", lambda: oar.conv2d(IMAGE, FILTERS, padding=2**70)),
    (
        "stride: expected one int or two, got 3",
        lambda: oar.conv2d(IMAGE, FILTERS, stride=TRIPLE),
    ),
    ("the kernel is larger", lambda: oar.conv2d(IMAGE, normal(1, 3, 7, 7))),
    ("padding must be at most half", lambda: oar.max_pool2d(IMAGE, 2, padding=2)),
    ("the input planes have no pixels", lambda: oar.max_pool2d(normal(1, 1, 0, 4), 2, padding=1)),
    ("layer norm needs", lambda: oar.layer_norm(normal(2, 0), normal(0), normal(0))),
    ("eps must be", lambda: oar.layer_norm(X, ONES, ONES, eps=-1)),
    ("step counts from 1", lambda: oar.adam_step(X, X + 1, X + 2, X + 3, step=0)),
    ("param, grad, first and second", lambda: oar.adam_step(X, X, X + 1, X + 2, step=1)),
    ("the number of threads", lambda: oar.set_num_threads(0)),
]


@pytest.mark.parametrize(("message", "call"), VALUES, ids=[message for message, _ in VALUES])
def test_value_out_of_range(message: str, call: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        call()


def test_stride_must_be_whole() -> None:
    with pytest.raises(TypeError, match=r"^stride: expected an int or a pair of ints, got 1.5$"):
        oar.conv2d(IMAGE, FILTERS, stride=HALVES)


def test_adam_wants_writable_arrays() -> None:
    frozen = np.zeros(5, np.float32)
    frozen.flags.writeable = False
    with pytest.raises(TypeError, match=r"^first: expected a writable NumPy array"):
        oar.adam_step(ONES.copy(), ONES, frozen, ONES.copy(), step=1)


def test_a_result_too_large_for_any_memory_is_a_memory_error() -> None:
    huge = np.empty((2**40, 0), np.float32)
    with pytest.raises(MemoryError):
        oar.linear(huge, huge)

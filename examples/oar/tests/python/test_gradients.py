"""Backward results against finite differences of the forward results."""

from __future__ import annotations

from typing import Literal

import numpy as np
import oar
import pytest
from helpers import assert_gradient, normal


def test_linear() -> None:
    x, weight, bias = normal(4, 5), normal(3, 5, seed=1), normal(3, seed=2)
    dy = normal(4, 3, seed=3)
    dx, dweight, dbias = oar.linear_backward(dy, x, weight)
    assert_gradient(dx, lambda v: oar.linear(v, weight, bias), x, dy)
    assert_gradient(dweight, lambda v: oar.linear(x, v, bias), weight, dy)
    assert_gradient(dbias, lambda v: oar.linear(x, weight, v), bias, dy)


def test_relu() -> None:
    x, dy = normal(40), normal(40, seed=1)
    x[np.abs(x) < 0.05] = 0.5  # differences are wrong across the kink
    assert_gradient(oar.relu_backward(dy, x), oar.relu, x, dy)


def test_gelu() -> None:
    x, dy = 2 * normal(40), normal(40, seed=1)
    assert_gradient(oar.gelu_backward(dy, x), oar.gelu, x, dy)


def test_softmax_cross_entropy() -> None:
    logits, dloss = normal(6, 5), normal(6, seed=1)
    labels = np.array([0, 1, 2, 3, 4, 0])
    probabilities = oar.softmax_cross_entropy(logits, labels)[1]
    got = oar.softmax_cross_entropy_backward(dloss, probabilities, labels)
    assert_gradient(got, lambda v: oar.softmax_cross_entropy(v, labels)[0], logits, dloss)


def test_layer_norm() -> None:
    x, gamma, beta, dy = normal(4, 7), normal(7, seed=1), normal(7, seed=2), normal(4, 7, seed=3)
    _, mean, rstd = oar.layer_norm(x, gamma, beta)
    dx, dgamma, dbeta = oar.layer_norm_backward(dy, x, gamma, mean, rstd)
    assert_gradient(dx, lambda v: oar.layer_norm(v, gamma, beta)[0], x, dy)
    assert_gradient(dgamma, lambda v: oar.layer_norm(x, v, beta)[0], gamma, dy)
    assert_gradient(dbeta, lambda v: oar.layer_norm(x, gamma, v)[0], beta, dy)


@pytest.mark.parametrize("mode", ["sum", "mean"])
def test_embedding_bag(mode: Literal["sum", "mean"]) -> None:
    weight, dy = normal(6, 3), normal(3, 3, seed=1)
    indices, offsets = np.array([5, 0, 0, 2, 1]), np.array([0, 3, 3])
    got = oar.embedding_bag_backward(dy, indices, offsets, 6, mode=mode)
    assert_gradient(got, lambda v: oar.embedding_bag(v, indices, offsets, mode=mode), weight, dy)


@pytest.mark.parametrize(("stride", "padding"), [((1, 1), (0, 0)), ((2, 1), (1, 2))])
def test_conv2d(stride: tuple[int, int], padding: tuple[int, int]) -> None:
    def conv(
        x: oar.ops.FloatArray, weight: oar.ops.FloatArray, bias: oar.ops.FloatArray
    ) -> oar.ops.FloatArray:
        return oar.conv2d(x, weight, bias, stride=stride, padding=padding)

    x, weight, bias = normal(2, 2, 5, 4), normal(3, 2, 3, 2, seed=1), normal(3, seed=2)
    dy = normal(*conv(x, weight, bias).shape, seed=3)
    dx, dweight, dbias = oar.conv2d_backward(dy, x, weight, stride=stride, padding=padding)
    assert_gradient(dx, lambda v: conv(v, weight, bias), x, dy)
    assert_gradient(dweight, lambda v: conv(x, v, bias), weight, dy)
    assert_gradient(dbias, lambda v: conv(x, weight, v), bias, dy)


def test_max_pool2d() -> None:
    # Values 0.1 apart, so that no step changes which of them is the largest.
    order = np.random.default_rng(0).permutation(70).reshape(1, 2, 5, 7)
    x = order.astype(np.float32) / np.float32(10)
    y, positions = oar.max_pool2d(x, 3, stride=2, padding=1)
    dy = normal(*y.shape)
    got = oar.max_pool2d_backward(dy, positions, (5, 7))
    assert_gradient(got, lambda v: oar.max_pool2d(v, 3, stride=2, padding=1)[0], x, dy)

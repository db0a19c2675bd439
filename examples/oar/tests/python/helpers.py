"""What the tests share: random input, and gradients by finite differences."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.testing import assert_allclose
from numpy.typing import NDArray

Doubles = NDArray[np.float64]


def normal(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    """Return standard normal float32 values."""
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def numeric_gradient(
    function: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    x: NDArray[np.float32],
    dy: NDArray[np.float32],
    step: float = 1e-2,
) -> Doubles:
    """Return the gradient of ``sum(function(x) * dy)`` at x, by central differences.

    The sum is in double; float32 results leave an error of some 1e-5 / step.
    """
    gradient = np.empty(x.shape)
    for at in np.ndindex(x.shape):
        values: list[float] = []
        for sign in (1.0, -1.0):
            moved = x.copy()
            moved[at] += np.float32(sign * step)
            values.append(float(np.vdot(function(moved).astype(float), dy.astype(float))))
        gradient[at] = (values[0] - values[1]) / (2 * step)
    return gradient


def assert_gradient(
    got: NDArray[np.float32],
    function: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    x: NDArray[np.float32],
    dy: NDArray[np.float32],
) -> None:
    """Assert that `got` is the gradient of ``sum(function(x) * dy)`` at x, to three digits.

    A difference of float32 results over a step of 1e-2 is good to no more than that.
    """
    assert_allclose(got, numeric_gradient(function, x, dy), rtol=5e-3, atol=5e-3)

"""Ours, not PaddlePaddle's: what is installed computes and trains, on numbers known beforehand."""

from __future__ import annotations

import numpy as np
import paddle


def test_a_line_is_fitted_to_the_numbers_that_made_it() -> None:
    paddle.seed(0)
    generator = np.random.default_rng(0)
    inputs = generator.standard_normal((256, 3)).astype("float32")
    weights = np.array([[2.0], [-1.0], [0.5]], dtype="float32")
    x, y = paddle.to_tensor(inputs), paddle.to_tensor(inputs @ weights + 3.0)
    model = paddle.nn.Linear(3, 1)
    optimizer = paddle.optimizer.Adam(0.1, parameters=model.parameters())
    for _ in range(300):
        loss = paddle.nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
    np.testing.assert_allclose(model.weight.numpy(), weights, atol=1e-3)
    np.testing.assert_allclose(model.bias.numpy(), [3.0], atol=1e-3)


def test_gradients_of_a_convolution_are_those_of_finite_differences() -> None:
    generator = np.random.default_rng(1)
    image = generator.standard_normal((1, 1, 5, 5)).astype("float64")
    kernel = paddle.to_tensor(generator.standard_normal((1, 1, 3, 3)), dtype="float64")

    def total(pixels: np.ndarray) -> paddle.Tensor:
        x = paddle.to_tensor(pixels, stop_gradient=False)
        y = paddle.nn.functional.conv2d(x, kernel).tanh().sum()
        return x, y

    x, y = total(image)
    y.backward()
    step = 1e-6
    moved = image.copy()
    moved[0, 0, 2, 2] += step
    slope = (total(moved)[1] - y).item() / step
    np.testing.assert_allclose(x.grad.numpy()[0, 0, 2, 2], slope, rtol=1e-4)


def test_it_is_the_private_copy_that_is_imported() -> None:
    assert paddle.__version__ == "3.3.1"
    assert paddle.__file__.startswith("/usr/lib/paddle/")
    assert np.__file__.startswith("/usr/lib/paddle/")

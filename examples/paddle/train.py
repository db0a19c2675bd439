"""Train a small network on numbers made here: invoke run train.py --project examples/paddle."""

from __future__ import annotations

import argparse

import numpy as np
import paddle
from paddle import nn


def main() -> None:
    """Two interleaved half circles, told apart by a network of two layers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=200)
    epochs = parser.parse_args().epochs
    paddle.seed(0)
    generator = np.random.default_rng(0)
    angle = generator.uniform(0, np.pi, 1000)
    label = np.arange(1000) % 2
    moons = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    moons[label == 1] = [1.0, 0.5] - moons[label == 1]
    moons += generator.normal(scale=0.1, size=moons.shape)
    x, y = paddle.to_tensor(moons.astype("float32")), paddle.to_tensor(label)
    model = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 2))
    optimizer = paddle.optimizer.Adam(0.02, parameters=model.parameters())
    for epoch in range(1, epochs + 1):
        loss = nn.functional.cross_entropy(model(x[:800]), y[:800])
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        if epoch % 50 == 0 or epoch == epochs:
            right = (model(x[800:]).argmax(axis=1) == y[800:]).astype("float32").mean().item()
            print(f"epoch {epoch}: loss {loss.item():.3f}, accuracy {right:.3f}", flush=True)


if __name__ == "__main__":
    main()

"""Train a classifier of handwritten digits with Oar's kernels and NumPy.

The network: two 3x3 convolutions with GELU, 2x2 max pooling, a linear layer with layer norm and
GELU, and a linear layer to ten logits. Exit status: 0, or 1 when the test accuracy stays below the
target.
"""

from __future__ import annotations

import argparse
import math
import sys
import time

import numpy as np
import oar
from digits import CLASSES, Floats, Labels, load, shifted
from numpy.typing import NDArray


class Network:
    """The parameters, Adam's moments, and the two passes."""

    def __init__(self, random: np.random.Generator) -> None:
        def weight(*shape: int) -> Floats:
            values = random.standard_normal(shape, dtype=np.float32)
            values *= math.sqrt(2 / math.prod(shape[1:]))
            return values

        def zeros(n: int) -> Floats:
            return np.zeros(n, np.float32)

        self.parameters: dict[str, Floats] = {
            "conv1": weight(16, 1, 3, 3),
            "conv1_bias": zeros(16),
            "conv2": weight(32, 16, 3, 3),
            "conv2_bias": zeros(32),
            "hidden": weight(64, 32 * 4 * 4),
            "hidden_bias": zeros(64),
            "gamma": np.ones(64, np.float32),
            "beta": zeros(64),
            "output": weight(CLASSES, 64),
            "output_bias": zeros(CLASSES),
        }
        self.first = {name: np.zeros_like(value) for name, value in self.parameters.items()}
        self.second = {name: np.zeros_like(value) for name, value in self.parameters.items()}
        self.steps = 0

    def forward(self, images: Floats) -> tuple[Floats, dict[str, Floats], NDArray[np.int32]]:
        """Return the logits (count, 10), and what `gradients` needs: activations and positions."""
        p, a = self.parameters, {"images": images}
        a["conv1"] = oar.conv2d(images, p["conv1"], p["conv1_bias"], padding=1)
        a["gelu1"] = oar.gelu(a["conv1"])
        a["conv2"] = oar.conv2d(a["gelu1"], p["conv2"], p["conv2_bias"], padding=1)
        a["gelu2"] = oar.gelu(a["conv2"])
        pooled, positions = oar.max_pool2d(a["gelu2"], 2)
        a["flat"] = pooled.reshape(len(images), 32 * 4 * 4)
        a["hidden"] = oar.linear(a["flat"], p["hidden"], p["hidden_bias"])
        a["norm"], a["mean"], a["rstd"] = oar.layer_norm(a["hidden"], p["gamma"], p["beta"])
        a["gelu3"] = oar.gelu(a["norm"])
        logits = oar.linear(a["gelu3"], p["output"], p["output_bias"])
        return logits, a, positions

    def gradients(
        self, dlogits: Floats, a: dict[str, Floats], positions: NDArray[np.int32]
    ) -> dict[str, Floats]:
        """Return the gradient of each parameter, from that of the logits."""
        p, g = self.parameters, {}
        d, g["output"], g["output_bias"] = oar.linear_backward(dlogits, a["gelu3"], p["output"])
        d = oar.gelu_backward(d, a["norm"])
        d, g["gamma"], g["beta"] = oar.layer_norm_backward(
            d, a["hidden"], p["gamma"], a["mean"], a["rstd"]
        )
        d, g["hidden"], g["hidden_bias"] = oar.linear_backward(d, a["flat"], p["hidden"])
        d = oar.max_pool2d_backward(d.reshape(positions.shape), positions, (8, 8))
        d = oar.gelu_backward(d, a["conv2"])
        d, g["conv2"], g["conv2_bias"] = oar.conv2d_backward(d, a["gelu1"], p["conv2"], padding=1)
        d = oar.gelu_backward(d, a["conv1"])
        _, g["conv1"], g["conv1_bias"] = oar.conv2d_backward(d, a["images"], p["conv1"], padding=1)
        return g

    def train_on(self, images: Floats, labels: Labels, learning_rate: float) -> float:
        """Take one step of Adam on a batch; return its mean loss, in nats."""
        logits, activations, positions = self.forward(images)
        loss, probabilities = oar.softmax_cross_entropy(logits, labels)
        share = np.full(len(labels), 1 / len(labels), np.float32)
        dlogits = oar.softmax_cross_entropy_backward(share, probabilities, labels)
        self.steps += 1
        for name, gradient in self.gradients(dlogits, activations, positions).items():
            oar.adam_step(
                self.parameters[name],
                gradient,
                self.first[name],
                self.second[name],
                step=self.steps,
                learning_rate=learning_rate,
            )
        return float(loss.mean())

    def accuracy(self, images: Floats, labels: Labels) -> float:
        """Return the share of images that are read rightly, 0 to 1."""
        logits, _, _ = self.forward(images)
        return float((logits.argmax(axis=1) == labels).mean())


def positive(text: str) -> int:
    """Read a whole number from 1 on, for argparse."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {text}")
    return int(text)


def natural(text: str) -> int:
    """Read a whole number from 0 on, for argparse."""
    if int(text) < 0:
        raise argparse.ArgumentTypeError(f"expected at least 0, got {text}")
    return int(text)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--epochs", type=positive, default=8, help="passes over the training set")
    parser.add_argument("--batch", type=positive, default=32, help="images in one step")
    parser.add_argument(
        "--learning-rate", type=float, default=2e-3, help="Adam's, falling to 0 along a cosine"
    )
    parser.add_argument("--seed", type=natural, default=0, help="of weights, order and shifts")
    parser.add_argument("--threads", type=positive, help="that Oar may use; None: all CPUs")
    parser.add_argument(
        "--target", type=float, default=0.97, help="test accuracy below which to exit with 1"
    )
    return parser.parse_args()


def main() -> int:
    """Train, print progress, judge."""
    args = parse_arguments()
    if args.threads is not None:
        oar.set_num_threads(args.threads)
    info = oar.build_info()
    print(f"oar {info['version']}, {info['vector']}, {oar.get_num_threads()} threads")

    train_images, train_labels, test_images, test_labels = load()
    print(f"{len(train_labels)} training images, {len(test_labels)} test images")
    random = np.random.default_rng(args.seed)
    network = Network(random)
    batches = -(-len(train_labels) // args.batch)
    start = time.perf_counter()
    for epoch in range(args.epochs):
        order = random.permutation(len(train_labels))
        images = shifted(train_images, random)
        losses = []
        for batch in range(batches):
            chosen = order[batch * args.batch : (batch + 1) * args.batch]
            done = (epoch * batches + batch) / (args.epochs * batches)
            rate = args.learning_rate * 0.5 * (1 + np.cos(np.pi * done))
            losses.append(network.train_on(images[chosen], train_labels[chosen], rate))
        print(
            f"epoch {epoch + 1:2d}  loss {np.mean(losses):.4f}"
            f"  accuracy {network.accuracy(test_images, test_labels):.4f}",
            flush=True,
        )
    seconds = time.perf_counter() - start

    accuracy = network.accuracy(test_images, test_labels)
    print(f"test accuracy {accuracy:.4f} after {seconds:.1f} s")
    if accuracy < args.target:
        print(f"below the target of {args.target}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

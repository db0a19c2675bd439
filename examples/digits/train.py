"""Train a classifier of handwritten digits with PaddlePaddle, in one process or in many.

With N processes each takes an Nth of every batch and the gradients are averaged, so the steps are
those of one process up to rounding. Who they are stands in the variables that `invoke train` and
`invoke deploy` set; without these it is one. After each epoch all weights are compared across the
processes, and the first writes a checkpoint; a run that finds one goes on from there, with the
losses that an unbroken run would have had. Exit status: 0, or 1 when the test accuracy stays below
the target or weights differ.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

warnings.filterwarnings("ignore", message="No ccache found")  # nothing is compiled here
IMPORTING = time.perf_counter()

import numpy as np  # noqa: E402
import paddle  # noqa: E402
import paddle.distributed as dist  # noqa: E402
import paddle.nn.functional as F  # noqa: E402, N812
from digits import CLASSES, load, shifted  # noqa: E402
from paddle import nn  # noqa: E402

IMPORTED_S = time.perf_counter() - IMPORTING


class Network(nn.Layer):
    """Two 3x3 convolutions, max pooling, and two linear layers to ten logits.

    Nothing in it depends on the rest of the batch, so a batch may be split.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2D(1, 16, 3, padding=1)
        self.conv2 = nn.Conv2D(16, 32, 3, padding=1)
        self.hidden = nn.Linear(32 * 4 * 4, 64)
        self.norm = nn.LayerNorm(64)
        self.output = nn.Linear(64, CLASSES)

    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        """Return the logits (count, 10) of images (count, 1, 8, 8)."""
        x = F.gelu(self.conv2(F.gelu(self.conv1(images))))
        x = F.max_pool2d(x, 2).flatten(1)
        return self.output(F.gelu(self.norm(self.hidden(x))))


class Team:
    """The processes that train together; one alone needs no network."""

    def __init__(self) -> None:
        self.size = int(os.environ.get("PADDLE_TRAINERS_NUM", "1"))
        if self.size > 1:
            dist.init_parallel_env()
        self.rank = dist.get_rank() if self.size > 1 else 0

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Add float32 arrays of one shape up over all processes."""
        total = paddle.to_tensor(values)
        if self.size > 1:
            dist.all_reduce(total)
        return total.numpy()

    def from_first(self, value: Any) -> Any:
        """Give every process what the first one has."""
        values = [value]
        if self.size > 1:
            dist.broadcast_object_list(values, src=0)
        return values[0]

    def agrees(self, network: Network) -> bool:
        """Whether the weights are the same, bit by bit, in every process."""
        digest = hashlib.sha256()
        for _, weight in sorted(network.state_dict().items()):
            digest.update(weight.numpy().tobytes())
        mine = paddle.to_tensor(np.frombuffer(digest.digest(), np.uint8).astype(np.int32))
        every = [mine]
        if self.size > 1:
            dist.all_gather(every := [], mine)
        return all(bool((one == mine).all()) for one in every)


class Checkpoint:
    """What a run needs to go on: one file, which is replaced whole after each epoch."""

    def __init__(self, directory: Path | None) -> None:
        self.file = directory / "checkpoint.pd" if directory else None

    def read(self) -> dict[str, Any] | None:
        """Return what was written last."""
        return paddle.load(str(self.file)) if self.file and self.file.exists() else None

    def write(self, epoch: int, network: Network, optimizer: Any, losses: list[float]) -> None:
        """Write it, and beside it the losses so far, a line for each step."""
        if not self.file:
            return
        beside = self.file.with_suffix(".new")
        state = {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
        paddle.save({"epoch": epoch, "losses": losses, **state}, str(beside))
        beside.replace(self.file)
        lines = [f"{step},{loss:.6f}\n" for step, loss in enumerate(losses, 1)]
        self.file.with_name("losses.csv").write_text("".join(["step,loss\n", *lines]))


def accuracy(network: Network, images: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of images that are read rightly, 0 to 1."""
    with paddle.no_grad():
        logits = network(paddle.to_tensor(images)).numpy()
    return float((logits.argmax(axis=1) == labels).mean())


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--epochs", type=int, default=8, help="passes over the training set")
    parser.add_argument("--batch", type=int, default=32, help="images in one step, of all together")
    parser.add_argument(
        "--learning-rate", type=float, default=2e-3, help="Adam's, falling to 0 along a cosine"
    )
    parser.add_argument("--seed", type=int, default=0, help="of weights, order and shifts")
    parser.add_argument(
        "--target", type=float, default=0.97, help="test accuracy below which to exit with 1"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=os.environ.get("SLIPWAY_OUT"),
        help="directory of checkpoint and losses; None: nothing is kept",
    )
    return parser.parse_args()


def main() -> int:
    """Train, print progress, judge."""
    args = parse_arguments()
    team = Team()
    if args.batch < team.size:
        print(f"--batch {args.batch} is less than {team.size} processes", file=sys.stderr)
        return 2

    def say(text: str) -> None:
        if team.rank == 0:
            print(text, flush=True)

    say(f"paddle {paddle.__version__}, imported in {IMPORTED_S:.1f} s; {team.size} processes")
    train_images, train_labels, test_images, test_labels = load()
    paddle.seed(args.seed)
    network = Network()
    together = paddle.DataParallel(network) if team.size > 1 else network
    optimizer = paddle.optimizer.Adam(args.learning_rate, parameters=network.parameters())
    checkpoint = Checkpoint(args.out)
    known = team.from_first(checkpoint.read() if team.rank == 0 else None)
    first, losses = 0, []
    if known:
        network.set_state_dict(known["network"])
        optimizer.set_state_dict(known["optimizer"])
        first, losses = known["epoch"], known["losses"]
        say(f"going on after epoch {first}")

    batches = -(-len(train_labels) // args.batch)
    for epoch in range(first, args.epochs):
        # Of the epoch, not of what came before: a run that goes on draws the same.
        random = np.random.default_rng([args.seed, epoch])
        order = random.permutation(len(train_labels))
        images = shifted(train_images, random)
        sums = np.zeros(batches, np.float32)
        for batch in range(batches):
            chosen = order[batch * args.batch : (batch + 1) * args.batch]
            mine = np.array_split(chosen, team.size)[team.rank]
            done = (epoch * batches + batch) / (args.epochs * batches)
            optimizer.set_lr(args.learning_rate * 0.5 * (1 + np.cos(np.pi * done)))
            logits = together(paddle.to_tensor(images[mine]))
            loss = F.cross_entropy(logits, paddle.to_tensor(train_labels[mine]), reduction="sum")
            # Shares may differ by one image: the mean over processes is then still that of all.
            (loss * (team.size / len(chosen))).backward()
            optimizer.step()
            optimizer.clear_grad()
            sums[batch] = float(loss) / len(chosen)
            if epoch == first and batch == 0:
                say("first step")
        losses += team.sum(sums).tolist()
        if not team.agrees(network):
            print(f"weights differ after epoch {epoch + 1}", file=sys.stderr)
            return 1
        if team.rank == 0:
            checkpoint.write(epoch + 1, network, optimizer, losses)
        now = accuracy(network, test_images, test_labels)
        say(f"epoch {epoch + 1:2d}  loss {np.mean(losses[-batches:]):.4f}  accuracy {now:.4f}")

    final = accuracy(network, test_images, test_labels)
    say(f"test accuracy {final:.4f}, equal weights in {team.size} processes")
    if final < args.target:
        say(f"below the target of {args.target}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

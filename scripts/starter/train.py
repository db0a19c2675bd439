"""Fit a line with PaddlePaddle, in one process or in many: a start for an application of yours.

Who the processes are stands in variables that `invoke train` and `invoke deploy` set; without them
it is one. What is written to $SLIPWAY_OUT stays, and a run that finds a checkpoint goes on from it.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import paddle
import paddle.distributed as dist

CHECKPOINT = Path(os.environ.get("SLIPWAY_OUT", "."), "checkpoint.pd")
SLOPE, BEGIN = 3.0, -1.0


def main() -> None:
    """Take steps of gradient descent, each process on points of its own."""
    parser = argparse.ArgumentParser(description="Fit a line.")
    parser.add_argument("--steps", type=int, default=200)
    steps = parser.parse_args().steps
    rank, size = dist.get_rank(), dist.get_world_size()
    if size > 1:
        dist.init_parallel_env()

    paddle.seed(0)  # the same weights everywhere, to begin with
    model = paddle.nn.Linear(1, 1)
    together = paddle.DataParallel(model) if size > 1 else model
    optimizer = paddle.optimizer.SGD(0.1, parameters=model.parameters())
    first = 0
    if CHECKPOINT.exists():
        state = paddle.load(str(CHECKPOINT))
        first = state.pop("step")
        model.set_state_dict(state)
    for step in range(first, steps):
        x = np.random.default_rng([step, rank]).uniform(-1, 1, (32, 1)).astype(np.float32)
        points, values = paddle.to_tensor(x), paddle.to_tensor(SLOPE * x + BEGIN)
        loss = paddle.nn.functional.mse_loss(together(points), values)
        loss.backward()  # here the gradients are averaged over all processes
        optimizer.step()
        optimizer.clear_grad()
        if rank == 0 and (step + 1) % 50 == 0:
            print(f"step {step + 1}: loss {float(loss):.6f}", flush=True)
            paddle.save({**model.state_dict(), "step": step + 1}, f"{CHECKPOINT}.new")
            Path(f"{CHECKPOINT}.new").replace(CHECKPOINT)  # whole, or the one before
    if rank == 0:
        weight, bias = model.weight.item(), model.bias.item()
        print(f"y = {weight:.3f} x + {bias:.3f}, by {size} process{'es' * (size > 1)}")


if __name__ == "__main__":
    main()

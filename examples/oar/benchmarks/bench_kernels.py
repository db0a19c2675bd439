"""Time Oar's heavy kernels, and print seconds per call as JSON.

Run it once per variant, on one quiet machine, to compare their instruction sets. NumPy's matmul on
the sizes of `linear` stands beside them as a yardstick; it picks its instructions at run time.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
import oar

BATCH, IN, OUT = 512, 1024, 1024
IMAGES, CHANNELS, SIZE, KERNEL = 16, 64, 56, 3
LINEAR_FLOPS = 2 * BATCH * IN * OUT
CONV_FLOPS = 2 * IMAGES * CHANNELS * CHANNELS * SIZE * SIZE * KERNEL * KERNEL


def best_seconds(call: Callable[[], object], repeat: int) -> float:
    """Return the shortest of `repeat` timed calls, in seconds, after one that is not timed."""
    call()
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def kernels() -> dict[str, tuple[Callable[[], object], int]]:
    """Return what is timed: a call, and its floating-point operations."""
    random = np.random.default_rng(0)

    def normal(*shape: int) -> oar.ops.FloatArray:
        return random.standard_normal(shape, dtype=np.float32)

    x, weight, bias, dy = normal(BATCH, IN), normal(OUT, IN), normal(OUT), normal(BATCH, OUT)
    image = normal(IMAGES, CHANNELS, SIZE, SIZE)
    filters = normal(CHANNELS, CHANNELS, KERNEL, KERNEL)
    dimage = normal(IMAGES, CHANNELS, SIZE, SIZE)
    return {
        "linear": (lambda: oar.linear(x, weight, bias), LINEAR_FLOPS),
        "linear_backward": (lambda: oar.linear_backward(dy, x, weight), 2 * LINEAR_FLOPS),
        "conv2d": (lambda: oar.conv2d(image, filters, padding=1), CONV_FLOPS),
        "conv2d_backward": (
            lambda: oar.conv2d_backward(dimage, image, filters, padding=1),
            2 * CONV_FLOPS,
        ),
        "numpy_matmul": (lambda: x @ weight.T, LINEAR_FLOPS),
    }


def main() -> None:
    """Parse the command line, time, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeat", type=int, default=10, help="timed calls each; the best counts")
    parser.add_argument("--threads", type=int, help="threads for Oar (default: all)")
    args = parser.parse_args()
    if args.repeat < 1:
        parser.error("--repeat must be at least 1")
    if args.threads is not None:
        oar.set_num_threads(args.threads)

    seconds, gflops = {}, {}
    for name, (call, flops) in kernels().items():
        seconds[name] = best_seconds(call, args.repeat)
        gflops[name] = round(flops / seconds[name] / 1e9, 1)
    report = {
        "build": oar.build_info(),
        "threads": oar.get_num_threads(),
        "seconds": seconds,
        "gflops": gflops,
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()

"""The digits: how they are read from the file, split, and moved about; for all that learns them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

DATA = Path(__file__).resolve().parent / "data" / "digits.csv.gz"
TRAIN_IMAGES = 1437  # of 1797: four in five
SPLIT_SEED = 20170401  # a property of the task, not of a run
CLASSES = 10

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]


def load() -> tuple[Floats, Labels, Floats, Labels]:
    """Return training images and labels, then test images and labels.

    Images are (count, 1, 8, 8), scaled from 0..16 to about -1..1; labels are 0 to 9.
    """
    table = np.loadtxt(DATA, delimiter=",", dtype=np.int64)
    table = np.random.default_rng(SPLIT_SEED).permutation(table)
    images = (table[:, :-1].reshape(-1, 1, 8, 8) / 8 - 1).astype(np.float32)
    labels = np.ascontiguousarray(table[:, -1])
    train, test = slice(TRAIN_IMAGES), slice(TRAIN_IMAGES, None)
    return images[train], labels[train], images[test], labels[test]


def shifted(images: Floats, random: np.random.Generator) -> Floats:
    """Return the images, each moved by up to one pixel along each axis; -1 is the background."""
    wide = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-1)
    rows, columns = random.integers(0, 3, (2, len(images)))
    return np.stack(
        [
            image[:, row : row + 8, column : column + 8]
            for image, row, column in zip(wide, rows, columns, strict=True)
        ]
    )

"""The cases of `ingredient_values.npz`, which `regenerate_ingredients.py` computes."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

VALUES = Path(__file__).parent / "ingredient_values.npz"


class DropBlockCase(NamedTuple):
    """A call of timm's ``drop_block_2d`` on float64[3, H, W, 4]."""

    shape: tuple[int, int]
    rate: float
    size: int
    gamma_scale: float


# Squares of odd and even size, and images that are smaller than the square along one axis or both.
DROP_BLOCK = (
    DropBlockCase((14, 14), 0.1, 5, 0.25),
    DropBlockCase((7, 7), 0.3, 3, 1.0),
    DropBlockCase((9, 6), 0.2, 4, 1.0),
    DropBlockCase((4, 2), 0.2, 7, 1.0),
)

NETWORK = "test_resnet"
"""A network of timm with basic blocks and bottlenecks."""
RATES = ({"drop_block_rate": 0.3}, {"drop_path_rate": 0.4})
BLURRED = ("ffcv", "composer")
BLURRED_SIZE = (45, 64)


def noise(shape: tuple[int, ...], probability: float) -> np.ndarray:
    """Return the same random booleans for the same shape and probability."""
    seed = (*shape, round(1e6 * probability))
    return np.random.Generator(np.random.PCG64(seed)).random(shape) < probability


def pixels(case: DropBlockCase) -> np.ndarray:
    """Return float64[3, H, W, 4]."""
    return np.random.Generator(np.random.PCG64(0)).standard_normal((3, *case.shape, 4))

"""Parameters, gradients and learning rates for the comparison of optimizers.

The reference values were made from them, see `regenerate_optimizers.py`.
"""

import numpy as np

STEPS = 20
PEAKS = {
    "sgd": 0.1,
    "sgdw": 0.1,
    "sgd_schedule": 0.4,
    "sgd_bfloat16": 0.1,
    "adamw": 1e-2,
    "lamb": 5e-2,
    "lars": 10.0,
    "rmsprop": 1e-2,
    "lion": 1e-2,
    "muon": 0.05,
}
"""Peak learning rate of each optimizer."""

SHAPES = {
    ("stem", "conv", "kernel"): (3, 3, 4, 6),
    ("stem", "norm", "scale"): (6,),
    ("stem", "norm", "bias"): (6,),
    # More output channels than inputs.
    ("stage1", "block1", "conv1", "kernel"): (1, 1, 6, 10),
    ("head", "kernel"): (10, 3),
    ("head", "bias"): (3,),
}
"""Shapes of the parameters: convolutions are [H, W, I, O] and the head is [I, O]."""


def parameters() -> dict[tuple[str, ...], np.ndarray]:
    """Return the initial parameters, float64."""
    rng = np.random.default_rng(0)
    return {path: rng.normal(0.0, 0.3, shape) for path, shape in SHAPES.items()}


def gradients(step: int) -> dict[tuple[str, ...], np.ndarray]:
    """Return the gradients of a step, float64, whose norms differ from step to step."""
    rng = np.random.default_rng(1 + step)
    size = 0.1 ** (step % 3)
    return {path: rng.normal(0.0, size, shape) for path, shape in SHAPES.items()}


def rates(peak: float) -> np.ndarray:
    """Return the learning rate of each step, float64[STEPS], with a warm-up and half a cosine."""
    step = np.arange(STEPS)
    cosine = 0.5 * (1 + np.cos(np.pi * (step - 5) / STEPS))
    return peak * np.where(step < 5, (step + 1) / 6, cosine)

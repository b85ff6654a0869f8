"""Networks, images and classes of the stored reference values of explanations.

`regenerate_explain.py` computes the values with PyTorch, and `test_explain.py` compares them.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tests.golden import golden

VALUES = Path(__file__).with_name("explain_values.npz")
"""Pixels of heatmaps and attributions, and for each network the names and shapes of its weights."""

STRIDE = 9
"""Distance in pixels between the stored pixels."""

CAM_METHODS = ("grad-cam", "grad-cam++")

STEPS = 8
"""Number of points of integrated gradients."""

SIZE = (64, 96)
"""Height and width of the images, which differ so that they cannot be confused."""

TARGETS = (3, 1)
"""The class that is explained for each of the two images."""

NUM_CLASSES = 5


class Case(NamedTuple):
    """A small network.

    Attributes:
        name: Name of the network, here and in timm.
        timm: Arguments of ``timm.create_model``.
        ours: Arguments of `resnet_jax.create_model`.
    """

    name: str
    timm: Mapping[str, Any]
    ours: Mapping[str, Any]


CASES = (
    Case(
        "resnet18",
        {
            "layers": (1, 1, 1, 1),
            "channels": (8, 16, 32, 64),
            "stem_type": "deep",
            "stem_width": 4,
        },
        {
            "stage_sizes": (1, 1, 1, 1),
            "width": 8,
            "stem_widths": (4, 4, 8),
            "stem_kernel_size": 3,
        },
    ),
    Case(
        "resnet50",
        {
            "layers": (1, 1, 1, 1),
            "channels": (8, 16, 32, 64),
            "stem_type": "deep",
            "stem_width": 4,
            "global_pool": "avgmax",
        },
        {
            "stage_sizes": (1, 1, 1, 1),
            "width": 8,
            "stem_widths": (4, 4, 8),
            "stem_kernel_size": 3,
            "global_pool": "avgmax",
        },
    ),
    Case(
        "resnetv2_50",
        {"layers": (1, 1, 1, 1), "channels": (32, 64, 128, 256), "stem_chs": 8},
        {"stage_sizes": (1, 1, 1, 1), "width": 8, "stem_widths": (8,)},
    ),
)

STAGES = (2, 4)
"""Stages whose outputs are weighed, by Grad-CAM and Grad-CAM++."""


def images() -> np.ndarray:
    """Return the two images, float32[2, H, W, 3]."""
    return golden.images(2, SIZE)


def weights(values: Mapping[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """Return the weights of a case by their names in timm."""
    shapes = json.loads(str(values[f"{name}/shapes"]))
    return {tensor: golden.tensor(tensor, tuple(shape)) for tensor, shape in shapes.items()}

"""Configuration of which training images an epoch visits."""

import dataclasses
from typing import Literal

from resnet_jax.config.validation import require_positive

ClassSampling = Literal["uniform", "balanced", "square_root"]
"""How often the images of each class are drawn."""


@dataclasses.dataclass(frozen=True)
class SamplingConfig:
    """Which training images an epoch visits, and how often."""

    classes: ClassSampling = "uniform"
    """How often each class is drawn. "uniform" visits every image once in an epoch. "balanced"
    draws every class equally often, and "square_root" in proportion to the square root of its
    number of images, which repeats the images of small classes less. An epoch has the same length
    in all cases, and the images of a class are drawn equally often."""
    epoch_multiple: int = 1
    """Number of images of which the length of an epoch is a multiple. The length is rounded down,
    so each epoch leaves out a few images, which differ from epoch to epoch. 256 gives the epochs of
    torchvision and timm with repeated augmentation. The batch size gives the epochs of loaders that
    drop the last batch. 1 leaves out no images."""

    def __post_init__(self) -> None:
        require_positive(self, "epoch_multiple")

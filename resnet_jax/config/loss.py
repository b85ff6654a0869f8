"""Configuration of the loss."""

import dataclasses
from typing import ClassVar

from resnet_jax.config.validation import require


@dataclasses.dataclass(frozen=True)
class SoftmaxConfig:
    """Softmax cross entropy."""

    kind: ClassVar[str] = "softmax"

    label_smoothing: float = 0.0
    """Share of each target that is spread evenly over all classes, from 0 to below 1."""

    def __post_init__(self) -> None:
        require(
            0 <= self.label_smoothing < 1,
            f"label_smoothing must be in [0, 1), but it is {self.label_smoothing}",
        )


LossConfig = SoftmaxConfig
"""Every loss."""

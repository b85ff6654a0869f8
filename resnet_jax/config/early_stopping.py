"""Configuration of early stopping."""

import dataclasses
from typing import Literal

from resnet_jax.config.validation import require_positive


@dataclasses.dataclass(frozen=True)
class EarlyStoppingConfig:
    """When a run ends before its last epoch, and which of its checkpoints counts."""

    patience: int | None = None
    """Number of evaluations in a row without an improvement after which the run ends. The best
    checkpoint is then evaluated and used, also if the run reaches its last epoch. It needs a
    validation split. None trains all epochs and uses the last step."""
    metric: Literal["top1", "top5", "loss"] = "top1"
    """Metric of the validation split that has to improve: a higher top-1 or top-5 accuracy, or a
    lower loss, which is the softmax cross entropy, whatever the loss of training is. If the split
    is small, the loss shows the smallest changes. This metric also chooses the best checkpoints,
    even without early stopping."""

    def __post_init__(self) -> None:
        if self.patience is not None:
            require_positive(self, "patience")

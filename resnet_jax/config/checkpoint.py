"""Configuration of the checkpoints of a run."""

import dataclasses

from resnet_jax.config.validation import require_not_negative, require_positive


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """When checkpoints are written and which ones are kept."""

    every_steps: int = 1000
    """Number of steps from one checkpoint to the next. The last step is always saved."""
    every_minutes: float = 10.0
    """Also save if this many minutes have passed since the last checkpoint; 0 turns this off."""
    keep_latest: int = 2
    """Number of newest checkpoints to keep."""
    keep_best: int = 1
    """Number of best checkpoints to keep. They are chosen by early_stopping.metric on the
    validation split, or by the training loss if the data have no validation split. Test images
    never take part in the choice."""

    def __post_init__(self) -> None:
        require_positive(self, "every_steps", "keep_latest")
        require_not_negative(self, "every_minutes", "keep_best")

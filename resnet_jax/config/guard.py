"""Configuration of the guard against steps that are not finite."""

import dataclasses

from resnet_jax.config.validation import require_positive


@dataclasses.dataclass(frozen=True)
class GuardConfig:
    """What happens if the loss or a gradient of a step is infinite or not a number."""

    skip: bool | None = None
    """Skip such a step. A skipped step changes no parameters, running statistics, averages or
    moments of the optimizer. The run goes on with the next batch and its learning rate. False ends
    the run instead. None skips steps in float16 only, where overflows are a normal part of loss
    scaling."""
    max_in_a_row: int = 20
    """Number of skipped steps in a row after which the run ends. It is checked whenever the metrics
    are recorded, which is every log_every_steps steps."""

    def __post_init__(self) -> None:
        require_positive(self, "max_in_a_row")

"""Configuration of gradient clipping."""

import dataclasses

from resnet_jax.config.validation import require_positive


@dataclasses.dataclass(frozen=True)
class ClipConfig:
    """Limits of the gradients that the optimizer uses. They apply in the order of the fields."""

    global_norm: float | None = None
    """Largest norm of all gradients together. Gradients with a larger norm are scaled down to it.
    None sets no limit."""
    value: float | None = None
    """Largest magnitude of each number in the gradients. Larger numbers are reduced to it. None
    sets no limit."""
    adaptive: float | None = None
    """Largest norm of the gradient of each output channel, as a share of the norm of the channel's
    weights (Brock et al. 2021). The gradients of the head are not limited. 0.01 is usual. None sets
    no limit."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if getattr(self, field.name) is not None:
                require_positive(self, field.name)

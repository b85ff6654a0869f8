"""Configuration of sharpness-aware minimization."""

import dataclasses

from resnet_jax.config.validation import require_not_negative, require_positive


@dataclasses.dataclass(frozen=True)
class SamConfig:
    """Gradients at the worst parameters nearby, which find flatter minima (Foret et al. 2020)."""

    rho: float = 0.0
    """Distance to the worst parameters nearby, as a Euclidean norm. 0 turns it off. 0.05 is usual
    with the gradient of the whole batch, and Composer's recipes use 0.5."""
    interval: int = 1
    """Number of steps from one step with such a gradient to the next. Such a step takes about twice
    as long as a plain one. All other steps are plain."""

    def __post_init__(self) -> None:
        require_not_negative(self, "rho")
        require_positive(self, "interval")

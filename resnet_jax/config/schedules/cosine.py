"""The cosine schedule."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from resnet_jax.config.schedules.warmup import WarmupConfig

if TYPE_CHECKING:
    import optax


@dataclasses.dataclass(frozen=True)
class CosineConfig(WarmupConfig):
    """Linear warm-up, then half a cosine from the peak down to zero."""

    kind: ClassVar[str] = "cosine"

    def create(
        self, peak: float, *, epochs: float, steps: Callable[[float], int]
    ) -> optax.Schedule:
        """Return the learning rate by step.

        Args:
            peak: learning rate at the end of the warm-up.
            epochs: length of the run.
            steps: from a number of epochs to the nearest number of steps.
        """
        import optax

        warmup_steps = self.warmup_steps(epochs, steps)
        return optax.warmup_cosine_decay_schedule(
            init_value=0.0 if warmup_steps else peak,
            peak_value=peak,
            warmup_steps=warmup_steps,
            decay_steps=steps(epochs),
        )

"""Configuration of gradient clipping."""

import dataclasses

from resnet_jax.config.validation import require_positive


@dataclasses.dataclass(frozen=True)
class ClipConfig:
    """Limits of gradients, before the optimizer uses them. Several apply in the order of fields."""

    global_norm: float | None = None
    """Largest norm of all gradients together. Larger ones are scaled down to it. None turns it
    off."""
    value: float | None = None
    """Largest magnitude of each number. None turns it off."""
    adaptive: float | None = None
    """Largest norm of the gradient of each output channel, as a share of the norm of its weights
    (Brock et al. 2021). The head is not clipped. 0.01 is usual. None turns it off."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if getattr(self, field.name) is not None:
                require_positive(self, field.name)

"""Configuration of fine-tuning: which parameters are trained, when, and how fast."""

import dataclasses
import re

from resnet_jax.config.validation import ConfigError, require, require_not_negative


@dataclasses.dataclass(frozen=True)
class FinetuneConfig:
    """What differs between the layers when a trained network is trained further."""

    freeze: tuple[str, ...] = ()
    """Regular expressions such as "stem" and "stage[12]/.*norm". Parameters whose path starts with
    a match are not trained."""
    freeze_statistics: bool = True
    """BatchNorm layers whose scale and bias are frozen also use their running statistics in
    training, and do not update them. False lets the statistics follow the new images."""
    layer_decay: float = 1.0
    """Factor of the learning rate from each block to the one before it. The head trains at the
    full rate. 0.5 to 1 is usual for fine-tuning; 1 trains all layers alike."""
    head_epochs: float = 0.0
    """Number of epochs at the beginning in which only the head is trained, at the peak learning
    rate. The network then computes as in evaluation: BatchNorm uses its running statistics, and
    nothing is dropped. The schedule begins after them. 0 trains the whole network from the first
    step on."""

    @property
    def freezes_statistics(self) -> bool:
        """Whether running statistics of BatchNorm layers may be frozen."""
        return bool(self.freeze) and self.freeze_statistics

    def __post_init__(self) -> None:
        require_not_negative(self, "head_epochs")
        require(
            0 < self.layer_decay <= 1,
            f"layer_decay must be in (0, 1], but it is {self.layer_decay}",
        )
        for pattern in self.freeze:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ConfigError(
                    f"freeze: {pattern!r} is not a regular expression: {error}"
                ) from None
        if self.head_epochs > 0:
            require(
                not any(re.match(pattern, "head/kernel") for pattern in self.freeze),
                f"head_epochs {self.head_epochs:g} trains only the head, which freeze "
                f"{self.freeze} freezes; set head_epochs to 0, or leave the head out of freeze",
            )

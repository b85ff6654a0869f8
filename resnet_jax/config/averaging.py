"""Configuration of the averages of parameters and running statistics."""

import dataclasses
from typing import Literal

from resnet_jax.config.validation import (
    require,
    require_not_negative,
    require_positive,
    require_share,
)


@dataclasses.dataclass(frozen=True)
class AveragingConfig:
    """Averages of the parameters over the steps of a run, which are evaluated and reported.

    ``decay`` and ``half_life_steps`` make exponential moving averages, and ``equal_weights`` makes
    an average with equal weights. At most one of them is set.
    """

    decay: float = 0.0
    """Share of the averages that an update keeps, from 0 to below 1. 0 turns them off; 0.9999 is
    usual for ImageNet."""
    half_life_steps: float = 0.0
    """Number of steps after which the weight of a state in the averages has halved. It replaces
    decay. The averages begin as a copy of the parameters after the first step, as in Composer. 0
    uses decay."""
    equal_weights: bool = False
    """Give equal weights to all states that an update has seen since start_epoch (stochastic weight
    averaging, SWA). This is usually combined with every_steps "epoch"."""
    warmup: Literal["none", "tensorflow", "timm", "torchvision"] = "none"
    """How the averages forget the initial parameters. "none" uses a constant decay from the
    beginning. "tensorflow" keeps at most (1 + t) / (10 + t) of the averages after t steps. "timm"
    copies the parameters in the first step, and then keeps at most
    1 - (1 + t / warmup_gamma)^(-2/3) of the averages. "torchvision" copies the parameters in the
    first update, and multiplies 1 - decay by batch_size * every_steps / epochs."""
    warmup_gamma: float = 1.0
    """Number of steps by which timm's warm-up is stretched. Only warmup "timm" uses it."""
    every_steps: int | Literal["epoch"] = 1
    """Number of steps from one update of the averages to the next. "epoch" updates them after the
    last step of each epoch. With warmup "torchvision", the count starts anew in each epoch, and the
    first step of each epoch is always followed by an update."""
    start_epoch: float = 0.0
    """Number of epochs before the averages begin. Until then they are copies of the parameters.
    The warm-up of the averages begins at this epoch too."""
    statistics: Literal["averaged", "copied", "recomputed"] = "averaged"
    """Running statistics of BatchNorm that belong to the averages. "averaged" averages them as
    well. "copied" copies those of the step at the last update. "recomputed" computes them anew
    before each evaluation and each checkpoint, from recompute_batches batches of training
    images."""
    recompute_batches: int = 50
    """Number of training batches from which statistics are recomputed. They are always the first
    batches of the run. It has an effect only if statistics is "recomputed"."""

    def __post_init__(self) -> None:
        require_share(self, "decay")
        require_not_negative(self, "half_life_steps", "start_epoch")
        require_positive(self, "warmup_gamma", "recompute_batches")
        if self.every_steps != "epoch":
            require_positive(self, "every_steps")
        chosen = [
            name for name in ("decay", "half_life_steps", "equal_weights") if getattr(self, name)
        ]
        require(
            len(chosen) <= 1,
            f"averaging.{' and averaging.'.join(chosen)} exclude each other; set only one of them",
        )
        require(
            self.decay > 0 or self.warmup == "none",
            'averaging.warmup needs averaging.decay above 0; set it, or warmup to "none"',
        )
        require(
            self.warmup == "timm" or self.warmup_gamma == 1,
            'averaging.warmup_gamma needs warmup "timm"; set it, or warmup_gamma to 1',
        )
        usual = type(self).recompute_batches
        require(
            self.statistics == "recomputed" or self.recompute_batches == usual,
            'averaging.recompute_batches needs statistics "recomputed"; set it, or '
            f"recompute_batches to {usual}",
        )
        require(
            self.warmup != "torchvision" or self.every_steps != "epoch",
            'averaging.every_steps must be a number with warmup "torchvision", whose decay depends '
            "on it; torchvision's default is 32",
        )
        for name in ("every_steps", "start_epoch", "statistics"):
            default = {field.name: field.default for field in dataclasses.fields(self)}[name]
            require(
                bool(chosen) or getattr(self, name) == default,
                f"averaging.{name} needs averages; set averaging.decay, half_life_steps or "
                "equal_weights",
            )

    @property
    def enabled(self) -> bool:
        """Whether there are averages."""
        return self.decay > 0 or self.half_life_steps > 0 or self.equal_weights

"""LARS."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar, Literal

from resnet_jax.config.optimizers.base import BaseOptimizerConfig
from resnet_jax.config.optimizers.decay import DecayOn
from resnet_jax.config.optimizers.parameters import Parameters
from resnet_jax.config.validation import (
    require,
    require_not_negative,
    require_positive,
    require_share,
)

if TYPE_CHECKING:
    import jax
    import optax


@dataclasses.dataclass(frozen=True)
class LarsConfig(BaseOptimizerConfig):
    """LARS (You et al. 2017): SGD with updates in proportion to the norms of the parameters."""

    kind: ClassVar[str] = "lars"

    learning_rate: float = 10.0
    momentum: float = 0.9
    """Share of the previous update that is kept, from 0 to below 1."""
    nesterov: bool = False
    """Use Nesterov momentum."""
    weight_decay: float = 5e-5
    """Weight decay. The parameter times this value is added to its gradient."""
    decay_on: DecayOn = "kernels"
    """Parameters that decay, and whose updates are scaled to the norm of the parameter. "kernels"
    chooses the kernels of convolutions and dense layers, "all" also chooses scales and biases,
    "all_but_norm" chooses all but those of normalization layers, and "all_but_named_norm" also
    chooses the normalization layers of shortcuts. All other parameters are updated as by SGD
    without decay."""
    trust_coefficient: float = 0.001
    """Norm of an update as a share of the norm of its parameter, at a learning rate of 1 and
    without momentum."""
    epsilon: float = 0.0
    """Number that is added to the norm of the gradient. MLPerf uses 0, and timm uses 1e-8."""
    learning_rate_in: Literal["momentum", "update"] = "momentum"
    """Where the learning rate applies. "momentum" multiplies each gradient before it enters the
    momentum, as in TensorFlow and MLPerf. "update" multiplies the momentum, as in timm. The two
    differ when the learning rate changes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "trust_coefficient")
        require_not_negative(self, "epsilon")
        require_share(self, "momentum")
        require(
            self.momentum > 0 or not self.nesterov,
            "nesterov needs momentum above 0; set momentum, or nesterov to False",
        )

    def create(
        self, learning_rate: optax.ScalarOrSchedule, parameters: Parameters
    ) -> optax.GradientTransformation:
        """Return the optimizer, which equals its reference; see `SGDConfig.create`.

        The references are TensorFlow's ``LARSOptimizer``, which MLPerf uses, and timm's ``Lars``.
        `optax.lars` divides by the norm of the sum of gradient and decay, whereas the references
        divide by the sum of the two norms.
        """
        import jax.numpy as jnp
        import optax

        def adapt(gradient: jax.Array, parameter: jax.Array) -> jax.Array:
            norm, gradient_norm = jnp.linalg.norm(parameter), jnp.linalg.norm(gradient)
            is_defined = (norm > 0) & (gradient_norm > 0)
            divisor = gradient_norm + self.weight_decay * norm + self.epsilon
            ratio = self.trust_coefficient * norm / jnp.where(is_defined, divisor, 1)
            return (gradient + self.weight_decay * parameter) * jnp.where(is_defined, ratio, 1)

        scale = optax.scale_by_learning_rate(learning_rate)
        trace = optax.trace(self.momentum, self.nesterov) if self.momentum else optax.identity()
        inside = self.learning_rate_in == "momentum"
        return optax.chain(
            parameters.transform_decayed(adapt), *((scale, trace) if inside else (trace, scale))
        )

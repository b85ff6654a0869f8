"""LAMB."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

from resnet_jax.config.optimizers.base import BaseOptimizerConfig
from resnet_jax.config.optimizers.decay import DecayOn
from resnet_jax.config.optimizers.parameters import Parameters
from resnet_jax.config.validation import require_positive, require_share

if TYPE_CHECKING:
    import jax
    import optax


@dataclasses.dataclass(frozen=True)
class LambConfig(BaseOptimizerConfig):
    """LAMB (You et al. 2020): Adam with updates in proportion to the norms of the parameters."""

    kind: ClassVar[str] = "lamb"

    learning_rate: float = 5e-3
    beta1: float = 0.9
    """Share of the average gradient that a step keeps, from 0 to below 1."""
    beta2: float = 0.999
    """Share of the average squared gradient that a step keeps, from 0 to below 1."""
    epsilon: float = 1e-6
    """Number that is added to the root of the average squared gradient."""
    weight_decay: float = 0.02
    """Weight decay. The parameter times this value is added to its update before the norms are
    computed."""
    decay_on: DecayOn = "kernels"
    """Parameters that decay, and whose updates are scaled to the norm of the parameter. "kernels"
    chooses the kernels of convolutions and dense layers, "all" also chooses scales and biases,
    "all_but_norm" chooses all but those of normalization layers, and "all_but_named_norm" also
    chooses the normalization layers of shortcuts. All other parameters are updated as by Adam."""
    max_gradient_norm: float | None = 1.0
    """Largest norm of all gradients together. Gradients with a larger norm are scaled down to it.
    None leaves them unchanged."""
    trust_clip: bool = False
    """Never enlarge an update. The ratio of the norms is then at most 1, as in LAMBC."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "epsilon")
        require_share(self, "beta1", "beta2")
        if self.max_gradient_norm is not None:
            require_positive(self, "max_gradient_norm")

    def create(
        self, learning_rate: optax.ScalarOrSchedule, parameters: Parameters
    ) -> optax.GradientTransformation:
        """Return the optimizer, which equals timm's ``Lamb``; see `SGDConfig.create`.

        `optax.lamb` scales the updates of scales and biases too, and does not clip gradients.  If
        ``weight_decay`` is 0, timm scales no update at all, whereas this optimizer still scales
        them.
        """
        import jax.numpy as jnp
        import optax

        def scale_by_trust_ratio(update: jax.Array, parameter: jax.Array) -> jax.Array:
            norm, update_norm = jnp.linalg.norm(parameter), jnp.linalg.norm(update)
            is_defined = (norm > 0) & (update_norm > 0)
            ratio = jnp.where(is_defined, norm / jnp.where(is_defined, update_norm, 1), 1)
            return update * (jnp.minimum(ratio, 1) if self.trust_clip else ratio)

        limit = self.max_gradient_norm
        return optax.chain(
            optax.identity() if limit is None else optax.clip_by_global_norm(limit),
            optax.scale_by_adam(self.beta1, self.beta2, self.epsilon),
            optax.add_decayed_weights(self.weight_decay, mask=parameters.decayed),
            parameters.transform_decayed(scale_by_trust_ratio),
            optax.scale_by_learning_rate(learning_rate),
        )

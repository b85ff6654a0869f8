"""Muon."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from resnet_jax.config.optimizers.adamw import AdamWConfig
from resnet_jax.config.optimizers.base import BaseOptimizerConfig
from resnet_jax.config.optimizers.parameters import Parameters
from resnet_jax.config.optimizers.sgd import SGDConfig
from resnet_jax.config.validation import (
    require,
    require_not_negative,
    require_positive,
    require_share,
)

if TYPE_CHECKING:
    import jax
    import optax

# Coefficients of the odd polynomial that moves singular values toward 1, and the number that is
# added to a norm, in Jordan's implementation.
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_EPSILON = 1e-7


@dataclasses.dataclass(frozen=True)
class MuonConfig(BaseOptimizerConfig):
    """Muon (Jordan et al. 2024) for convolutions, and AdamW or SGD for all other parameters.

    The momentum of a kernel is seen as a matrix with one column for each output channel.  It is
    replaced by a matrix with the same singular vectors, whose singular values are near 1.
    """

    kind: ClassVar[str] = "muon"

    learning_rate: float = 0.02
    """Peak learning rate of the kernels of convolutions. It is scaled by the batch size if
    learning_rate_scaling is set."""
    momentum: float = 0.95
    """Share of the average gradient that a step keeps, from 0 to below 1."""
    nesterov: bool = True
    """Use Nesterov momentum."""
    iterations: int = 5
    """Number of Newton-Schulz iterations, which move the singular values toward 1."""
    scale: Literal["none", "match_adamw"] = "none"
    """Scale of the updates. "none" leaves the singular values near 1. "match_adamw" multiplies them
    by 0.2 times the square root of the longer side of the matrix, so that learning rates and weight
    decay of AdamW fit (Liu et al. 2025)."""
    weight_decay: float = 0.0
    """Weight decay of the kernels of convolutions. Each step subtracts the parameter times this
    value times the learning rate."""
    renormalize: bool = False
    """Before each update, scale each kernel so that its norm is the square root of the number of
    output channels, as in airbench."""
    others: Literal["adamw", "sgd"] = "adamw"
    """Optimizer of all other parameters: "adamw" for AdamW with a beta2 of 0.95 and an epsilon of
    1e-10, or "sgd" for SGD with Nesterov momentum and coupled decay."""
    others_learning_rate: float = 3e-4
    """Peak learning rate of all other parameters. They follow the same schedule, including its
    changes where resizing.batch_sizes changes the batch size, but learning_rate_scaling does not
    change this peak."""
    others_momentum: float = 0.9
    """Momentum of all other parameters, above 0 and below 1. For AdamW this is beta1."""
    others_weight_decay: float = 0.0
    """Weight decay of all other parameters. It acts only on those that decay_on chooses."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "iterations", "others_learning_rate", "others_momentum")
        require_not_negative(self, "others_weight_decay")
        require_share(self, "momentum", "others_momentum")
        require(
            self.momentum > 0 or not self.nesterov,
            "nesterov needs momentum above 0; set momentum, or nesterov to False",
        )
        require(
            self.weight_decay == 0 or not self.renormalize,
            f"renormalize sets the norms of kernels, which weight_decay ({self.weight_decay:g}) "
            "would change; set one of them to its default",
        )

    def create(
        self, learning_rate: optax.ScalarOrSchedule, parameters: Parameters
    ) -> optax.GradientTransformation:
        """Return the optimizer, which equals Jordan's ``MuonWithAuxAdam``; see `SGDConfig.create`.

        The iterations are computed in the type of the parameters; Jordan's implementation uses
        bfloat16.  `optax.contrib.muon` differs in the first steps, because it corrects the bias of
        the momentum, and it optimizes all other parameters by Adam with Nesterov momentum.
        """
        import jax
        import optax

        def labels(params: Any) -> Any:
            return jax.tree.map(
                lambda convolves: self.kind if convolves else self.others,
                parameters.convolutions(params),
            )

        return optax.partition(
            {
                self.kind: self._of_convolutions(learning_rate, parameters),
                self.others: self._of_others(learning_rate, parameters),
            },
            labels,
        )

    def _of_convolutions(
        self, learning_rate: optax.ScalarOrSchedule, parameters: Parameters
    ) -> optax.GradientTransformation:
        import jax.numpy as jnp
        import optax

        def direction(momentum: jax.Array) -> jax.Array:
            *_, features = momentum.shape
            matrix = momentum.reshape(-1, features)
            factor = 0.2 * max(matrix.shape) ** 0.5 if self.scale == "match_adamw" else 1.0
            return factor * _orthogonalize(matrix, self.iterations).reshape(momentum.shape)

        def renormalize(update: jax.Array, kernel: jax.Array) -> jax.Array:
            *_, features = kernel.shape
            return update + kernel * (features**0.5 / jnp.linalg.norm(kernel) - 1)

        return optax.chain(
            # A sum of gradients times 1 - momentum is their average.
            optax.trace(self.momentum, self.nesterov),
            optax.scale(1 - self.momentum),
            optax.stateless(lambda updates, _: parameters.each_array(direction, updates)),
            optax.add_decayed_weights(self.weight_decay),
            optax.scale_by_learning_rate(learning_rate),
            optax.stateless(
                lambda updates, params: parameters.each_array(renormalize, updates, params)
            )
            if self.renormalize
            else optax.identity(),
        )

    def _of_others(
        self, learning_rate: optax.ScalarOrSchedule, parameters: Parameters
    ) -> optax.GradientTransformation:
        share = self.others_learning_rate / self.learning_rate
        others: AdamWConfig | SGDConfig
        if self.others == "adamw":
            others = AdamWConfig(
                beta1=self.others_momentum,
                beta2=0.95,
                epsilon=1e-10,
                weight_decay=self.others_weight_decay,
            )
        else:
            others = SGDConfig(momentum=self.others_momentum, weight_decay=self.others_weight_decay)
        return others.create(
            (lambda step: share * learning_rate(step))
            if callable(learning_rate)
            else share * learning_rate,
            parameters,
        )


def _orthogonalize(matrix: jax.Array, iterations: int) -> jax.Array:
    """Return a matrix with the same singular vectors and singular values from about 0.7 to 1.2.

    Args:
        matrix: Float[M, N].
        iterations: Number of Newton-Schulz iterations.
    """
    import jax
    import jax.numpy as jnp

    a, b, c = _COEFFICIENTS
    rows, columns = matrix.shape
    # Products of the short side with itself are small.
    x = matrix.T if rows > columns else matrix
    x = x / (jnp.linalg.norm(x) + _EPSILON)

    def iterate(_: int, x: jax.Array) -> jax.Array:
        square = x @ x.T
        return a * x + (b * square + c * square @ square) @ x

    x = jax.lax.fori_loop(0, iterations, iterate, x)
    return x.T if rows > columns else x

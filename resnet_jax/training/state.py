"""The state that a training step reads and writes."""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from resnet_jax.models import ResNet


@flax.struct.dataclass
class TrainState:
    """Everything that changes during training, and everything that a checkpoint holds.

    Attributes:
        step: int32[], number of steps done.
        params: Parameters, float32.
        batch_stats: Running means and variances, float32. Empty for networks without BatchNorm.
        opt_state: State of the Optax optimizer.
        ema: Moving averages of ``params`` and ``batch_stats``. Empty if there are none.
        guard: What the guard against steps that are not finite has seen, see
            `resnet_jax.training.guard`. Empty if there is no guard.
        loss_scale: Scale of the loss, see `resnet_jax.training.loss_scale`. Empty if the loss is
            not scaled.
    """

    step: jax.Array
    params: optax.Params
    batch_stats: optax.Params
    opt_state: optax.OptState
    ema: dict[str, Any] = flax.struct.field(default_factory=dict)
    guard: dict[str, jax.Array] = flax.struct.field(default_factory=dict)
    loss_scale: dict[str, jax.Array] = flax.struct.field(default_factory=dict)

    @property
    def variables(self) -> dict[str, Any]:
        """The variables that are trained, as ``model.apply`` takes them."""
        return {"params": self.params, "batch_stats": self.batch_stats}

    @property
    def evaluated(self) -> dict[str, Any]:
        """The variables that are evaluated: the moving averages, if there are any."""
        return self.ema or self.variables


def create_train_state(
    key: jax.Array,
    model: ResNet,
    optimizer: optax.GradientTransformation,
    image_shape: tuple[int, int, int],
    *,
    ema: bool = False,
) -> TrainState:
    """Return the state before the first step, with random parameters.

    Args:
        key: PRNG key of the parameters.
        model: The network.
        optimizer: The optimizer of its parameters.
        image_shape: (H, W, C) of the images.
        ema: Keep moving averages.
    """
    variables: Any = model.init(key, jnp.zeros((1, *image_shape)), train=False)
    return state_of(variables, optimizer, ema=ema)


def state_of(
    variables: dict[str, Any], optimizer: optax.GradientTransformation, *, ema: bool
) -> TrainState:
    """Return the state before the first step, with given parameters and running statistics.

    Args:
        variables: ``params`` and, for networks with BatchNorm, ``batch_stats``.
        optimizer: The optimizer of the parameters.
        ema: Keep moving averages.
    """
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        # Networks with GroupNorm have no running statistics.
        batch_stats=variables.get("batch_stats", {}),
        opt_state=optimizer.init(variables["params"]),
    )
    return dataclasses.replace(state, ema=state.variables) if ema else state

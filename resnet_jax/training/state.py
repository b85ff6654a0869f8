"""What a training step reads and writes."""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from resnet_jax.models import ResNet


@flax.struct.dataclass
class TrainState:
    """All that changes in training, and all that a checkpoint holds.

    Attributes:
        step: int32[], how many steps are done.
        params: float32 parameters.
        batch_stats: float32 running means and variances.
        opt_state: of the Optax optimizer.
        ema: moving averages of ``params`` and ``batch_stats``; empty where there are none.
    """

    step: jax.Array
    params: optax.Params
    batch_stats: optax.Params
    opt_state: optax.OptState
    ema: dict[str, Any] = flax.struct.field(default_factory=dict)

    @property
    def variables(self) -> dict[str, Any]:
        """What ``model.apply`` takes."""
        return {"params": self.params, "batch_stats": self.batch_stats}

    @property
    def evaluated(self) -> dict[str, Any]:
        """What evaluation gives to ``model.apply``: the averages, where there are any."""
        return self.ema or self.variables


def create_train_state(
    key: jax.Array,
    model: ResNet,
    optimizer: optax.GradientTransformation,
    image_shape: tuple[int, int, int],
    *,
    ema: bool = False,
) -> TrainState:
    """The state before the first step, for images of shape (H, W, C), with averages or without."""
    variables: Any = model.init(key, jnp.zeros((1, *image_shape)), train=False)
    return state_of(variables, optimizer, ema=ema)


def state_of(
    variables: dict[str, Any], optimizer: optax.GradientTransformation, *, ema: bool
) -> TrainState:
    """The state before the first step, from these parameters and running statistics on."""
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        # Networks with GroupNorm have none.
        batch_stats=variables.get("batch_stats", {}),
        opt_state=optimizer.init(variables["params"]),
    )
    return dataclasses.replace(state, ema=state.variables) if ema else state

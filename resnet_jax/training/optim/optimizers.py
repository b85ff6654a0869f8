"""The Optax optimizer that a configuration describes."""

from collections.abc import Callable

import jax
import optax

from resnet_jax.config import DecayOn, FinetuneConfig, OptimizerConfig
from resnet_jax.training.optim.parameter_groups import frozen, scale_by_depth


def create_optimizer(
    config: OptimizerConfig,
    learning_rate: optax.ScalarOrSchedule,
    finetune: FinetuneConfig | None = None,
) -> optax.GradientTransformation:
    """Return the optimizer, with frozen parameters and layer-wise learning rates if there are any.

    Args:
        config: The optimizer.
        learning_rate: The schedule, or a constant.
        finetune: Which layers are trained, and how fast. By default all are trained alike.
    """
    finetune = finetune or FinetuneConfig()
    optimizer = config.create(learning_rate, decayed=_DECAYED[config.decay_on])
    if finetune.freeze:
        optimizer = optax.partition(
            {True: optax.set_to_zero(), False: optimizer},
            lambda params: frozen(params, finetune.freeze),
        )
    if finetune.layer_decay < 1:
        optimizer = optax.chain(optimizer, scale_by_depth(finetune.layer_decay))
    return optimizer


def is_kernel(params: optax.Params) -> optax.Params:
    """Return True for kernels of convolutions and dense layers, False for scales and biases."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


_DECAYED: dict[DecayOn, Callable[[optax.Params], optax.Params] | None] = {
    "kernels": is_kernel,
    "all": None,
}

"""The Optax optimizer that a configuration describes."""

import optax

from resnet_jax.config import ClipConfig, FinetuneConfig, OptimizerConfig
from resnet_jax.config.optimizers import Parameters
from resnet_jax.training.optim.clipping import clip_before
from resnet_jax.training.optim.parameter_groups import (
    DECAYED,
    each_array,
    frozen,
    is_convolution,
    scale_by_depth,
)


def create_optimizer(
    config: OptimizerConfig,
    learning_rate: optax.ScalarOrSchedule,
    finetune: FinetuneConfig | None = None,
    clip: ClipConfig | None = None,
) -> optax.GradientTransformation:
    """Return the optimizer, with clipping, frozen parameters and layer-wise learning rates if any.

    Args:
        config: The optimizer. Its ``learning_rate`` is the peak of the schedule.
        learning_rate: The schedule, or a constant.
        finetune: Which layers are trained, and how fast. By default all are trained alike.
        clip: Limits of the gradients of the layers that are trained. By default there are none.
    """
    finetune = finetune or FinetuneConfig()
    parameters = Parameters(DECAYED[config.decay_on], is_convolution, each_array)
    optimizer = clip_before(config.create(learning_rate, parameters), clip or ClipConfig())
    if finetune.freeze:
        optimizer = optax.partition(
            {True: optax.set_to_zero(), False: optimizer},
            lambda params: frozen(params, finetune.freeze),
        )
    if finetune.layer_decay < 1:
        optimizer = optax.chain(optimizer, scale_by_depth(finetune.layer_decay))
    return optimizer

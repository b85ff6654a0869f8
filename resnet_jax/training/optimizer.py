"""The Optax optimizer that a configuration describes."""

import jax
import optax

from resnet_jax.config import SGDConfig


def make_schedule(config: SGDConfig, *, warmup_steps: int, total_steps: int) -> optax.Schedule:
    """Learning rate of a step: linear from 0 to the peak, then half a cosine down to 0.

    Args:
        config: gives the peak.
        warmup_steps: the peak is reached at this step.
        total_steps: 0 is reached at this step.
    """
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0 if warmup_steps else config.learning_rate,
        peak_value=config.learning_rate,
        warmup_steps=warmup_steps,
        decay_steps=total_steps,
    )


def is_kernel(params: optax.Params) -> optax.Params:
    """True for the kernels of convolutions and dense layers, False for norm scales and biases."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def make_optimizer(
    config: SGDConfig, learning_rate: optax.ScalarOrSchedule
) -> optax.GradientTransformation:
    """SGD with momentum and coupled L2 decay, step for step that of ``torch.optim.SGD``."""
    decayed = None if config.decay_norm_and_bias else is_kernel
    return optax.chain(
        optax.add_decayed_weights(config.weight_decay, mask=decayed),
        optax.sgd(learning_rate, momentum=config.momentum or None, nesterov=config.nesterov),
    )

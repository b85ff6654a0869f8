"""Limits of gradients."""

from typing import Any

import jax
import optax

from resnet_jax.config import ClipConfig
from resnet_jax.training.optim.head import HEAD
from resnet_jax.training.optim.parameter_groups import each_array


def clip_before(
    optimizer: optax.GradientTransformation, config: ClipConfig
) -> optax.GradientTransformation:
    """Return an optimizer that clips the gradients first, or the same one if nothing is clipped.

    A global norm above the limit becomes the limit, as in Optax and big_vision.  PyTorch's
    ``clip_grad_norm_`` adds 1e-6 to the norm.  Adaptive clipping equals timm's ``agc`` mode.

    Args:
        optimizer: The optimizer.
        config: What is clipped.
    """
    steps = []
    if config.global_norm is not None:
        steps.append(optax.clip_by_global_norm(config.global_norm))
    if config.value is not None:
        steps.append(optax.clip(config.value))
    if config.adaptive is not None:
        steps.append(optax.masked(_clip_adaptively(config.adaptive), _below_head))
    return optax.chain(*steps, optimizer) if steps else optimizer


def _clip_adaptively(limit: float) -> optax.GradientTransformation:
    clip = optax.adaptive_grad_clip(limit, eps=1e-3)

    def clip_array(gradient: jax.Array, parameter: jax.Array) -> Any:
        clipped, _ = clip.update(gradient, optax.EmptyState(), parameter)
        return clipped

    return optax.stateless(lambda grads, params: each_array(clip_array, grads, params))


def _below_head(params: optax.Params) -> optax.Params:
    return jax.tree_util.tree_map_with_path(lambda path, _: path[0].key != HEAD, params)

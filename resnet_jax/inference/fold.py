"""Folding of BatchNorm into the preceding convolutions, for faster inference."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.module import InterceptorContext
from flax.traverse_util import flatten_dict, unflatten_dict

from resnet_jax.models import BatchNorm, ResNet, stack_blocks, unstack_blocks
from resnet_jax.models.normalization import InstanceBatchNorm, NoNorm, Shift

Path = tuple[str, ...]


def fold_batch_norm(model: ResNet, variables: Any) -> tuple[ResNet, dict[str, Any]]:
    """Return an equal network for evaluation, without running statistics, and its parameters.

    In evaluation, BatchNorm is an affine map of each channel. Its factor is multiplied into the
    kernel of the preceding convolution, and its bias parameter takes the rest. The logits are
    equal up to rounding. The result cannot be trained.

    Args:
        model: A post-activation network with BatchNorm.
        variables: Its ``params`` and ``batch_stats``.

    Returns:
        A network whose normalization layers are `Shift`, and its ``params``.

    Raises:
        ValueError: The network has another kind of normalization, or a BatchNorm that does not
            directly follow a plain convolution, as in pre-activation networks.
    """
    batch_norm = model.unbound_norm
    if isinstance(batch_norm, NoNorm):
        raise ValueError("the network has no normalization, so there is no BatchNorm to fold")
    if not isinstance(batch_norm, BatchNorm):
        raise ValueError(
            f"{type(batch_norm).__name__} depends on the image and cannot be folded; "
            "only networks with BatchNorm can"
        )
    variables = unstack_blocks(variables)
    params: dict[Path, Any] = flatten_dict(variables["params"])
    statistics: dict[Path, Any] = flatten_dict(variables["batch_stats"])
    for norm, layer in _folds(model.clone(scan=False), variables):
        factor = params.pop((*norm, "scale")) * jax.lax.rsqrt(
            statistics[*norm, "var"] + batch_norm.epsilon
        )
        for name in ("kernel", "bias"):
            if (*layer, name) in params:
                # The channels before those of the BatchNorm have an InstanceNorm (IBN-Net-a).
                others = params[*layer, name].shape[-1] - factor.size
                params[*layer, name] *= jnp.pad(factor, (others, 0), constant_values=1)
        params[*norm, "bias"] -= statistics[*norm, "mean"] * factor
    folded = {"params": unflatten_dict(params)}
    return model.clone(norm=Shift), stack_blocks(folded) if model.scan else folded


def _folds(model: ResNet, variables: Any) -> list[tuple[Path, Path]]:
    """Return the path of each BatchNorm with the path of the layer that it normalizes."""
    # Keep references to the arrays: the id() of a freed array can be reused.
    outputs: dict[int, tuple[Path, Any]] = {}
    halves: dict[Path, int] = {}
    folds: list[tuple[Path, Path]] = []

    def record(
        call: Callable[..., Any], args: Any, kwargs: dict[str, Any], context: InterceptorContext
    ) -> Any:
        module = context.module
        if context.method_name != "__call__":
            return call(*args, **kwargs)
        if isinstance(module, InstanceBatchNorm):
            halves[module.path] = id(args[0])
        if isinstance(module, BatchNorm):
            source = halves.get(module.path[:-1], id(args[0]))
            if source not in outputs:
                raise ValueError(
                    f"{'/'.join(module.path)} does not follow a plain convolution and cannot be "
                    "folded; only post-activation networks of plain convolutions can"
                )
            folds.append((module.path, outputs[source][0]))
        result = call(*args, **kwargs)
        if isinstance(module, nn.Conv | nn.Dense):
            outputs[id(result)] = module.path, result
        return result

    channels = model.in_channels or _image_channels(variables["params"])
    images = jax.ShapeDtypeStruct((1, 64, 64, channels), jnp.float32)
    with nn.intercept_methods(record):
        jax.eval_shape(
            lambda variables, images: model.apply(variables, images, train=False),
            variables,
            images,
        )
    return folds


def _image_channels(params: Any) -> int:
    """Return the number of image channels that the first convolution takes."""
    stem = params["stem"]
    return stem["conv" if "conv" in stem else "conv1"]["kernel"].shape[2]

"""The shapes of a network's variables, found without tracing its computation.

Tracing a ResNet-50 takes longer than reading its weights.  The network is therefore called with
layers that create their variables and compute nothing.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from resnet_jax.models import ResNet
from resnet_jax.models.layers import Norm, ScaledStandardizedConv, StandardizedConv, conv, identity
from resnet_jax.models.normalization import Leaves
from resnet_jax.models.options import unbound_norm
from resnet_jax.models.resnet import are_equal

Structure = dict[str, Any]


def structure(model: ResNet, in_channels: int) -> Structure:
    """Return the shapes and dtypes of the variables, in the tree that ``model.init`` returns.

    Args:
        model: The network.  Layers other than our own convolutions and normalizations are traced.
        in_channels: Number of channels of the images.
    """
    norm = _replacement(model.norm)
    convolution = _CONVS.get(model.conv)
    if norm is not None and convolution is not None:
        model = model.clone(
            conv=convolution,
            norm=norm,
            stem_norm=model.stem_norm and _replacement(model.stem_norm),
            act=identity,
            padding="symmetric",
        )
    # Blocks of a stage after the first have the same variables, except in networks that list them.
    sizes = model.stage_sizes
    blocks = tuple(stage[:2] if are_equal(stage[1:]) else stage for stage in model.blocks)
    model = model.clone(stage_sizes=tuple(map(len, blocks)), block=blocks)
    found: Structure = {}

    def init() -> None:
        images = jnp.zeros((1, 64, 64, in_channels))
        variables = model.init(jax.random.key(0), images, train=False)
        # Stored instead of returned: `eval_shape` would first turn them into arrays.
        found.update(jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), variables))

    jax.eval_shape(init)
    for i, size in enumerate(sizes, start=1):
        for collection in found.values():
            stage = collection.get(f"stage{i}", {})
            for j in range(len(blocks[i - 1]) + 1, size + 1):
                stage[f"block{j}"] = stage["block2"]
    return found


def _replacement(norm: Norm) -> Norm | None:
    """Return a builder of layers with the same variables, or None if these are not known."""
    built = unbound_norm(norm)
    # A subclass may have other variables than the class that it inherits ``leaves`` from.
    leaves = vars(type(built)).get("leaves")
    return None if leaves is None else partial(_Norm, leaves=leaves)


def _float32(*shape: int) -> Callable[[], jax.ShapeDtypeStruct]:
    return lambda: jax.ShapeDtypeStruct(shape, jnp.float32)


class _Conv(nn.Module):
    """Replacement of `conv` and `StandardizedConv` that does not convolve."""

    features: int
    kernel_size: int
    stride: int = 1
    dilation: int = 1
    groups: int = 1
    use_bias: bool = False
    kernel_init: Any = None
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        batch, height, width, channels = x.shape
        size = self.kernel_size
        # `self.param` would derive a PRNG key.
        self.variable(
            "params", "kernel", _float32(size, size, channels // self.groups, self.features)
        )
        if self.use_bias:
            self.variable("params", "bias", _float32(self.features))
        return jnp.zeros(
            (batch, -(-height // self.stride), -(-width // self.stride), self.features)
        )


class _ScaledConv(_Conv):
    """Replacement of `ScaledStandardizedConv`."""

    use_bias: bool = True
    gain_init: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        self.variable("params", "gain", _float32(self.features))
        return super().__call__(x)


class _Norm(nn.Module):
    """Replacement of a normalization layer that does not normalize."""

    leaves: Leaves = ()
    scale_init: Any = None
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        del train
        for collection, leaf in self.leaves:
            self.variable(collection, leaf, _float32(x.shape[-1]))
        return x


_CONVS: dict[Any, type[_Conv]] = {
    conv: _Conv,
    StandardizedConv: _Conv,
    ScaledStandardizedConv: _ScaledConv,
}

"""The shapes of a network's variables, found without tracing its computation.

Tracing a ResNet-50 takes longer than reading its weights.  The network is therefore called with
layers that create their variables and compute nothing.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from resnet_jax.models import BatchNorm, GroupNorm, ResNet
from resnet_jax.models.layers import ScaledStandardizedConv, StandardizedConv, conv
from resnet_jax.models.normalization import NoNorm, Shift

Structure = dict[str, Any]


def structure(model: ResNet, in_channels: int) -> Structure:
    """Return the shapes and dtypes of the variables, in the tree that ``model.init`` returns.

    Args:
        model: The network.  Layers other than our own convolutions and normalizations are traced.
        in_channels: Number of channels of the images.
    """
    norm = _NORMS.get(type(model.unbound_norm))
    convolution = _CONVS.get(model.conv)
    if norm is not None and convolution is not None:
        model = model.clone(conv=convolution, norm=norm, act=_unchanged, padding="symmetric")
    # All blocks of a stage after the first have the same variables.
    sizes = model.stage_sizes
    model = model.clone(stage_sizes=tuple(min(size, 2) for size in sizes))
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
            for j in range(3, size + 1):
                stage[f"block{j}"] = stage["block2"]
    return found


def _unchanged(x: jax.Array) -> jax.Array:
    return x


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

    leaves: ClassVar[tuple[tuple[str, str], ...]]

    scale_init: Any = None
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        del train
        for collection, leaf in self.leaves:
            self.variable(collection, leaf, _float32(x.shape[-1]))
        return x


class _NoNorm(_Norm):
    leaves = ()


class _Shift(_Norm):
    leaves = (("params", "bias"),)


class _GroupNorm(_Norm):
    leaves = (("params", "scale"), ("params", "bias"))


class _BatchNorm(_Norm):
    leaves = (*_GroupNorm.leaves, ("batch_stats", "mean"), ("batch_stats", "var"))


_NORMS: dict[type[nn.Module], type[_Norm]] = {
    BatchNorm: _BatchNorm,
    GroupNorm: _GroupNorm,
    NoNorm: _NoNorm,
    Shift: _Shift,
}

_CONVS: dict[Any, type[_Conv]] = {
    conv: _Conv,
    StandardizedConv: _Conv,
    ScaledStandardizedConv: _ScaledConv,
}

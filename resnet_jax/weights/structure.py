"""Which variables a network has, found out without tracing what it computes.

A trace of resnet50 takes longer than reading its weights.  So the network is run with layers that
have variables and compute nothing.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from resnet_jax.models import BatchNorm, GroupNorm, ResNet
from resnet_jax.models.layers import StandardizedConv, conv
from resnet_jax.models.normalization import Shift

Structure = dict[str, Any]


def structure(model: ResNet, in_channels: int) -> Structure:
    """Shapes and dtypes of the variables, in the tree that ``model.init`` makes.

    Args:
        model: the network.
        in_channels: of the images.
    """
    norm = _NORMS.get(type(model.unbound_norm))
    if norm is not None and model.conv in (conv, StandardizedConv):
        model = model.clone(conv=_Conv, norm=norm, act=_unchanged, padding="symmetric")
    # The blocks of a stage behind its first one are all alike.
    sizes = model.stage_sizes
    model = model.clone(stage_sizes=tuple(min(size, 2) for size in sizes))
    found: Structure = {}

    def init() -> None:
        images = jnp.zeros((1, 64, 64, in_channels))
        variables = model.init(jax.random.key(0), images, train=False)
        # Not returned, because only arrays can be, and they take longer to make than their shapes.
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
    """`conv` or `StandardizedConv`, without the convolution."""

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
        # Not `param`, which would derive a PRNG key.
        self.variable(
            "params", "kernel", _float32(size, size, channels // self.groups, self.features)
        )
        if self.use_bias:
            self.variable("params", "bias", _float32(self.features))
        return jnp.zeros(
            (batch, -(-height // self.stride), -(-width // self.stride), self.features)
        )


class _Norm(nn.Module):
    """A normalisation layer, without the normalisation."""

    leaves: ClassVar[tuple[tuple[str, str], ...]]

    scale_init: Any = None
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        del train
        for collection, leaf in self.leaves:
            self.variable(collection, leaf, _float32(x.shape[-1]))
        return x


class _Shift(_Norm):
    leaves = (("params", "bias"),)


class _GroupNorm(_Norm):
    leaves = (("params", "scale"), ("params", "bias"))


class _BatchNorm(_Norm):
    leaves = (*_GroupNorm.leaves, ("batch_stats", "mean"), ("batch_stats", "var"))


_NORMS: dict[type[nn.Module], type[_Norm]] = {
    BatchNorm: _BatchNorm,
    GroupNorm: _GroupNorm,
    Shift: _Shift,
}

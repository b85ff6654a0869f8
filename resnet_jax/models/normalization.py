"""Normalisation layers, each called with (x, *, train)."""

import math
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from resnet_jax.models.convolution import forward_mode


class BatchNorm(nn.Module):
    """Batch normalisation (Ioffe and Szegedy 2015) over declared groups of examples.

    Statistics are computed and kept in float32 whatever the compute type.  Under `jax.jit` the
    batch axis is the global batch: what the statistics are of depends on ``group_size`` and never
    on the number of devices.  Groups that do not cross the borders of devices need no
    communication.

    ``momentum`` is Flax's: the share of the running value that is kept (0.9), which PyTorch calls
    0.1.  The running variance is the biased one, where PyTorch stores the unbiased one, larger by
    n / (n - 1) for n values a channel.

    Attributes:
        momentum: share of the running statistics that a training step keeps, 0 to 1.
        epsilon: added to the variance.
        group_size: consecutive examples that share their statistics in training; by default the
            whole batch does.  The running statistics take the mean over the groups.
        frozen: use the running statistics in training too, and leave them as they are; scale and
            bias remain trainable.
        scale_init: initialiser of the scale.
        dtype: type of the output.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    group_size: int | None = None
    frozen: bool = False
    scale_init: nn.initializers.Initializer = nn.initializers.ones
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, mask: jax.Array | None = None) -> jax.Array:
        """Normalises over all axes but the last.

        Args:
            x: float[B, ..., C].
            train: use the statistics of the groups and update the running ones.
            mask: bool[B], which examples count in the statistics; all by default.

        Returns:
            dtype[B, ..., C].

        Raises:
            ValueError: the batch does not consist of whole groups.
        """
        channels = x.shape[-1]
        scale = self.param("scale", self.scale_init, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
        running_var = self.variable("batch_stats", "var", jnp.ones, (channels,))

        if self.frozen or not train:
            return self._normalize(x, running_mean.value, running_var.value, scale, bias)

        grouped = self.group_size not in (None, len(x))
        # An axis of one group would be a reshape, behind which XLA computes anew what is there.
        groups, weights = self._groups(x, mask) if grouped else (x, mask)
        mean, var, share = _moments(groups, weights, batch_axis=int(grouped))
        if not self.is_initializing():
            for running, value in ((running_mean, mean), (running_var, var)):
                new = jnp.sum(share * value.reshape(-1, channels), axis=0)
                running.value = self.momentum * running.value + (1 - self.momentum) * new
        return self._normalize(groups, mean, var, scale, bias).reshape(x.shape)

    def _groups(self, x: jax.Array, mask: jax.Array | None) -> tuple[jax.Array, jax.Array | None]:
        """[G, B/G, ..., C], and the mask of as many examples."""
        batch, size = len(x), self.group_size
        assert size
        if batch % size:
            raise ValueError(
                f"a batch of {batch} images has no whole groups of {size}; change the batch size "
                "or bn_group_size"
            )
        groups = x.reshape(batch // size, size, *x.shape[1:])
        return groups, None if mask is None else mask.reshape(batch // size, size)

    def _normalize(
        self, x: jax.Array, mean: jax.Array, var: jax.Array, scale: jax.Array, bias: jax.Array
    ) -> jax.Array:
        factor = jax.lax.rsqrt(var + self.epsilon) * scale
        affine = _affine if forward_mode() else _affine_with_sums
        return affine(x, mean, factor, bias).astype(self.dtype)


def _affine(x: jax.Array, mean: jax.Array, factor: jax.Array, bias: jax.Array) -> jax.Array:
    """``(x - mean) * factor + bias``.

    Args:
        x: [N, ..., C], or of groups [G, N, ..., C].
        mean: [1, ..., C] or [G, 1, ..., C]; or [C].
        factor: as ``mean``.
        bias: [C].
    """
    return (x - mean) * factor + bias


def _affine_forward(
    x: jax.Array, mean: jax.Array, factor: jax.Array, bias: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array]]:
    return _affine(x, mean, factor, bias), (x, mean, factor)


def _affine_backward(
    saved: tuple[jax.Array, jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    x, mean, factor = saved
    axes = tuple(axis for axis in range(x.ndim - 1) if mean.ndim == 1 or mean.shape[axis] == 1)
    total = jnp.sum(gradient, axes, keepdims=mean.ndim > 1)
    moment = jnp.sum(gradient * x, axes, keepdims=mean.ndim > 1)
    return (
        (gradient * factor).astype(x.dtype),
        (-factor * total).astype(mean.dtype),
        (moment - mean * total).astype(factor.dtype),
        jnp.sum(total, tuple(range(total.ndim - 1))).astype(factor.dtype),
    )


# The same, whose gradients are two sums over x as it is.  Left to itself, JAX keeps or recomputes
# ``x - mean`` for them, and sums a scaled gradient beside the gradient.
_affine_with_sums = jax.custom_vjp(_affine)
_affine_with_sums.defvjp(_affine_forward, _affine_backward)


def _moments(
    x: jax.Array, mask: jax.Array | None, *, batch_axis: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Mean and biased variance, and the share of each group in their average.

    Both come from one pass over the data, so that devices exchange them together.

    Args:
        x: [N, ..., C], or of groups [G, N, ..., C].
        mask: bool[N] or [G, N], which examples count.
        batch_axis: that of N.

    Returns:
        float32[1, ..., C] or [G, 1, ..., C] twice, and float32[G, 1].
    """
    values = x.astype(jnp.float32)
    axes = tuple(range(batch_axis, x.ndim - 1))
    mean, square = (_mean(x, axes, mask) for x in (values, values**2))
    if mask is None:
        groups = math.prod(x.shape[:batch_axis])
        share = jnp.full((groups, 1), 1 / groups)
    else:
        examples = jnp.sum(mask, axis=-1, dtype=jnp.float32).reshape(-1, 1)
        share = examples / jnp.maximum(jnp.sum(examples), 1)
    return mean, jnp.maximum(square - mean**2, 0), share


def _mean(x: jax.Array, axes: tuple[int, ...], mask: jax.Array | None) -> jax.Array:
    """Of the examples that count; where a group has none, zero."""
    if mask is None:
        return jnp.mean(x, axes, keepdims=True)
    weights = mask.reshape(*mask.shape, *(1,) * (x.ndim - mask.ndim))
    share = jnp.mean(weights, axes, keepdims=True, dtype=jnp.float32)
    mean = jnp.mean(jnp.where(weights, x, 0), axes, keepdims=True)
    return mean / jnp.where(share > 0, share, 1)


class GroupNorm(nn.Module):
    """Group normalisation (Wu and He 2018); it does the same in training and evaluation.

    Statistics are computed in float32, in two passes, and first over the image, then over the
    channels: short sums lose less.  Over the blocks of a BiT network that halves the error of
    `flax.linen.GroupNorm`.

    Raises:
        ValueError: the channels do not make whole groups.
    """

    num_groups: int = 32
    epsilon: float = 1e-5
    scale_init: nn.initializers.Initializer = nn.initializers.ones
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        del train
        channels = x.shape[-1]
        if channels % self.num_groups:
            raise ValueError(
                f"GroupNorm cannot split {channels} channels into {self.num_groups} groups; give "
                f"norm=partial(GroupNorm, num_groups={math.gcd(channels, self.num_groups)})"
            )
        scale = self.param("scale", self.scale_init, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))

        def mean(x: jax.Array) -> jax.Array:
            return jnp.mean(jnp.mean(x, axis=(1, 2), keepdims=True), axis=-1, keepdims=True)

        groups = x.astype(jnp.float32).reshape(*x.shape[:-1], self.num_groups, -1)
        centered = groups - mean(groups)
        normalized = centered * jax.lax.rsqrt(mean(centered**2) + self.epsilon)
        return (normalized.reshape(x.shape) * scale + bias).astype(self.dtype)


class Shift(nn.Module):
    """What is left of BatchNorm when its scale is in the convolution before it: a bias.

    See `resnet_jax.inference.folding`.  Float[B, ..., C] to dtype[B, ..., C].

    Attributes:
        scale_init: of the BatchNorm in whose place it stands; there is no scale here.
        dtype: type of the output.
    """

    scale_init: nn.initializers.Initializer = nn.initializers.ones
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        del train
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        return x.astype(self.dtype) + bias.astype(self.dtype)


def norm_type(norm: Any) -> Any:
    """The class that builds a layer, where ``norm`` is one or a `functools.partial` of one."""
    return norm.func if isinstance(norm, partial) else norm

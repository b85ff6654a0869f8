"""Normalisation layers, each called with (x, *, train)."""

import math
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from resnet_jax.ops.convolution import forward_mode


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
        frozen: use the running statistics in training too, and leave them unchanged; scale and
            bias remain trainable. A tuple freezes the layers at these paths, such as
            ``"stem/norm"``.
        scale_init: initialiser of the scale.
        dtype: type of the output.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    group_size: int | None = None
    frozen: bool | tuple[str, ...] = False
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

        frozen = (
            self.frozen if isinstance(self.frozen, bool) else "/".join(self.path) in self.frozen
        )
        if frozen or not train:
            factor = jax.lax.rsqrt(running_var.value + self.epsilon) * scale
            affine = _affine if forward_mode() else _affine_by_hand
            return affine(x, running_mean.value, factor, bias).astype(self.dtype)

        grouped = self.group_size not in (None, len(x))
        # An axis of one group would be a reshape, behind which XLA computes anew what is there.
        groups, weights = self._groups(x, mask) if grouped else (x, mask)
        normalize = _normalize if forward_mode() else _normalize_by_hand
        y, *moments = normalize(
            groups, scale, bias, weights, self.epsilon, int(grouped), self.dtype
        )
        if not self.is_initializing():
            for running, value in zip((running_mean, running_var), moments, strict=True):
                new = jax.lax.stop_gradient(value)
                new = _over_groups(new, weights) if grouped else new.reshape(channels)
                running.value = self.momentum * running.value + (1 - self.momentum) * new
        return y.reshape(x.shape)

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


def _affine(x: jax.Array, mean: jax.Array, factor: jax.Array, bias: jax.Array) -> jax.Array:
    return (x - mean) * factor + bias


def _affine_forward(
    x: jax.Array, mean: jax.Array, factor: jax.Array, bias: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array]]:
    return _affine(x, mean, factor, bias), (x, mean, factor)


def _affine_backward(
    saved: tuple[jax.Array, jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    x, mean, factor = saved
    total, moment = _sums(x, gradient, tuple(range(x.ndim - 1)))
    return (
        (gradient * factor).astype(x.dtype),
        (-factor * total).astype(mean.dtype),
        (moment - mean * total).astype(factor.dtype),
        total.astype(factor.dtype),
    )


# The same for x [..., C] and three [C].  Left to itself, JAX keeps ``x - mean`` beside x.
_affine_by_hand = jax.custom_vjp(_affine)
_affine_by_hand.defvjp(_affine_forward, _affine_backward)


def _sums(
    x: jax.Array, gradient: jax.Array, axes: tuple[int, ...], *, keepdims: bool = False
) -> tuple[jax.Array, jax.Array]:
    """Of the gradient, and of its product with x.

    Over x as it is: what is subtracted from it need not be kept, nor computed a second time.
    """
    total = jnp.sum(gradient, axes, keepdims=keepdims)
    return total, jnp.sum(gradient * x, axes, keepdims=keepdims)


def _normalize(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    mask: jax.Array | None,
    epsilon: float,
    batch_axis: int,
    dtype: Any,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalises by the moments of x itself.

    Args:
        x: [N, ..., C], or of groups [G, N, ..., C].
        scale: [C].
        bias: [C].
        mask: bool[N] or [G, N], which examples count in the moments.
        epsilon: added to the variance.
        batch_axis: that of N.
        dtype: of the first result.

    Returns:
        dtype[...] as x, and its mean and biased variance, float32[1, ..., C] or [G, 1, ..., C].
    """
    values = x.astype(jnp.float32)
    axes = tuple(range(batch_axis, x.ndim - 1))
    weights, count = _counted(x, mask, batch_axis)

    def average(values: jax.Array) -> jax.Array:
        counted = values if weights is None else jnp.where(weights, values, 0)
        return jnp.sum(counted, axes, keepdims=True) / count

    # From one pass over the data, so that devices exchange both together.
    mean, square = average(values), average(values**2)
    var = jnp.maximum(square - mean**2, 0)
    y = _affine(x, mean, jax.lax.rsqrt(var + epsilon) * scale, bias)
    return y.astype(dtype), mean, var


def _normalize_forward(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    mask: jax.Array | None,
    epsilon: float,
    *static: Any,
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], tuple[jax.Array | None, ...]]:
    y, mean, var = _normalize(x, scale, bias, mask, epsilon, *static)
    return (y, mean, var), (x, scale, bias, mask, mean, jax.lax.rsqrt(var + epsilon))


def _normalize_backward(
    epsilon: float,
    batch_axis: int,
    dtype: Any,
    saved: tuple[jax.Array, ...],
    gradients: tuple[jax.Array, jax.Array, jax.Array],
) -> tuple[jax.Array, jax.Array, jax.Array, None]:
    """The gradients of x, scale and bias; the moments are taken to have none."""
    del epsilon, dtype
    x, scale, bias, mask, mean, inverse = saved
    gradient = gradients[0].astype(jnp.promote_types(x.dtype, jnp.float32))
    axes = tuple(range(batch_axis, x.ndim - 1))
    total, moment = _sums(x, gradient, axes, keepdims=True)
    of_scale = (moment - mean * total) * inverse
    weights, count = _counted(x, mask, batch_axis)
    through_moments = total / count + (x - mean) * (inverse * of_scale / count)
    if weights is not None:
        through_moments = jnp.where(weights, through_moments, 0)
    of_x = (gradient - through_moments) * (inverse * scale)
    groups = tuple(range(x.ndim - 1))
    return (
        of_x.astype(x.dtype),
        jnp.sum(of_scale, groups).astype(scale.dtype),
        jnp.sum(total, groups).astype(bias.dtype),
        None,
    )


# The same with a gradient of two sums and one pass.  Left to itself, JAX differentiates the moments
# one by one, and keeps or recomputes what is between them.
_normalize_by_hand = jax.custom_vjp(_normalize, nondiff_argnums=(4, 5, 6))
_normalize_by_hand.defvjp(_normalize_forward, _normalize_backward)


def _over_groups(moments: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Their mean, in which every example counts as much.

    Args:
        moments: float32[G, 1, ..., C].
        mask: bool[G, N], which examples count.

    Returns:
        float32[C].
    """
    moments = moments.reshape(len(moments), -1)
    if mask is None:
        return jnp.mean(moments, axis=0)
    examples = jnp.sum(mask, axis=-1, dtype=jnp.float32)
    return jnp.sum(examples[:, None] * moments, axis=0) / jnp.maximum(jnp.sum(examples), 1)


def _counted(
    x: jax.Array, mask: jax.Array | None, batch_axis: int
) -> tuple[jax.Array | None, jax.Array | int]:
    """What counts in the moments of x: bool in its rank, and how many values; without a mask all.

    A group in which nothing counts is taken to have one value, so that it can be divided by.
    """
    pixels = math.prod(x.shape[batch_axis + 1 : -1])
    if mask is None:
        return None, x.shape[batch_axis] * pixels
    weights = mask.reshape(*mask.shape, *(1,) * (x.ndim - mask.ndim))
    examples = jnp.sum(weights, batch_axis, keepdims=True, dtype=jnp.float32)
    return weights, jnp.maximum(pixels * examples, 1)


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

    See `resnet_jax.inference.fold`.  Float[B, ..., C] to dtype[B, ..., C].

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

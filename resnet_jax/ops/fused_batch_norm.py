"""Batch normalization, the addition of a shortcut and ReLU, as kernels with hand-written gradients.

The results are those of `resnet_jax.ops.batch_norm`, an addition and ReLU, to rounding: the sum is
rounded to the compute type once instead of twice.  The moments of the batch remain XLA's, which
reads x once for both.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from resnet_jax.ops.batch_norm import Statistics, counted_values, expanded, moments
from resnet_jax.ops.gradients import custom_gradient
from resnet_jax.ops.normalization_kernels import Kernel, Pass, run
from resnet_jax.ops.platform import Kernels


class Fusion(NamedTuple):
    """What is computed together with a normalization.

    Attributes:
        relu: apply ReLU, after the addition of the shortcut if there is one.
        kernels: where kernels are used, see `resnet_jax.ops.platform.chosen_kernels`.
        dtype: type of the output.
    """

    relu: bool
    kernels: Kernels
    dtype: Any


def _affine_forward(
    x: jax.Array,
    mean: jax.Array,
    factor: jax.Array,
    bias: jax.Array,
    shortcut: jax.Array | None,
    fusion: Fusion,
) -> tuple[jax.Array, tuple[Any, ...]]:
    y = _applied(x, shortcut, (mean, factor, bias), 0, fusion)
    return y, (x, _kept(y, shortcut, fusion), mean, factor, bias)


def _affine_backward(
    fusion: Fusion, saved: tuple[Any, ...], gradient: jax.Array
) -> tuple[Any, ...]:
    x, y, *values = saved
    mean, factor, _ = values
    total, moment = jnp.sum(_sums(gradient, x, y, tuple(values), 0, fusion), axis=0)
    of_x, of_shortcut = _gradients(gradient, x, y, tuple(values), 0, fusion)
    return of_x, (-factor * total).astype(mean.dtype), moment, total, of_shortcut


def _affine(
    x: jax.Array,
    mean: jax.Array,
    factor: jax.Array,
    bias: jax.Array,
    shortcut: jax.Array | None,
    fusion: Fusion,
) -> jax.Array:
    return _affine_forward(x, mean, factor, bias, shortcut, fusion)[0]


fused_affine = custom_gradient(_affine_forward, _affine_backward, static=(5,))(_affine)
"""Return ``relu((x - mean) * factor + bias + shortcut)``, in one pass.

Args:
    x: float[N, ..., C].
    mean: float32[C].
    factor: float32[C].
    bias: float32[C].
    shortcut: of the type of the output, in the shape of x.  None adds nothing, and is the only
        value that is allowed without ReLU.
    fusion: what is computed.

Returns:
    dtype[N, ..., C].
"""


def _normalize_forward(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    mask: jax.Array | None,
    shortcut: jax.Array | None,
    statistics: Statistics,
    fusion: Fusion,
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], tuple[Any, ...]]:
    mean, var = moments(x, mask, statistics)
    inverse = jax.lax.rsqrt(var + statistics.epsilon)
    values = mean, inverse * expanded(scale, x), bias
    y = _applied(x, shortcut, values, statistics.batch_axis, fusion)
    return (y, mean, var), (x, _kept(y, shortcut, fusion), scale, bias, mask, mean, inverse)


def _normalize_backward(
    statistics: Statistics,
    fusion: Fusion,
    saved: tuple[Any, ...],
    gradients: tuple[jax.Array, jax.Array, jax.Array],
) -> tuple[Any, ...]:
    """Return the gradients of x, scale, bias and shortcut.  Those of the moments are ignored."""
    x, y, scale, bias, mask, mean, inverse = saved
    axis, values = statistics.batch_axis, (mean, inverse * expanded(scale, x), bias)
    sums = _sums(gradients[0], x, y, values, axis, fusion)
    # Sums over the examples of each group, in the shape of the mean.
    sums = jnp.sum(sums.reshape(*x.shape[: axis + 1], 2, -1), axis=axis)
    total, moment = (sums[..., i, :].reshape(mean.shape) for i in range(2))
    of_scale = moment * inverse
    weights, count = counted_values(x, mask, statistics)
    all_total, all_of_scale = statistics.over_devices((total, of_scale))
    through = all_total / count, inverse * all_of_scale / count
    if weights is not None:
        through = tuple(jnp.where(weights, value, 0) for value in through)
    of_x, of_shortcut = _gradients(gradients[0], x, y, (*values, *through), axis, fusion)
    groups = tuple(range(x.ndim - 1))
    # Each device returns its own share of the gradients of scale and bias, as for any parameter.
    return (
        of_x,
        jnp.sum(of_scale, groups).astype(scale.dtype),
        jnp.sum(total, groups).astype(bias.dtype),
        None,
        of_shortcut,
    )


def _normalize(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    mask: jax.Array | None,
    shortcut: jax.Array | None,
    statistics: Statistics,
    fusion: Fusion,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    return _normalize_forward(x, scale, bias, mask, shortcut, statistics, fusion)[0]


fused_normalize = custom_gradient(_normalize_forward, _normalize_backward, static=(5, 6))(
    _normalize
)
"""Return ``relu(normalize(x) + shortcut)`` and the moments of x, in one pass after the moments.

Args:
    x: float[N, ..., C], or groups [G, N, ..., C].
    scale: float32[C].
    bias: float32[C].
    mask: bool[N] or bool[G, N], which examples count in the moments.  None counts all.
    shortcut: as for `fused_affine`.
    statistics: how the moments are computed.
    fusion: what is computed.

Returns:
    The output, dtype[...] in the shape of x, and the mean and the biased variance, as
    `resnet_jax.ops.batch_norm.normalize_formula` returns them.
"""


def _kept(y: jax.Array, shortcut: jax.Array | None, fusion: Fusion) -> jax.Array | None:
    """Return the output if the backward pass needs it to know where ReLU was active.

    The next layer keeps it for its own gradient anyway.
    """
    return y if fusion.relu and shortcut is not None else None


def _applied(
    x: jax.Array,
    shortcut: jax.Array | None,
    values: tuple[jax.Array, ...],
    axis: int,
    fusion: Fusion,
) -> jax.Array:
    """Return the output in the shape of x, given mean, factor and bias."""
    images = [x] if shortcut is None else [x, shortcut]
    kernel = Kernel(Pass.APPLY, fusion.relu, (jnp.dtype(fusion.dtype),))
    [y] = _run(kernel, images, values, axis, fusion)
    return y.reshape(x.shape)


def _sums(
    gradient: jax.Array,
    x: jax.Array,
    y: jax.Array | None,
    values: tuple[jax.Array, ...],
    axis: int,
    fusion: Fusion,
) -> jax.Array:
    """Return the two sums of the backward pass for each example, float32[N, 2, C]."""
    images = [gradient, x] if y is None else [gradient, x, y]
    [sums] = _run(Kernel(Pass.SUMS, fusion.relu), images, values, axis, fusion)
    return sums


def _gradients(
    gradient: jax.Array,
    x: jax.Array,
    y: jax.Array | None,
    values: tuple[jax.Array, ...],
    axis: int,
    fusion: Fusion,
) -> tuple[jax.Array, jax.Array | None]:
    """Return the gradients of x and of the shortcut, which is None if there is no shortcut."""
    images = [gradient, x] if y is None else [gradient, x, y]
    dtypes = (x.dtype,) if y is None else (x.dtype, y.dtype)
    of_x, *others = _run(Kernel(Pass.GRADIENTS, fusion.relu, dtypes), images, values, axis, fusion)
    of_shortcut = others[0].reshape(x.shape) if others else None
    return of_x.reshape(x.shape), of_shortcut


def _run(
    kernel: Kernel,
    images: list[jax.Array],
    values: tuple[jax.Array, ...],
    axis: int,
    fusion: Fusion,
) -> tuple[jax.Array, ...]:
    """Run a kernel on images [N, ..., C] or [G, N, ..., C] and values of their channels.

    Args:
        kernel: the kernel.
        images: all of the same shape.
        values: float32[C], or in the rank of the images with single pixels.
        axis: axis of the examples, 0 or 1.
        fusion: what is computed.
    """
    shape = images[0].shape
    examples, pixels, channels = shape[: axis + 1], math.prod(shape[axis + 1 : -1]), shape[-1]
    number = math.prod(examples)
    leading = [value.shape[: axis + 1] if value.ndim > 1 else (1,) for value in values]
    # Values that all examples share are read once for all of them.
    shared = all(math.prod(sizes) == 1 for sizes in leading)
    target = (1,) * len(examples) if shared else examples
    vectors = [
        jnp.broadcast_to(
            value if value.ndim == 1 else value.reshape(*sizes, channels), (*target, channels)
        ).reshape(-1, channels)
        for value, sizes in zip(values, leading, strict=True)
    ]
    return run(
        kernel,
        fusion.kernels,
        *(x.reshape(number, pixels, channels) for x in images),
        jnp.stack(vectors, axis=1),
    )

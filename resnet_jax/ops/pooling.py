"""How max-pooling is computed: the same numbers, in the way a platform does fast.

Accelerators have kernels for `flax.linen.max_pool`, and get it.  XLA's CPU backend is slow at its
gradient.  There, the maxima are elementwise ones of shifted images, and the gradient of a pixel is
looked up in the windows that it is in.

Arrays are NHWC.
"""

import itertools
from collections.abc import Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from resnet_jax.ops.convolution import by_hand, explicit_pads, fitted_pads, one_tap

# Of the numbers of taps; enough for windows of 181 x 181.
_TAP = jnp.int16


def max_pool(
    x: jax.Array, size: int, stride: int, padding: str | Sequence[tuple[int, int]]
) -> jax.Array:
    """The maximum of each window; its gradient goes to the first of equal maxima.

    Args:
        x: float[B, H, W, C].
        size: of the windows, height and width in pixels.
        stride: in pixels.
        padding: pixels (before, after) of height and width, or ``"SAME"`` or ``"VALID"``; it is
            never the maximum.

    Returns:
        [B, H', W', C].
    """
    pads = explicit_pads(x, (size, size), (stride, stride), padding)
    if not by_hand():
        return nn.max_pool(x, (size, size), (stride, stride), pads)
    fitted = fitted_pads(x, (size, size), (stride, stride), pads)
    edges = [(before, after, 0) for before, after in ((0, 0), *fitted, (0, 0))]
    return _max_pool(jax.lax.pad(x, jnp.asarray(-jnp.inf, x.dtype), edges), size, stride)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _max_pool(x: jax.Array, size: int, stride: int) -> jax.Array:
    return _maxima(x, size, stride)[0]


def _maxima(x: jax.Array, size: int, stride: int) -> tuple[jax.Array, jax.Array]:
    """The maximum of each window, and the number of the first tap that sees it."""
    maxima, taps = x, jnp.zeros(x.shape, _TAP)
    # Along the rows first: the first maximum of the first row that has it is then the first of all.
    for axis, number in ((2, 1), (1, _row(size, stride))):
        length = (maxima.shape[axis] - size) // stride + 1
        (maximum, tap), *others = (
            (one_tap(maxima, i, length, stride, axis), one_tap(taps, i, length, stride, axis))
            for i in range(size)
        )
        for i, (value, other) in enumerate(others, start=1):
            above = (value > maximum) | jnp.isnan(value)
            maximum = jnp.where(above, value, maximum)
            tap = jnp.where(above, other + _TAP(i * number), tap)
        maxima, taps = maximum, tap
    return maxima, taps


def _reach(size: int, stride: int) -> int:
    """How many windows along an axis a pixel can be in."""
    return -(-size // stride)


def _row(size: int, stride: int) -> int:
    """From the number of a tap to that of the one below, more than a row has."""
    return _reach(size, stride) * stride


def _backward(size: int, stride: int, taps: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
    reach, row = _reach(size, stride), _row(size, stride)
    image = [stride * (windows - 1) + size for windows in taps.shape[1:3]]
    around = ((0, 0), (reach - 1, reach - 1), (reach - 1, reach - 1), (0, 0))
    gradient = jnp.pad(gradient, around)
    taps = jnp.pad(taps, around, constant_values=-1)

    # Pixels in squares of a stride, [B, squares, stride, squares, stride, C]: those of a square are
    # in the same windows, and each tap of a window sees one.
    height, width = (length - reach + 1 for length in gradient.shape[1:3])
    places = jnp.arange(stride, dtype=_TAP)
    places = _TAP(row) * places[:, None, None, None] + places[:, None]
    total = jnp.zeros((), gradient.dtype)
    for i, j in itertools.product(range(reach), repeat=2):
        windows = (
            slice(None),
            slice(reach - 1 - i, reach - 1 - i + height),
            None,
            slice(reach - 1 - j, reach - 1 - j + width),
            None,
        )
        seen = taps[windows] == places + _TAP(stride * (row * i + j))
        total += jnp.where(seen, gradient[windows], 0)
    total = total.reshape(len(total), height * stride, width * stride, -1)
    return (total[:, : image[0], : image[1]],)


_max_pool.defvjp(_maxima, _backward)

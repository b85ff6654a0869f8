"""Max-pooling, with a separate program for CPUs.

Accelerators use `flax.linen.max_pool`.  XLA's CPU backend is slow at its gradient.  On CPUs, the
maxima are elementwise maxima of shifted images, and each pixel looks up its gradient in the windows
that contain it.

Arrays are NHWC.
"""

import itertools
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from resnet_jax.ops.gradients import custom_gradient
from resnet_jax.ops.platform import Program, by_platform, chosen_program
from resnet_jax.ops.windows import Pads, explicit_pads, fitted_pads, one_tap

# Holds the index of a tap in windows of up to 181 x 181 pixels.
_TAP = jnp.int16


class Windows(NamedTuple):
    """Everything about a pooling that is not an array.

    Attributes:
        size: height and width of the windows, in pixels.
        stride: distance between windows, in pixels.
        pads: pixels added (before, after) height and width.
        program: the program to use, see `resnet_jax.ops.platform.by_platform`.
    """

    size: int
    stride: int
    pads: Pads
    program: Program


def max_pool(
    x: jax.Array, size: int, stride: int, padding: str | Sequence[tuple[int, int]]
) -> jax.Array:
    """Return the maximum of each window; its gradient goes to the first of equal maxima.

    Args:
        x: float[B, H, W, C].
        size: height and width of the windows, in pixels.
        stride: distance between windows, in pixels.
        padding: pixels added (before, after) height and width, or ``"SAME"`` or ``"VALID"``.  They
            are never the maximum.

    Returns:
        [B, H', W', C].
    """
    pads = explicit_pads(x, (size, size), (stride, stride), padding)
    return _max_pool(x, Windows(size, stride, pads, chosen_program(x)))


def _forward(x: jax.Array, windows: Windows) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Return the maxima, and as residuals the image and the tap of each maximum.

    XLA removes the residual that the platform's gradient does not read.
    """
    y, taps = by_platform(
        x,
        cpu=partial(_maxima, windows=windows),
        default=partial(_plain_and_no_taps, windows=windows),
        program=windows.program,
    )
    return y, (x, taps)


def _backward(
    windows: Windows, saved: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array]:
    of_x = by_platform(
        *saved,
        gradient,
        cpu=partial(_looked_up, windows=windows),
        default=partial(_plain_gradient, windows=windows),
        program=windows.program,
    )
    return (of_x,)


@custom_gradient(_forward, _backward, static=(1,))
def _max_pool(x: jax.Array, windows: Windows) -> jax.Array:
    return _forward(x, windows)[0]


def _plain(x: jax.Array, windows: Windows) -> jax.Array:
    size, stride, pads, _ = windows
    return nn.max_pool(x, (size, size), (stride, stride), pads)


def _plain_and_no_taps(x: jax.Array, windows: Windows) -> tuple[jax.Array, jax.Array]:
    y = _plain(x, windows)
    return y, jnp.zeros(y.shape, _TAP)


def _plain_gradient(
    x: jax.Array, taps: jax.Array, gradient: jax.Array, windows: Windows
) -> jax.Array:
    del taps
    _, transposed = jax.vjp(partial(_plain, windows=windows), x)
    return transposed(gradient)[0]


def _fitted_edges(x: jax.Array, windows: Windows) -> list[tuple[int, int]]:
    """Return the pixels added (before, after) each axis, up to the end of the last window."""
    size, stride, pads, _ = windows
    return [(0, 0), *fitted_pads(x, (size, size), (stride, stride), pads), (0, 0)]


def _maxima(x: jax.Array, windows: Windows) -> tuple[jax.Array, jax.Array]:
    """Return the maximum of each window, and the index of the first tap that sees it."""
    size, stride, *_ = windows
    edges = [(before, after, 0) for before, after in _fitted_edges(x, windows)]
    maxima = jax.lax.pad(x, jnp.asarray(-jnp.inf, x.dtype), edges)
    taps = jnp.zeros(maxima.shape, _TAP)
    # Along rows first, so that ties go to the first maximum of the first row that has one.
    for axis, step in ((2, 1), (1, _row(size, stride))):
        length = (maxima.shape[axis] - size) // stride + 1
        (maximum, tap), *others = (
            (one_tap(maxima, i, length, stride, axis), one_tap(taps, i, length, stride, axis))
            for i in range(size)
        )
        for i, (value, other) in enumerate(others, start=1):
            above = (value > maximum) | jnp.isnan(value)
            maximum = jnp.where(above, value, maximum)
            tap = jnp.where(above, other + _TAP(i * step), tap)
        maxima, taps = maximum, tap
    return maxima, taps


def _reach(size: int, stride: int) -> int:
    """Return the largest number of windows along an axis that contain a pixel."""
    return -(-size // stride)


def _row(size: int, stride: int) -> int:
    """Return the difference between the indices of a tap and the tap below it.

    A row of squares has more pixels than a row of taps, so indices of different taps differ.
    """
    return _reach(size, stride) * stride


def _looked_up(x: jax.Array, taps: jax.Array, gradient: jax.Array, windows: Windows) -> jax.Array:
    """Return the gradient of x: each pixel collects it from the windows whose maximum it is."""
    size, stride, *_ = windows
    reach, row = _reach(size, stride), _row(size, stride)
    image = [stride * (number - 1) + size for number in taps.shape[1:3]]
    around = ((0, 0), (reach - 1, reach - 1), (reach - 1, reach - 1), (0, 0))
    gradient = jnp.pad(gradient, around)
    taps = jnp.pad(taps, around, constant_values=-1)

    # Pixels are grouped into squares of stride x stride, [B, squares, stride, squares, stride, C].
    # All pixels of a square are in the same windows, and each tap of a window sees one of them.
    height, width = (length - reach + 1 for length in gradient.shape[1:3])
    places = jnp.arange(stride, dtype=_TAP)
    places = _TAP(row) * places.reshape(1, 1, -1, 1, 1, 1) + places.reshape(1, 1, 1, 1, -1, 1)
    total = jnp.zeros((), gradient.dtype)
    for i, j in itertools.product(range(reach), repeat=2):
        shifted = (
            slice(None),
            slice(reach - 1 - i, reach - 1 - i + height),
            None,
            slice(reach - 1 - j, reach - 1 - j + width),
            None,
        )
        seen = taps[shifted] == places + _TAP(stride * (row * i + j))
        total += jnp.where(seen, gradient[shifted], 0)
    total = total.reshape(total.shape[0], height * stride, width * stride, -1)
    total = total[:, : image[0], : image[1]]
    edges = [(-before, -after, 0) for before, after in _fitted_edges(x, windows)]
    return jax.lax.pad(total, jnp.zeros((), total.dtype), edges)

"""Geometry of the windows of convolutions and pooling.  Arrays are NHWC."""

from collections.abc import Sequence

import jax

Sizes = tuple[int, int]
Pads = tuple[tuple[int, int], tuple[int, int]]


def explicit_pads(
    x: jax.Array,
    window: Sequence[int],
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
) -> Pads:
    """Return the pixels added (before, after) height and width.

    Args:
        x: [B, H, W, C].
        window: height and width in pixels.
        strides: step along height and width, in pixels.
        padding: the same pixels, or ``"SAME"`` or ``"VALID"``.
    """
    if isinstance(padding, str):
        padding = jax.lax.padtype_to_pads(x.shape[1:3], window, strides, padding)
    (top, bottom), (left, right) = padding
    return (top, bottom), (left, right)


def fitted_pads(x: jax.Array, window: Sequence[int], strides: Sequence[int], pads: Pads) -> Pads:
    """Trim the padding to the last pixel that a window reaches.

    A negative number of pixels after the image means that its last pixels are cut off.
    """
    rows, columns = (
        (before, after - (before + pixels + after - size) % stride)
        for pixels, size, stride, (before, after) in zip(
            x.shape[1:3], window, strides, pads, strict=True
        )
    )
    return rows, columns


def one_tap(x: jax.Array, start: int, length: int, stride: int, axis: int) -> jax.Array:
    """Return the pixels that one tap sees in consecutive windows along an axis.

    Args:
        x: any array.
        start: index of the pixel that the tap sees in the first window.
        length: number of windows.
        stride: distance between windows, in pixels.
        axis: the axis.
    """
    return jax.lax.slice_in_dim(x, start, start + (length - 1) * stride + 1, stride, axis)

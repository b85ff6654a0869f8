"""Winograd's algorithm for 3x3 convolutions: F(2x2, 3x3) of Lavin and Gray 2016, section 4.1.

A square of 2x2 output pixels depends on 4x4 input pixels.  Both are transformed by sums and
differences, and in between there are 16 products for each pair of channels instead of 36.  Results
differ from those of a convolution by rounding: the errors are about twice as large.

Arrays are NHWC and kernels are HWIO.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from resnet_jax.ops.windows import one_tap


def transformed_kernel(kernel: jax.Array) -> jax.Array:
    """Return the 4x4 products of a kernel, float[4, 4, C, F] for float[3, 3, C, F]."""

    def transform(first: jax.Array, second: jax.Array, third: jax.Array) -> jax.Array:
        outer = (first + third) / 2
        return jnp.stack([first, outer + second / 2, outer - second / 2, third])

    return transform(*jnp.moveaxis(transform(*kernel), 1, 0)).swapaxes(0, 1)


def convolve_squares(x: jax.Array, transformed: jax.Array, precision: Any) -> jax.Array:
    """Return the 3x3 convolution of stride 1 of images that are padded with one pixel.

    Args:
        x: float[B, H, W, C].
        transformed: float[4, 4, C, F], the result of `transformed_kernel`.
        precision: of the products, see `jax.lax.Precision`.

    Returns:
        float[B, H, W, F].
    """
    batch, height, width, _ = x.shape
    rows, columns = (height + 1) // 2, (width + 1) // 2
    y = _products(_transformed_images(x), transformed, 2, 1, precision)
    y = y.reshape(4, 4, batch, rows, columns, -1)
    below = _sums([jnp.stack(_sums(list(row)), axis=3) for row in y])
    y = jnp.stack(below, axis=2).reshape(batch, 2 * rows, 2 * columns, -1)
    return y[:, :height, :width]


def kernel_gradient_of_squares(x: jax.Array, gradient: jax.Array, precision: Any) -> jax.Array:
    """Return the gradient of the ``transformed`` kernel of `convolve_squares`.

    Args:
        x: float[B, H, W, C].
        gradient: float[B, H, W, F].
        precision: of the products, see `jax.lax.Precision`.

    Returns:
        float[4, 4, C, F].
    """
    height, width = gradient.shape[1:3]
    rows, columns = (height + 1) // 2, (width + 1) // 2
    gradient = jnp.pad(gradient, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
    products = jnp.stack(_spread([one_tap(gradient, i, rows, 2, 1) for i in range(2)]))
    products = [one_tap(products, j, columns, 2, 3) for j in range(2)]
    products = jnp.stack(_spread(products), axis=1)
    return _products(_transformed_images(x), products, 1, 1, precision)


def _transformed_images(x: jax.Array) -> jax.Array:
    """Return the input transform of the 4x4 pixels of each square, [4, 4, B, rows, columns, C]."""
    height, width = x.shape[1:3]
    rows, columns = (height + 1) // 2, (width + 1) // 2
    # One more pixel completes the last square of an odd size.
    x = jnp.pad(x, ((0, 0), (1, 1 + height % 2), (1, 1 + width % 2), (0, 0)))
    x = jnp.stack(_differences([one_tap(x, i, rows, 2, 1) for i in range(4)]))
    return jnp.stack(_differences([one_tap(x, j, columns, 2, 3) for j in range(4)]), axis=1)


def _products(a: jax.Array, b: jax.Array, axis_a: int, axis_b: int, precision: Any) -> jax.Array:
    """Return 4x4 matrix products of [4, 4, ..., C], whose matrices have two axes.

    ``axis_a`` and ``axis_b`` are the axes of the matrices that are summed over, 1 or 2.
    """
    a, b = (array.reshape(16, -1, array.shape[-1]) for array in (a, b))
    summed = (((axis_a,), (axis_b,)), ((0,), (0,)))
    y = jax.lax.dot_general(a, b, summed, precision=precision)
    return y.reshape(4, 4, *y.shape[1:])


def _differences(pixels: Sequence[jax.Array]) -> list[jax.Array]:
    """Return the input transform of 4 pixels in a row: 4 combinations of two of them."""
    first, second, third, fourth = pixels
    return [first - third, second + third, third - second, second - fourth]


def _sums(products: Sequence[jax.Array]) -> list[jax.Array]:
    """Return the output transform of 4 products: 2 pixels."""
    first, second, third, fourth = products
    return [first + second + third, second - third - fourth]


def _spread(pixels: Sequence[jax.Array]) -> list[jax.Array]:
    """Return the transpose of `_sums`: the gradients of 4 products from those of 2 pixels."""
    first, second = pixels
    return [first, first + second, first - second, -second]

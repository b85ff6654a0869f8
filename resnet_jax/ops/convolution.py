"""Two-dimensional convolution, with a separate program for CPUs.

Accelerators use `jax.lax.conv_general_dilated`.  XLA's CPU backend is slow at three kinds of it:
convolutions with few features, convolutions of images smaller than the kernel, and gradients of
kernels when the batch does not fit into the caches.  `convolve` avoids them on CPUs:

- A 1x1 convolution is one matrix product.
- A convolution of an image smaller than its kernel is one matrix product of its patches.
- Other convolutions with few features compute each kernel column as extra output features.  The
  gradients of their kernels are sums over slices of the batch.

Arrays are NHWC and kernels are HWIO.
"""

from collections.abc import Sequence
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from resnet_jax.ops.gradients import custom_gradient
from resnet_jax.ops.manual_axes import vary_over, varying_axes
from resnet_jax.ops.platform import (
    Program,
    by_platform,
    chosen_formulation,
    chosen_program,
    num_devices,
)
from resnet_jax.ops.precision import accumulation_type
from resnet_jax.ops.windows import Pads, Sizes, explicit_pads, fitted_pads, one_tap

CONVOLUTION = "convolution"
"""Name of every result of `convolve`, for the policies of `jax.checkpoint`."""

# Target size in bytes of a slice of images and gradients: about one L2 cache.
_SLICE_BYTES = 4 * 2**20

# Largest number of slices if each has its own kernels: more take longer to compile than they save.
_MOST_UNROLLED = 8

# XLA's CPU backend takes as long for fewer output features as for this number.
_WIDE = 128

# With fewer input channels, extra output features cost more than they save.
_WORTH_WIDENING = 16


class Geometry(NamedTuple):
    """Everything about a convolution that is not an array.

    Attributes:
        strides: step of the kernel along height and width, in pixels.
        pads: pixels added (before, after) height and width.
        dilation: distance between kernel taps along height and width, in pixels.
        precision: of the products, see `jax.lax.Precision`.
        program: the program to use, see `resnet_jax.ops.platform.by_platform`.
        devices: number of devices over which the batch is sharded.
    """

    strides: Sizes
    pads: Pads
    dilation: Sizes
    precision: Any
    program: Program = "default"
    devices: int = 1

    def window(self, kernel: jax.Array) -> Sizes:
        """Return the height and width of what the kernel sees, in pixels."""
        return _reach(kernel, self.dilation)


def convolve(
    x: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    precision: Any = None,
) -> jax.Array:
    """Return the convolution of images with a kernel.

    The nine parameters are those of `jax.lax.conv_general_dilated`, because `flax.linen.Conv` calls
    this function in its place.

    Args:
        x: [B, H, W, C].
        kernel: [h, w, C / feature_group_count, features].
        strides: step of the kernel along height and width, in pixels.
        padding: pixels added (before, after) height and width, or ``"SAME"`` or ``"VALID"``.
        lhs_dilation: ignored; images are never dilated.
        rhs_dilation: distance between kernel taps along height and width, in pixels.
        dimension_numbers: ignored; arrays are NHWC and kernels are HWIO.
        feature_group_count: number of groups into which the channels are split.
        precision: of the products, see `jax.lax.Precision`.

    Returns:
        [B, H', W', features].
    """
    del lhs_dilation, dimension_numbers
    dilation = _pair(rhs_dilation or (1, 1))
    window = _reach(kernel, dilation)
    pads = explicit_pads(x, window, strides, padding)
    program = chosen_program(x, kernel)
    geometry = Geometry(_pair(strides), pads, dilation, precision, program, num_devices())
    # Named so that `resnet_jax.ops.rematerialization.keep_convolutions` finds it.
    return checkpoint_name(_selected(x, kernel, geometry, feature_group_count), CONVOLUTION)


def _selected(x: jax.Array, kernel: jax.Array, geometry: Geometry, groups: int) -> jax.Array:
    if groups > 1:
        return _plain(x, kernel, geometry, groups)
    shape = (geometry.window(kernel), geometry.strides, geometry.pads)
    is_stem = shape == ((7, 7), (2, 2), ((3, 3), (3, 3)))
    match chosen_formulation():
        case "space_to_depth" if is_stem and x.shape[1] % 2 == x.shape[2] % 2 == 0:
            return _space_to_depth(x, kernel, geometry.precision)
        case "product" if _is_pointwise(kernel, geometry):
            geometry = geometry._replace(program="cpu")
    return _convolve(x, kernel, geometry)


def _reach(kernel: jax.Array, dilation: Sizes) -> Sizes:
    rows, columns = (d * (n - 1) + 1 for d, n in zip(dilation, kernel.shape[:2], strict=True))
    return rows, columns


def _pair(sizes: Sequence[int]) -> Sizes:
    height, width = sizes
    return height, width


def _is_pointwise(kernel: jax.Array, geometry: Geometry) -> bool:
    return kernel.shape[:2] == (1, 1) and geometry.pads == ((0, 0), (0, 0))


def _is_larger_than_image(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> bool:
    rows, columns = geometry.window(kernel)
    return x.shape[1] < rows or x.shape[2] < columns


def _forward(
    x: jax.Array, kernel: jax.Array, geometry: Geometry
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _unwrapped(x, kernel, geometry), (x, kernel)


def _backward(
    geometry: Geometry, saved: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    return _gradients(*saved, gradient, geometry)


# Networks repeat the same shapes: `jax.jit` traces each of them once.
@partial(jax.jit, static_argnums=3, inline=True)
def _gradients(
    x: jax.Array, kernel: jax.Array, gradient: jax.Array, geometry: Geometry
) -> tuple[jax.Array, jax.Array]:
    return by_platform(
        x,
        kernel,
        gradient,
        cpu=partial(_cpu_gradients, geometry=geometry),
        default=partial(_plain_gradients, geometry=geometry),
        program=geometry.program,
    )


@partial(jax.jit, static_argnums=2, inline=True)
def _unwrapped(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    return by_platform(
        x,
        kernel,
        cpu=partial(_cpu, geometry=geometry),
        default=partial(_plain, geometry=geometry),
        program=geometry.program,
    )


_convolve = custom_gradient(_forward, _backward, static=(2,))(_unwrapped)


def _plain(x: jax.Array, kernel: jax.Array, geometry: Geometry, groups: int = 1) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        geometry.strides,
        geometry.pads,
        rhs_dilation=geometry.dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
        precision=geometry.precision,
    )


def _plain_gradients(
    x: jax.Array, kernel: jax.Array, gradient: jax.Array, geometry: Geometry
) -> tuple[jax.Array, jax.Array]:
    of_x = jax.linear_transpose(lambda x: _plain(x, kernel, geometry), x)
    of_kernel = jax.linear_transpose(lambda kernel: _plain(x, kernel, geometry), kernel)
    return of_x(gradient)[0], of_kernel(gradient)[0]


def _cpu(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    if _is_pointwise(kernel, geometry):
        return _product(x, kernel, geometry)
    if _is_larger_than_image(x, kernel, geometry):
        return _product_of_patches(x, kernel, geometry)
    return _widened(x, kernel, geometry)


def _cpu_gradients(
    x: jax.Array, kernel: jax.Array, gradient: jax.Array, geometry: Geometry
) -> tuple[jax.Array, jax.Array]:
    if _is_pointwise(kernel, geometry):
        return _product_gradients(x, kernel, gradient, geometry)
    if _is_larger_than_image(x, kernel, geometry):
        _, transposed = jax.vjp(partial(_product_of_patches, geometry=geometry), x, kernel)
        return transposed(gradient)
    if geometry.strides == (1, 1):
        # Written as a convolution: XLA's CPU backend is slow at the transpose within loops.
        flipped = kernel[::-1, ::-1].swapaxes(2, 3)
        rows, columns = (
            (size - 1 - before, size - 1 - after)
            for size, (before, after) in zip(geometry.window(kernel), geometry.pads, strict=True)
        )
        of_x = _widened(gradient, flipped, geometry._replace(pads=(rows, columns)))
    else:
        transposed = jax.linear_transpose(lambda x: _plain(x, kernel, geometry), x)
        of_x = transposed(gradient)[0]
    of_kernel = _kernel_gradient_of_slices(x, kernel, gradient, geometry)
    return of_x, of_kernel.astype(kernel.dtype)


def _product(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """Return a 1x1 convolution, computed as one matrix product."""
    rows, columns = geometry.strides
    x = x[:, ::rows, ::columns]
    y = jnp.dot(x.reshape(-1, x.shape[-1]), kernel[0, 0], precision=geometry.precision)
    return y.reshape(*x.shape[:-1], kernel.shape[-1])


def _product_gradients(
    x: jax.Array, kernel: jax.Array, gradient: jax.Array, geometry: Geometry
) -> tuple[jax.Array, jax.Array]:
    """Return the gradients of `_product` with respect to x and kernel."""
    rows, columns = geometry.strides

    def subsampled(x: jax.Array) -> jax.Array:
        return x[:, ::rows, ::columns]

    seen = subsampled(x)
    pixels = seen.reshape(-1, x.shape[-1])
    gradients = gradient.reshape(-1, gradient.shape[-1])
    of_pixels = jnp.dot(gradients, kernel[0, 0].T, precision=geometry.precision)
    of_x = of_pixels.reshape(seen.shape)
    if (rows, columns) != (1, 1):
        of_x = jax.linear_transpose(subsampled, x)(of_x)[0]
    over_pixels = partial(
        jax.lax.dot_general,
        dimension_numbers=(((0,), (0,)), ((), ())),
        precision=geometry.precision,
        preferred_element_type=accumulation_type(x.dtype),
    )
    if pixels.shape[1] <= gradients.shape[1]:
        of_kernel = over_pixels(pixels, gradients)
    else:
        # XLA transposes the first operand, so the smaller one comes first.  Without the barrier
        # XLA would swap them again.
        of_kernel = jax.lax.optimization_barrier(over_pixels(gradients, pixels)).T
    return of_x, of_kernel[None, None].astype(kernel.dtype)


def _product_of_patches(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """Return a convolution, computed as one matrix product of the patches that the kernel sees.

    XLA's CPU backend takes up to 90 times as long if an image is smaller than its kernel.
    """
    rows, columns, _, features = kernel.shape
    padded = jnp.pad(x, ((0, 0), *geometry.pads, (0, 0)))
    height, width = (
        (pixels - size) // stride + 1
        for pixels, size, stride in zip(
            padded.shape[1:3], geometry.window(kernel), geometry.strides, strict=True
        )
    )
    taps = [
        one_tap(
            one_tap(padded, i * geometry.dilation[0], height, geometry.strides[0], 1),
            j * geometry.dilation[1],
            width,
            geometry.strides[1],
            2,
        )
        for i in range(rows)
        for j in range(columns)
    ]
    patches = jnp.concatenate(taps, axis=-1)
    y = jnp.dot(
        patches.reshape(-1, patches.shape[-1]),
        kernel.reshape(-1, features),
        precision=geometry.precision,
    )
    return y.reshape(x.shape[0], height, width, features)


def _widened(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """Return a convolution; if it has few features, compute kernel columns as extra features.

    XLA's CPU backend takes as long for 64 features as for 128.  The results of the columns are then
    shifted to their places and added.
    """
    rows, columns, channels, features = kernel.shape
    narrow = columns > 1 and features < _WIDE and channels >= _WORTH_WIDENING
    if not narrow or geometry.strides != (1, 1) or x.dtype != jnp.float32:
        return _plain(x, kernel, geometry)
    side_by_side = kernel.swapaxes(1, 2).reshape(rows, 1, channels, columns * features)
    y = _plain(x, side_by_side, geometry)
    y = y.reshape(*y.shape[:3], columns, features)
    step = geometry.dilation[1]
    width = y.shape[2] - step * (columns - 1)
    return reduce(jnp.add, (one_tap(y[..., j, :], j * step, width, 1, 2) for j in range(columns)))


def _space_to_depth(x: jax.Array, kernel: jax.Array, precision: Any) -> jax.Array:
    """Return a 7x7 convolution of stride 2, computed as a 4x4 one on squares of 2x2 pixels.

    The kernel first gets a row and a column of zeros.  It then has four times the channels.
    """
    batch, height, width, channels = x.shape
    squares = x.reshape(batch, height // 2, 2, width // 2, 2, channels).swapaxes(2, 3)
    taps = jnp.pad(kernel, ((1, 0), (1, 0), (0, 0), (0, 0)))
    taps = taps.reshape(4, 2, 4, 2, channels, -1).swapaxes(1, 2)
    return _plain(
        squares.reshape(batch, height // 2, width // 2, 4 * channels),
        taps.reshape(4, 4, 4 * channels, -1),
        Geometry((1, 1), ((2, 1), (2, 1)), (1, 1), precision),
    )


def _kernel_gradient_of_slices(
    x: jax.Array, kernel: jax.Array, gradient: jax.Array, geometry: Geometry
) -> jax.Array:
    """Return the gradient of a kernel as a sum over slices of the batch, in at least float32.

    The gradient of one slice is itself a convolution: its images are the channels of x, its kernel
    is the gradient, and stride and dilation swap their roles.  Written that way it is fast within
    loops, where XLA's CPU backend is slow at the transpose of a convolution.
    """
    wide = accumulation_type(x.dtype)
    x, gradient = x.astype(wide), gradient.astype(wide)
    number = _num_slices(x, kernel, gradient, geometry.devices)
    # Slices take every number-th example, so that each device holds an equal share of each slice
    # and needs no images of other devices.
    xs, gradients = (array.reshape(-1, number, *array.shape[1:]) for array in (x, gradient))
    transposed = geometry._replace(
        strides=geometry.dilation,
        pads=fitted_pads(x, geometry.window(kernel), geometry.strides, geometry.pads),
        dilation=geometry.strides,
    )

    def of_slice(i: jax.Array | int) -> jax.Array:
        images, windows = (
            jax.lax.dynamic_index_in_dim(slices, i, axis=1, keepdims=False)
            for slices in (xs, gradients)
        )
        return _plain(images.transpose(3, 1, 2, 0), windows.transpose(1, 2, 0, 3), transposed)

    if number == 1 or geometry.devices > 1:
        # In a loop, the devices would wait for each other after every iteration.
        total = reduce(jnp.add, map(of_slice, range(number)))
    else:
        shape = (kernel.shape[2], *kernel.shape[:2], kernel.shape[3])
        total = vary_over(varying_axes(x, gradient), jnp.zeros(shape, wide))
        total = jax.lax.fori_loop(0, number, lambda i, total: total + of_slice(i), total)
    return total.transpose(1, 2, 0, 3)


def _num_slices(x: jax.Array, kernel: jax.Array, gradient: jax.Array, devices: int) -> int:
    """Return the number of slices of about `_SLICE_BYTES` each, at least the size of the kernel.

    It divides the number of examples on each device.
    """
    batch = x.shape[0]
    if jax.export.is_symbolic_dim(batch) or batch % devices:
        return 1
    share = batch // devices
    wanted = (x.nbytes + gradient.nbytes) / devices / max(_SLICE_BYTES, kernel.nbytes)
    most = share if devices == 1 else min(share, _MOST_UNROLLED)
    divisors = (n for n in range(1, most + 1) if share % n == 0)
    return min(divisors, key=lambda n: max(n / wanted, wanted / n))

"""How convolutions are computed: the same numbers, in the way a platform does fast.

Accelerators have kernels for `jax.lax.conv_general_dilated`, and get it.  XLA's CPU backend is slow
at convolutions of few features or of images smaller than the kernel, and at the gradients of
kernels where a batch does not fit into the caches.  There, the columns of a kernel are features at
first, the gradients are sums over parts of the batch, and convolutions of 1x1 or of tiny images are
products of two matrices.

Arrays are NHWC and kernels HWIO.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial, reduce
from typing import Any, Literal

import jax
import jax.numpy as jnp

Formulation = Literal["convolution", "parts", "product", "space_to_depth"]
Pads = tuple[tuple[int, int], tuple[int, int]]

_chosen: ContextVar[Formulation | None] = ContextVar("formulation", default=None)

# Bytes of images and gradients from which a kernel's gradient is computed at once: what the second
# level of the caches of a CPU holds.
_PART = 4 * 2**20

# Where each part has kernels of its own, more take longer to compile than they save.
_MOST_UNROLLED = 8

# Features that a convolution needs to be fast.
_WIDE = 128

# Channels from which a convolution is worth more features.
_WORTH_WIDENING = 16


@contextmanager
def formulation(name: Formulation) -> Iterator[None]:
    """Within it, what is traced is computed in this way on every platform.

    What `jax.jit` has compiled before stays as it is.

    Args:
        name: ``"parts"``, the default on CPUs, or ``"convolution"``, the default elsewhere.
            Where ``"convolution"`` is asked for, no derivative is written by hand, not even that
            of BatchNorm, so that forward mode works too (`jax.jvp`, `jax.hessian`).
            ``"product"`` computes convolutions of 1x1 as products of matrices, and all else as
            accelerators do; ``"space_to_depth"`` the stem of ImageNet networks on squares of 2x2
            pixels.
    """
    token = _chosen.set(name)
    try:
        yield
    finally:
        _chosen.reset(token)


def forward_mode() -> bool:
    """Whether every derivative is to be left to JAX."""
    return _chosen.get() == "convolution"


def _current() -> Formulation:
    return _chosen.get() or ("parts" if jax.default_backend() == "cpu" else "convolution")


def by_hand() -> bool:
    """Whether what XLA's CPU backend is slow at is to be written in another way."""
    return _current() == "parts"


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
    """`jax.lax.conv_general_dilated` of images, for `flax.linen.Conv` to call.

    Args:
        x: [B, H, W, C].
        kernel: [h, w, C / feature_group_count, features].
        strides: in pixels, along height and width.
        padding: pixels (before, after) of height and width, or ``"SAME"``.
        lhs_dilation: ones; images are not dilated here.
        rhs_dilation: distances between the taps of the kernel, in pixels.
        dimension_numbers: those of NHWC and HWIO.
        feature_group_count: groups that the channels are split into.
        precision: of the products, see `jax.lax.Precision`.

    Returns:
        [B, H', W', features].
    """
    del lhs_dilation, dimension_numbers
    dilation = tuple(rhs_dilation or (1, 1))
    window = tuple(d * (n - 1) + 1 for d, n in zip(dilation, kernel.shape[:2], strict=True))
    pads = explicit_pads(x, window, strides, padding)
    stem = (window, tuple(strides), pads) == ((7, 7), (2, 2), ((3, 3), (3, 3)))
    if _chosen.get() == "space_to_depth" and stem and x.shape[1] % 2 == x.shape[2] % 2 == 0:
        return _space_to_depth(x, kernel, precision)
    way = _current() if feature_group_count == 1 else "convolution"
    if way in ("parts", "product") and window == (1, 1) and pads == ((0, 0), (0, 0)):
        x = x[:, :: strides[0], :: strides[1]]
        y = _product(x.reshape(-1, x.shape[-1]), kernel[0, 0], precision)
        return y.reshape(*x.shape[:-1], -1)
    if way != "parts":
        return _convolution(x, kernel, strides, pads, dilation, feature_group_count, precision)
    if x.shape[1] < window[0] or x.shape[2] < window[1]:
        return _of_patches(x, kernel, strides, pads, dilation, precision)
    return _convolve(x, kernel, tuple(strides), pads, dilation, precision)


def explicit_pads(
    x: jax.Array,
    window: Sequence[int],
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
) -> Pads:
    """Pixels (before, after) of height and width, as they are or by ``"SAME"`` or ``"VALID"``."""
    if isinstance(padding, str):
        padding = jax.lax.padtype_to_pads(x.shape[1:3], window, strides, padding)
    (top, bottom), (left, right) = padding
    return (top, bottom), (left, right)


def fitted_pads(x: jax.Array, window: Sequence[int], strides: Sequence[int], pads: Pads) -> Pads:
    """The same where the image ends with its last window; what is negative is cut off."""
    rows, columns = (
        (before, after - (before + pixels + after - size) % stride)
        for pixels, size, stride, (before, after) in zip(
            x.shape[1:3], window, strides, pads, strict=True
        )
    )
    return rows, columns


def _convolution(
    x: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    pads: Pads,
    dilation: Sequence[int],
    groups: int,
    precision: Any,
) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        strides,
        pads,
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
        precision=precision,
    )


def _widened(
    x: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    pads: Pads,
    dilation: Sequence[int],
    precision: Any,
) -> jax.Array:
    """A convolution; where it has few features, the columns of its kernel are features at first.

    XLA's CPU backend takes as long for 64 features as for 128.  The results of the columns are then
    added up, each shifted by its place.
    """
    rows, columns, channels, features = kernel.shape
    narrow = columns > 1 and features < _WIDE and channels >= _WORTH_WIDENING
    if not narrow or tuple(strides) != (1, 1) or x.dtype != jnp.float32:
        return _convolution(x, kernel, strides, pads, dilation, 1, precision)
    side_by_side = kernel.swapaxes(1, 2).reshape(rows, 1, channels, columns * features)
    y = _convolution(x, side_by_side, (1, 1), pads, dilation, 1, precision)
    y = y.reshape(*y.shape[:3], columns, features)
    width = y.shape[2] - dilation[1] * (columns - 1)
    taps = (one_tap(y[..., j, :], j * dilation[1], width, 1, 2) for j in range(columns))
    return reduce(jnp.add, taps)


def _of_patches(
    x: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    pads: Pads,
    dilation: Sequence[int],
    precision: Any,
) -> jax.Array:
    """A convolution as one product of what the kernel sees, its taps side by side.

    XLA's CPU backend takes up to 90 times as long where an image is smaller than its kernel.
    """
    rows, columns, _, features = kernel.shape
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    height, width = (
        (size - d * (n - 1) - 1) // stride + 1
        for size, d, n, stride in zip(
            padded.shape[1:3], dilation, (rows, columns), strides, strict=True
        )
    )
    taps = [
        one_tap(
            one_tap(padded, i * dilation[0], height, strides[0], 1), start, width, strides[1], 2
        )
        for i in range(rows)
        for start in range(0, columns * dilation[1], dilation[1])
    ]
    patches = jnp.concatenate(taps, axis=-1)
    y = jnp.dot(
        patches.reshape(-1, patches.shape[-1]), kernel.reshape(-1, features), precision=precision
    )
    return y.reshape(len(x), height, width, features)


def _space_to_depth(x: jax.Array, kernel: jax.Array, precision: Any) -> jax.Array:
    """A 7x7 convolution of stride 2 as a 4x4 one of squares of 2x2 pixels, with more channels.

    The kernel has a row and a column of zeros before it then.
    """
    batch, height, width, channels = x.shape
    squares = x.reshape(batch, height // 2, 2, width // 2, 2, channels).swapaxes(2, 3)
    taps = jnp.pad(kernel, ((1, 0), (1, 0), (0, 0), (0, 0)))
    taps = taps.reshape(4, 2, 4, 2, channels, -1).swapaxes(1, 2)
    return _convolution(
        squares.reshape(batch, height // 2, width // 2, 4 * channels),
        taps.reshape(4, 4, 4 * channels, -1),
        (1, 1),
        ((2, 1), (2, 1)),
        (1, 1),
        1,
        precision,
    )


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _product(x: jax.Array, kernel: jax.Array, precision: Any) -> jax.Array:
    """[N, C] times [C, features]."""
    return jnp.dot(x, kernel, precision=precision)


def _product_forward(
    x: jax.Array, kernel: jax.Array, precision: Any
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _product(x, kernel, precision), (x, kernel)


def _product_backward(
    precision: Any, saved: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    of_x = jnp.dot(gradient, kernel.T, precision=precision)
    over_rows = partial(
        jax.lax.dot_general,
        dimension_numbers=(((0,), (0,)), ((), ())),
        precision=precision,
        preferred_element_type=jnp.promote_types(x.dtype, jnp.float32),
    )
    if x.shape[1] <= gradient.shape[1]:
        of_kernel = over_rows(x, gradient)
    else:
        # XLA turns the first operand, so the smaller one; without a barrier it would swap them.
        of_kernel = jax.lax.optimization_barrier(over_rows(gradient, x)).T
    return of_x, of_kernel.astype(kernel.dtype)


_product.defvjp(_product_forward, _product_backward)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4, 5))
def _convolve(
    x: jax.Array,
    kernel: jax.Array,
    strides: tuple[int, int],
    pads: Pads,
    dilation: tuple[int, int],
    precision: Any,
) -> jax.Array:
    """A convolution whose kernel has its gradient from parts of the batch."""
    return _widened(x, kernel, strides, pads, dilation, precision)


def _forward(
    x: jax.Array, kernel: jax.Array, *static: Any
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _convolve(x, kernel, *static), (x, kernel)


def _backward(
    strides: tuple[int, int],
    pads: Pads,
    dilation: tuple[int, int],
    precision: Any,
    saved: tuple[jax.Array, jax.Array],
    gradient: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    if strides == (1, 1):
        # Written as the convolution that it is: within loops, XLA is slow at its own.
        flipped = kernel[::-1, ::-1].swapaxes(2, 3)
        reach = [d * (n - 1) for d, n in zip(dilation, kernel.shape[:2], strict=True)]
        rows, columns = (
            (n - before, n - after) for n, (before, after) in zip(reach, pads, strict=True)
        )
        of_x = _widened(gradient, flipped, strides, (rows, columns), dilation, precision)
    else:
        _, transposed = jax.vjp(
            lambda x: _convolution(x, kernel, strides, pads, dilation, 1, precision), x
        )
        of_x = transposed(gradient)[0]
    of_kernel = _from_parts(x, kernel, gradient, strides, pads, dilation, precision)
    return of_x, of_kernel.astype(kernel.dtype)


_convolve.defvjp(_forward, _backward)


def _from_parts(
    x: jax.Array,
    kernel: jax.Array,
    gradient: jax.Array,
    strides: tuple[int, int],
    pads: Pads,
    dilation: tuple[int, int],
    precision: Any,
) -> jax.Array:
    """The gradient of a kernel, as the sum of those of parts of the batch.

    That of a part is a convolution, whose images are the channels of x and whose kernel is the
    gradient, strided by the dilation and dilated by the strides.  It is written as one, as XLA is
    slow at its own within loops.
    """
    wide = jnp.promote_types(x.dtype, jnp.float32)
    x, gradient = x.astype(wide), gradient.astype(wide)
    num_parts = _num_parts(x, kernel, gradient)
    # Every device has its share of every part, so that none needs the images of another.
    xs, gradients = (array.reshape(-1, num_parts, *array.shape[1:]) for array in (x, gradient))
    window = [d * (n - 1) + 1 for d, n in zip(dilation, kernel.shape[:2], strict=True)]
    fitted = fitted_pads(x, window, strides, pads)

    def of_part(i: jax.Array | int) -> jax.Array:
        images, windows = (
            jax.lax.dynamic_index_in_dim(parts, i, axis=1, keepdims=False)
            for parts in (xs, gradients)
        )
        return _convolution(
            images.transpose(3, 1, 2, 0),
            windows.transpose(1, 2, 0, 3),
            dilation,
            fitted,
            strides,
            1,
            precision,
        )

    if num_parts == 1 or jax.device_count() > 1:
        # Several devices would wait for each other after every turn of a loop.
        total = reduce(jnp.add, map(of_part, range(num_parts)))
    else:
        total = jnp.zeros((kernel.shape[2], *kernel.shape[:2], kernel.shape[3]), wide)
        total = jax.lax.fori_loop(0, num_parts, lambda i, total: total + of_part(i), total)
    return total.transpose(1, 2, 0, 3)


def _num_parts(x: jax.Array, kernel: jax.Array, gradient: jax.Array) -> int:
    """So many that each just fits into a cache, but is not smaller than the sum it is added to."""
    devices = jax.device_count()
    if len(x) % devices:
        return 1
    share = len(x) // devices
    wanted = (x.nbytes + gradient.nbytes) / devices / max(_PART, kernel.nbytes)
    most = share if devices == 1 else min(share, _MOST_UNROLLED)
    divisors = (n for n in range(1, most + 1) if share % n == 0)
    return min(divisors, key=lambda n: max(n / wanted, wanted / n))


def one_tap(x: jax.Array, start: int, length: int, stride: int, axis: int) -> jax.Array:
    """What one tap of the windows sees along an axis."""
    return jax.lax.slice_in_dim(x, start, start + (length - 1) * stride + 1, stride, axis)

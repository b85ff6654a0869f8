"""How convolutions and max-pooling are computed: the same numbers, in the way a platform does fast.

Accelerators have kernels for `jax.lax.conv_general_dilated`, and get it.  XLA's CPU backend is slow
at the gradients of convolutions and of max-pooling, and fast at products of two matrices: there,
both are written with such products and with elementwise operations on shifted images.

Arrays are NHWC and kernels HWIO.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

Formulation = Literal["convolution", "product", "space_to_depth"]
Pads = tuple[tuple[int, int], tuple[int, int]]

_chosen: ContextVar[Formulation | None] = ContextVar("formulation", default=None)

# Channels from which a product with the taps of a kernel one by one has the width it needs to be
# fast; with fewer, the taps of a row are put side by side.
_WIDE = 128

# Features below which `jax.lax` is the faster one on CPUs too, as in the networks for CIFAR.
_NARROW = 64


@contextmanager
def formulation(name: Formulation) -> Iterator[None]:
    """Within it, what is traced is computed in this way on every platform.

    What `jax.jit` has compiled before stays as it is.

    Args:
        name: ``"product"``, the default on CPUs, or ``"convolution"``, the default elsewhere.
            Where ``"convolution"`` is asked for, no derivative is written by hand, not even that
            of BatchNorm, so that forward mode works too (`jax.jvp`, `jax.hessian`).
            ``"space_to_depth"`` computes the stem of ImageNet networks on squares of 2x2 pixels,
            and all else as accelerators do.
    """
    token = _chosen.set(name)
    try:
        yield
    finally:
        _chosen.reset(token)


def forward_mode() -> bool:
    """Whether every derivative is to be left to JAX."""
    return _chosen.get() == "convolution"


def _products() -> bool:
    platform_default = "product" if jax.default_backend() == "cpu" else "convolution"
    return (_chosen.get() or platform_default) == "product"


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
    pads = _pads(x, window, strides, padding)
    stem = (window, tuple(strides), pads) == ((7, 7), (2, 2), ((3, 3), (3, 3)))
    if _chosen.get() == "space_to_depth" and stem and x.shape[1] % 2 == x.shape[2] % 2 == 0:
        return _space_to_depth(x, kernel, precision)
    if feature_group_count > 1 or not _products():
        return _convolution(x, kernel, strides, pads, dilation, feature_group_count, precision)
    if window == (1, 1) and pads == ((0, 0), (0, 0)):
        x = x[:, :: strides[0], :: strides[1]]
        y = jnp.dot(x.reshape(-1, x.shape[-1]), kernel[0, 0], precision=precision)
        return y.reshape(*x.shape[:-1], -1)
    if _chosen.get() is None and kernel.shape[-1] < _NARROW:
        return _convolution(x, kernel, strides, pads, dilation, 1, precision)
    return _convolve(x, kernel, tuple(strides), pads, dilation, precision)


def max_pool(
    x: jax.Array, size: int, stride: int, padding: str | Sequence[tuple[int, int]]
) -> jax.Array:
    """The maximum of each window; its gradient goes to the first of equal maxima.

    Args:
        x: float[B, H, W, C].
        size: of the windows, height and width in pixels.
        stride: in pixels.
        padding: as in `convolve`; it is never the maximum.

    Returns:
        [B, H', W', C].
    """
    pads = _pads(x, (size, size), (stride, stride), padding)
    if not _products():
        return nn.max_pool(x, (size, size), (stride, stride), pads)
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)), constant_values=-jnp.inf)
    # Along the rows first: the first maximum of the first row that has it is then the first of all.
    for axis in (2, 1):
        length = (x.shape[axis] - size) // stride + 1
        first, *others = (_taps(x, i, length, stride, axis) for i in range(size))
        for other in others:
            first = jnp.where((other > first) | jnp.isnan(other), other, first)
        x = first
    return x


def _pads(
    x: jax.Array,
    window: Sequence[int],
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
) -> Pads:
    if isinstance(padding, str):
        padding = jax.lax.padtype_to_pads(x.shape[1:3], window, strides, padding)
    (top, bottom), (left, right) = padding
    return (top, bottom), (left, right)


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


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4, 5))
def _convolve(
    x: jax.Array,
    kernel: jax.Array,
    strides: tuple[int, int],
    pads: Pads,
    dilation: tuple[int, int],
    precision: Any,
) -> jax.Array:
    """A convolution whose kernel has its gradient from matrix products."""
    return _convolution(x, kernel, strides, pads, dilation, 1, precision)


def _forward(
    x: jax.Array,
    kernel: jax.Array,
    strides: tuple[int, int],
    pads: Pads,
    dilation: tuple[int, int],
    precision: Any,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _convolution(x, kernel, strides, pads, dilation, 1, precision), (x, kernel)


def _backward(
    strides: tuple[int, int],
    pads: Pads,
    dilation: tuple[int, int],
    precision: Any,
    saved: tuple[jax.Array, jax.Array],
    gradient: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    _, transposed = jax.vjp(
        lambda x: _convolution(x, kernel, strides, pads, dilation, 1, precision), x
    )
    rows, columns, channels, features = kernel.shape
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    height, width = gradient.shape[1:3]
    parts = [_taps(padded, j * dilation[1], width, strides[1], 2) for j in range(columns)]
    if channels < _WIDE:
        parts = [jnp.concatenate(parts, axis=-1)]
    products = [
        jax.lax.dot_general(
            tap.reshape(-1, tap.shape[-1]),
            gradient.reshape(-1, features),
            (((0,), (0,)), ((), ())),
            precision=precision,
            preferred_element_type=jnp.promote_types(x.dtype, jnp.float32),
        )
        for i in range(rows)
        for part in parts
        for tap in [_taps(part, i * dilation[0], height, strides[0], 1)]
    ]
    return transposed(gradient)[0], jnp.stack(products).reshape(kernel.shape).astype(kernel.dtype)


_convolve.defvjp(_forward, _backward)


def _taps(x: jax.Array, start: int, length: int, stride: int, axis: int) -> jax.Array:
    """What one tap of the windows sees along an axis."""
    return jax.lax.slice_in_dim(x, start, start + (length - 1) * stride + 1, stride, axis)

"""Application of one operation, drawn at random, without the cost of the others.

All geometric operations share one gather, which applies an affine map.  All point operations share
one look-up in a table of 256 levels.  Each remaining operation is a branch of `jax.lax.switch`.
Only operations that can be drawn are compiled.
"""

import enum
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from resnet_jax.data.augment import color, filters, geometric, tables


class Operation(enum.IntEnum):
    """Operations on an image. The docstring of each member says what its argument means.

    The arguments and the results are Pillow's; see the functions of the same names.
    """

    IDENTITY = enum.auto()
    """No argument."""
    SHEAR_X = enum.auto()
    """Columns to the left for each row down."""
    SHEAR_Y = enum.auto()
    """Rows up for each column to the right."""
    TRANSLATE_X = enum.auto()
    """Pixels to the right."""
    TRANSLATE_Y = enum.auto()
    """Pixels down."""
    ROTATE = enum.auto()
    """Degrees, counter-clockwise."""
    BRIGHTNESS = enum.auto()
    """Factor; 1 changes nothing."""
    COLOR = enum.auto()
    """Factor; 0 gives gray and 1 changes nothing."""
    CONTRAST = enum.auto()
    """Factor; 1 changes nothing."""
    SHARPNESS = enum.auto()
    """Factor; 1 changes nothing."""
    HUE = enum.auto()
    """Rotation in turns of the color circle, from -0.5 to 0.5."""
    POSTERIZE = enum.auto()
    """Number of bits to keep, from 0 to 8."""
    SOLARIZE = enum.auto()
    """Lowest level that is inverted, from 0 to 256."""
    SOLARIZE_ADD = enum.auto()
    """Number of levels to add to levels below 128."""
    AUTOCONTRAST = enum.auto()
    """No argument."""
    EQUALIZE = enum.auto()
    """No argument."""
    INVERT = enum.auto()
    """No argument."""
    GAUSSIAN_BLUR = enum.auto()
    """Radius in pixels, from 0 to 2."""


# Functions of (image, argument) that return an affine map, a table, or an image.
_Function = Callable[[jax.Array, jax.Array], jax.Array]

_WARPS: dict[Operation, _Function] = {
    Operation.SHEAR_X: geometric.shear_x,
    Operation.SHEAR_Y: geometric.shear_y,
    Operation.TRANSLATE_X: geometric.translate_x,
    Operation.TRANSLATE_Y: geometric.translate_y,
    Operation.ROTATE: geometric.rotate,
}
_TABLES: dict[Operation, _Function] = {
    Operation.BRIGHTNESS: tables.brightness,
    Operation.CONTRAST: tables.contrast,
    Operation.POSTERIZE: tables.posterize,
    Operation.SOLARIZE: tables.solarize,
    Operation.SOLARIZE_ADD: tables.solarize_add,
    Operation.AUTOCONTRAST: tables.autocontrast,
    Operation.EQUALIZE: tables.equalize,
    Operation.INVERT: tables.invert,
}
_OTHERS: dict[Operation, _Function] = {
    Operation.IDENTITY: lambda image, _: image,
    Operation.COLOR: color.enhance_color,
    Operation.HUE: color.turn_hue,
    Operation.SHARPNESS: filters.sharpness,
    Operation.GAUSSIAN_BLUR: filters.gaussian_blur,
}


def apply_operation(
    image: jax.Array,
    operation: jax.Array,
    argument: jax.Array,
    *,
    among: Collection[Operation],
    interpolation: geometric.Interpolation = "nearest",
    fill: Sequence[int] = (0,),
) -> jax.Array:
    """Apply one operation to one image.

    Args:
        image: uint8[H, W, C]. Operations on colors and levels need 1 or 3 channels.
        operation: int32[], an `Operation`.
        argument: float32[], the argument of the operation; see `Operation`.
        among: All values that ``operation`` can have. Only these are compiled.
        interpolation: Interpolation of shears, translations and rotations.
        fill: Levels that these show outside the image: one value, or one for each channel.

    Returns:
        uint8[H, W, C].
    """
    warps, point_operations, branches = (
        {name: function for name, function in group.items() if name in among}
        for group in (_WARPS, _TABLES, _OTHERS)
    )

    def warp(image: jax.Array, argument: jax.Array) -> jax.Array:
        affine = _switch(warps, operation, image, argument)
        return geometric.warp(image, affine, interpolation=interpolation, fill=fill)

    def look_up(image: jax.Array, argument: jax.Array) -> jax.Array:
        return tables.look_up(image, _switch(point_operations, operation, image, argument))

    branches |= dict.fromkeys(warps, warp) | dict.fromkeys(point_operations, look_up)
    return _switch(branches, operation, image, argument)


def _switch(functions: Mapping[Operation, Any], operation: jax.Array, *operands: Any) -> jax.Array:
    """Call the function of an operation. A function that several operations share is one branch."""
    distinct = list(dict.fromkeys(functions.values()))
    branch = np.zeros(max(Operation) + 1, np.int32)
    for name, function in functions.items():
        branch[name] = distinct.index(function)
    return jax.lax.switch(jnp.asarray(branch)[operation], distinct, *operands)

"""One of the operations, drawn for one image, without paying for the others.

What moves pixels is one affine map and one gather, whatever the operation; what changes levels one
by one is a table of 256 and one look-up.  The few that are neither have a branch of `lax.switch`
each, and only branches that can be drawn are compiled.
"""

import enum
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from resnet_jax.data.augment import color, filters, geometric, tables


class Operation(enum.IntEnum):
    """What can be done to an image; behind each, what its argument means.

    The meanings are Pillow's, and so are the results; see the functions of the same names.
    """

    IDENTITY = enum.auto()
    """No argument."""
    SHEAR_X = enum.auto()
    """Columns a row, to the left."""
    SHEAR_Y = enum.auto()
    """Rows a column, up."""
    TRANSLATE_X = enum.auto()
    """Pixels to the right."""
    TRANSLATE_Y = enum.auto()
    """Pixels down."""
    ROTATE = enum.auto()
    """Degrees, counter-clockwise."""
    BRIGHTNESS = enum.auto()
    """Factor; 1 leaves the image as it is."""
    COLOR = enum.auto()
    """Factor; 0 is grey and 1 leaves the image as it is."""
    CONTRAST = enum.auto()
    """Factor; 1 leaves the image as it is."""
    SHARPNESS = enum.auto()
    """Factor; 1 leaves the image as it is."""
    HUE = enum.auto()
    """Share of the circle, -0.5 to 0.5."""
    POSTERIZE = enum.auto()
    """Bits to keep, 0 to 8."""
    SOLARIZE = enum.auto()
    """The lowest level that is inverted, 0 to 256."""
    SOLARIZE_ADD = enum.auto()
    """Levels to add below level 128."""
    AUTOCONTRAST = enum.auto()
    """No argument."""
    EQUALIZE = enum.auto()
    """No argument."""
    INVERT = enum.auto()
    """No argument."""
    GAUSSIAN_BLUR = enum.auto()
    """Radius in pixels, 0 to 2."""


# All are functions of (image, argument): to an affine map, to a table, to an image.
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
    """Does one operation to one image.

    Args:
        image: uint8[H, W, C]; the operations on colours and levels want 1 or 3 channels.
        operation: int32[], an `Operation`.
        argument: float32[], its meaning stands with each `Operation`.
        among: the operations that ``operation`` may be; no others are compiled.
        interpolation: of shears, translations and rotations.
        fill: what these show outside the image, one value or one per channel.

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
    """`lax.switch` by operation; a function that serves several is one branch."""
    distinct = list(dict.fromkeys(functions.values()))
    branch = np.zeros(max(Operation) + 1, np.int32)
    for name, function in functions.items():
        branch[name] = distinct.index(function)
    return jax.lax.switch(jnp.asarray(branch)[operation], distinct, *operands)

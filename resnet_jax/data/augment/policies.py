"""Augmentation policies: RandAugment, TrivialAugment, AutoAugment and 3-Augment.

A policy draws operations and their arguments for one image.  Each operation has a row of data that
converts a level between 0 and 1 to its argument.

RandAugment exists twice: as in torchvision, and as in timm, where the level varies and operations
are skipped with some probability.

References:
    RandAugment: Cubuk et al. 2019, arXiv:1909.13719.
    TrivialAugment: Müller & Hutter 2021, arXiv:2103.10158.
    AutoAugment: Cubuk et al. 2018, arXiv:1805.09501.
    3-Augment: Touvron et al. 2022, arXiv:2204.07118.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

import jax
import jax.numpy as jnp

from resnet_jax.config import AugmentConfig
from resnet_jax.data.augment.filters import MAX_BLUR_RADIUS
from resnet_jax.data.augment.operations import Operation as Op


@dataclasses.dataclass(frozen=True)
class Magnitude:
    """Convert a level from 0 to 1 to the argument of an operation, ``base ± slope * level``."""

    operation: Op
    base: float = 0.0
    """The argument at level 0."""
    slope: float = 0.0
    """Change of the argument from level 0 to level 1."""
    signed: bool = False
    """Whether the change is negated for half of the images."""
    rounding: Literal["none", "down", "nearest"] = "none"
    """How the size of the change is rounded to an integer."""
    per: Literal["", "height", "width"] = ""
    """Side of the image that ``slope`` is a share of. Empty if ``slope`` is not a share."""

    def argument(self, level: jax.Array, negated: jax.Array, height: int, width: int) -> jax.Array:
        """Return the argument.

        Args:
            level: float32[], from 0 to 1.
            negated: bool[], whether the change is negated if ``signed`` is set.
            height: Height of the image in pixels.
            width: Width of the image in pixels.

        Returns:
            float32[].
        """
        unit = {"": 1, "height": height, "width": width}[self.per]
        gain = abs(self.slope) * unit * level
        if self.rounding == "nearest":
            gain = jnp.round(gain)
        elif self.rounding == "down":
            # float32 may fall just below an integer that float64 reaches.
            gain = jnp.floor(gain + 1e-3)
        if self.slope < 0:
            gain = -gain
        if self.signed:
            gain = jnp.where(negated, -gain, gain)
        return self.base + gain


def _factors(slope: float) -> tuple[Magnitude, ...]:
    operations = (Op.BRIGHTNESS, Op.COLOR, Op.CONTRAST, Op.SHARPNESS)
    return tuple(Magnitude(name, base=1, slope=slope, signed=True) for name in operations)


_UNCHANGED, _INVERTED = Magnitude(Op.IDENTITY), Magnitude(Op.INVERT)
_STRETCHED = (Magnitude(Op.AUTOCONTRAST), Magnitude(Op.EQUALIZE))

TORCHVISION = (
    _UNCHANGED,
    Magnitude(Op.SHEAR_X, slope=0.3, signed=True),
    Magnitude(Op.SHEAR_Y, slope=0.3, signed=True),
    Magnitude(Op.TRANSLATE_X, slope=150 / 331, signed=True, rounding="down", per="width"),
    Magnitude(Op.TRANSLATE_Y, slope=150 / 331, signed=True, rounding="down", per="height"),
    Magnitude(Op.ROTATE, slope=30, signed=True),
    *_factors(0.9),
    Magnitude(Op.POSTERIZE, base=8, slope=-4, rounding="nearest"),
    Magnitude(Op.SOLARIZE, base=255, slope=-255),
    *_STRETCHED,
)
"""Operations of torchvision's ``RandAugment``."""

TRIVIAL = (
    _UNCHANGED,
    Magnitude(Op.SHEAR_X, slope=0.99, signed=True),
    Magnitude(Op.SHEAR_Y, slope=0.99, signed=True),
    Magnitude(Op.TRANSLATE_X, slope=32, signed=True, rounding="down"),
    Magnitude(Op.TRANSLATE_Y, slope=32, signed=True, rounding="down"),
    Magnitude(Op.ROTATE, slope=135, signed=True),
    *_factors(0.99),
    Magnitude(Op.POSTERIZE, base=8, slope=-6, rounding="nearest"),
    Magnitude(Op.SOLARIZE, base=255, slope=-255),
    *_STRETCHED,
)
"""Operations of torchvision's ``TrivialAugmentWide``."""

_TIMM = (
    *_STRETCHED,
    _INVERTED,
    Magnitude(Op.ROTATE, slope=30, signed=True),
    Magnitude(Op.SOLARIZE_ADD, slope=110, rounding="down"),
    Magnitude(Op.SHEAR_X, slope=0.3, signed=True),
    Magnitude(Op.SHEAR_Y, slope=0.3, signed=True),
    Magnitude(Op.TRANSLATE_X, slope=0.45, signed=True, per="width"),
    Magnitude(Op.TRANSLATE_Y, slope=0.45, signed=True, per="height"),
)

TIMM_INCREASING = (
    *_TIMM,
    Magnitude(Op.POSTERIZE, base=4, slope=-4, rounding="down"),
    Magnitude(Op.SOLARIZE, base=256, slope=-256, rounding="down"),
    *_factors(0.9),
)
"""Operations of timm's ``rand-...-inc1``: a higher level always changes the image more."""

TIMM = (
    *_TIMM,
    Magnitude(Op.POSTERIZE, slope=4, rounding="down"),
    Magnitude(Op.SOLARIZE, slope=256, rounding="down"),
    *(
        Magnitude(name, base=0.1, slope=1.8)
        for name in (Op.BRIGHTNESS, Op.COLOR, Op.CONTRAST, Op.SHARPNESS)
    ),
)
"""Operations of timm's ``rand-...-inc0``."""

THREE_AUGMENT = (
    Magnitude(Op.COLOR),
    Magnitude(Op.SOLARIZE, base=128),
    Magnitude(Op.GAUSSIAN_BLUR, base=0.1, slope=MAX_BLUR_RADIUS - 0.1),
)
"""Grayscale, inversion of levels from 128 upward, or a blur with a radius of 0.1 to 2 pixels."""

_SubPolicy = tuple[tuple[Op, float, int], tuple[Op, float, int]]

AUTOAUGMENT_IMAGENET: tuple[_SubPolicy, ...] = (
    ((Op.POSTERIZE, 0.4, 8), (Op.ROTATE, 0.6, 9)),
    ((Op.SOLARIZE, 0.6, 5), (Op.AUTOCONTRAST, 0.6, 0)),
    ((Op.EQUALIZE, 0.8, 0), (Op.EQUALIZE, 0.6, 0)),
    ((Op.POSTERIZE, 0.6, 7), (Op.POSTERIZE, 0.6, 6)),
    ((Op.EQUALIZE, 0.4, 0), (Op.SOLARIZE, 0.2, 4)),
    ((Op.EQUALIZE, 0.4, 0), (Op.ROTATE, 0.8, 8)),
    ((Op.SOLARIZE, 0.6, 3), (Op.EQUALIZE, 0.6, 0)),
    ((Op.POSTERIZE, 0.8, 5), (Op.EQUALIZE, 1.0, 0)),
    ((Op.ROTATE, 0.2, 3), (Op.SOLARIZE, 0.6, 8)),
    ((Op.EQUALIZE, 0.6, 0), (Op.POSTERIZE, 0.4, 6)),
    ((Op.ROTATE, 0.8, 8), (Op.COLOR, 0.4, 0)),
    ((Op.ROTATE, 0.4, 9), (Op.EQUALIZE, 0.6, 0)),
    ((Op.EQUALIZE, 0.0, 0), (Op.EQUALIZE, 0.8, 0)),
    ((Op.INVERT, 0.6, 0), (Op.EQUALIZE, 1.0, 0)),
    ((Op.COLOR, 0.6, 4), (Op.CONTRAST, 1.0, 8)),
    ((Op.ROTATE, 0.8, 8), (Op.COLOR, 1.0, 2)),
    ((Op.COLOR, 0.8, 8), (Op.SOLARIZE, 0.8, 7)),
    ((Op.SHARPNESS, 0.4, 7), (Op.INVERT, 0.6, 0)),
    ((Op.SHEAR_X, 0.6, 5), (Op.EQUALIZE, 1.0, 0)),
    ((Op.COLOR, 0.4, 0), (Op.EQUALIZE, 0.6, 0)),
    ((Op.EQUALIZE, 0.4, 0), (Op.SOLARIZE, 0.2, 4)),
    ((Op.SOLARIZE, 0.6, 5), (Op.AUTOCONTRAST, 0.6, 0)),
    ((Op.INVERT, 0.6, 0), (Op.EQUALIZE, 1.0, 0)),
    ((Op.COLOR, 0.6, 4), (Op.CONTRAST, 1.0, 8)),
    ((Op.EQUALIZE, 0.8, 0), (Op.EQUALIZE, 0.6, 0)),
)
"""Sub-policies for ImageNet: two operations, each with its probability and its level in ninths."""

AUTOAUGMENT_CIFAR10: tuple[_SubPolicy, ...] = (
    ((Op.INVERT, 0.1, 0), (Op.CONTRAST, 0.2, 6)),
    ((Op.ROTATE, 0.7, 2), (Op.TRANSLATE_X, 0.3, 9)),
    ((Op.SHARPNESS, 0.8, 1), (Op.SHARPNESS, 0.9, 3)),
    ((Op.SHEAR_Y, 0.5, 8), (Op.TRANSLATE_Y, 0.7, 9)),
    ((Op.AUTOCONTRAST, 0.5, 0), (Op.EQUALIZE, 0.9, 0)),
    ((Op.SHEAR_Y, 0.2, 7), (Op.POSTERIZE, 0.3, 7)),
    ((Op.COLOR, 0.4, 3), (Op.BRIGHTNESS, 0.6, 7)),
    ((Op.SHARPNESS, 0.3, 9), (Op.BRIGHTNESS, 0.7, 9)),
    ((Op.EQUALIZE, 0.6, 0), (Op.EQUALIZE, 0.5, 0)),
    ((Op.CONTRAST, 0.6, 7), (Op.SHARPNESS, 0.6, 5)),
    ((Op.COLOR, 0.7, 7), (Op.TRANSLATE_X, 0.5, 8)),
    ((Op.EQUALIZE, 0.3, 0), (Op.AUTOCONTRAST, 0.4, 0)),
    ((Op.TRANSLATE_Y, 0.4, 3), (Op.SHARPNESS, 0.2, 6)),
    ((Op.BRIGHTNESS, 0.9, 6), (Op.COLOR, 0.2, 8)),
    ((Op.SOLARIZE, 0.5, 2), (Op.INVERT, 0.0, 0)),
    ((Op.EQUALIZE, 0.2, 0), (Op.AUTOCONTRAST, 0.6, 0)),
    ((Op.EQUALIZE, 0.2, 0), (Op.EQUALIZE, 0.6, 0)),
    ((Op.COLOR, 0.9, 9), (Op.EQUALIZE, 0.6, 0)),
    ((Op.AUTOCONTRAST, 0.8, 0), (Op.SOLARIZE, 0.2, 8)),
    ((Op.BRIGHTNESS, 0.1, 3), (Op.COLOR, 0.7, 0)),
    ((Op.SOLARIZE, 0.4, 5), (Op.AUTOCONTRAST, 0.9, 0)),
    ((Op.TRANSLATE_Y, 0.9, 9), (Op.TRANSLATE_Y, 0.7, 9)),
    ((Op.AUTOCONTRAST, 0.9, 0), (Op.SOLARIZE, 0.8, 3)),
    ((Op.EQUALIZE, 0.8, 0), (Op.INVERT, 0.1, 0)),
    ((Op.TRANSLATE_Y, 0.7, 9), (Op.AUTOCONTRAST, 0.9, 0)),
)
"""Sub-policies for CIFAR-10, in the same form."""


@dataclasses.dataclass(frozen=True)
class Policy:
    """Random choice of operations for one image.

    Attributes:
        operations: Operations that can be drawn.
        draw: Function of (key, height, width), where height and width are the size of the image in
            pixels. It returns the operations, int32[N], and their arguments, float32[N], in the
            order in which they are applied.
    """

    operations: frozenset[Op]
    draw: Callable[[jax.Array, int, int], tuple[jax.Array, jax.Array]]


def policies(config: AugmentConfig) -> list[Policy]:
    """Return the policies of a configuration in the order of timm's pipeline.

    They are the configured policy, then color jitter, then grayscale.  Those that are off are left
    out.
    """
    steps = config.magnitude / (config.magnitude_bins - 1)

    def fixed(key: jax.Array) -> jax.Array:
        del key
        return jnp.full(config.num_ops, steps)

    def noisy(key: jax.Array) -> jax.Array:
        noise = config.magnitude_std * jax.random.normal(key, (config.num_ops,))
        return jnp.clip(config.magnitude + noise, 0, 10) / 10

    def stepped(key: jax.Array) -> jax.Array:
        bins = config.magnitude_bins
        return jax.random.randint(key, (1,), 0, bins) / (bins - 1)

    def continuous(key: jax.Array) -> jax.Array:
        return jax.random.uniform(key, (1,))

    chosen: dict[str, Callable[[], Policy]] = {
        "randaugment": lambda: _one_of(TORCHVISION, fixed),
        "timm_randaugment": lambda: _one_of(TIMM, noisy, config.op_probability),
        "timm_randaugment_increasing": lambda: _one_of(
            TIMM_INCREASING, noisy, config.op_probability
        ),
        "trivial": lambda: _one_of(TRIVIAL, stepped),
        "autoaugment": lambda: _sub_policies(AUTOAUGMENT_IMAGENET),
        "autoaugment_cifar10": lambda: _sub_policies(AUTOAUGMENT_CIFAR10),
        "three_augment": lambda: _one_of(THREE_AUGMENT, continuous),
    }
    drawn = []
    if config.policy != "none":
        drawn.append(chosen[config.policy]())
    if any(config.color_jitter):
        drawn.append(color_jitter(*config.color_jitter))
    if config.grayscale:
        drawn.append(_one_of((Magnitude(Op.COLOR),), lambda _: jnp.zeros(1), config.grayscale))
    return drawn


def color_jitter(brightness: float, contrast: float, saturation: float, hue: float) -> Policy:
    """Return the policy of torchvision's ``ColorJitter``: four changes in random order.

    Args:
        brightness: The factor is uniform from ``1 - brightness``, or 0 if that is negative, to
            ``1 + brightness``.
        contrast: Range of the factor, as for brightness.
        saturation: Range of the factor, as for brightness.
        hue: Largest rotation in turns of the color circle, from 0 to 0.5.
    """
    strengths = {
        Op.BRIGHTNESS: brightness,
        Op.CONTRAST: contrast,
        Op.COLOR: saturation,
        Op.HUE: hue,
    }
    strengths = {name: strength for name, strength in strengths.items() if strength}
    lowest, highest = (
        jnp.array(
            [
                sign * strength if name is Op.HUE else max(1 + sign * strength, 0)
                for name, strength in strengths.items()
            ]
        )
        for sign in (-1, 1)
    )

    def draw(key: jax.Array, height: int, width: int) -> tuple[jax.Array, jax.Array]:
        del height, width
        order_key, argument_key = jax.random.split(key)
        order = jax.random.permutation(order_key, len(strengths))
        arguments = jax.random.uniform(
            argument_key, (len(strengths),), minval=lowest, maxval=highest
        )
        return jnp.array(list(strengths), jnp.int32)[order], arguments[order]

    return Policy(frozenset(strengths), draw)


def _one_of(
    rows: Sequence[Magnitude],
    draw_levels: Callable[[jax.Array], jax.Array],
    probability: float = 1.0,
) -> Policy:
    """Return a policy that draws rows independently and uniformly.

    Args:
        rows: Rows to draw from.
        draw_levels: Function of a key that returns levels, float32[N]. One row is drawn for each.
        probability: Probability that a drawn operation is applied.
    """

    def draw(key: jax.Array, height: int, width: int) -> tuple[jax.Array, jax.Array]:
        row_key, level_key, sign_key, skip_key = jax.random.split(key, 4)
        levels = draw_levels(level_key)
        chosen = jax.random.randint(row_key, levels.shape, 0, len(rows))
        negated = jax.random.bernoulli(sign_key, shape=levels.shape)
        operations, arguments = _evaluate(rows, chosen, levels, negated, height, width)
        if probability < 1:
            done = jax.random.bernoulli(skip_key, probability, levels.shape)
            operations = jnp.where(done, operations, Op.IDENTITY)
        return operations, arguments

    skipped = {Op.IDENTITY} if probability < 1 else set()
    return Policy(frozenset(row.operation for row in rows) | skipped, draw)


def _sub_policies(table: Sequence[_SubPolicy]) -> Policy:
    """Return a policy that draws one pair of operations, each applied with its own probability."""
    rows = [*TORCHVISION, _INVERTED]
    row_of = {row.operation: index for index, row in enumerate(rows)}
    chosen = jnp.array([[row_of[name] for name, _, _ in pair] for pair in table])
    probabilities = jnp.array([[probability for _, probability, _ in pair] for pair in table])
    levels = jnp.array([[ninths for _, _, ninths in pair] for pair in table]) / 9

    def draw(key: jax.Array, height: int, width: int) -> tuple[jax.Array, jax.Array]:
        pair_key, sign_key, skip_key = jax.random.split(key, 3)
        pair = jax.random.randint(pair_key, (), 0, len(table))
        negated = jax.random.bernoulli(sign_key, shape=(2,))
        operations, arguments = _evaluate(rows, chosen[pair], levels[pair], negated, height, width)
        done = jax.random.uniform(skip_key, (2,)) < probabilities[pair]
        return jnp.where(done, operations, Op.IDENTITY), arguments

    drawn = {name for pair in table for name, _, _ in pair}
    return Policy(frozenset(drawn) | {Op.IDENTITY}, draw)


def _evaluate(
    rows: Sequence[Magnitude],
    chosen: jax.Array,
    levels: jax.Array,
    negated: jax.Array,
    height: int,
    width: int,
) -> tuple[jax.Array, jax.Array]:
    """Return operations, int32[N], and arguments, float32[N], of chosen rows.

    Args:
        rows: All rows.
        chosen: int32[N], indices of the chosen rows.
        levels: float32[N], from 0 to 1.
        negated: bool[N].
        height: Height of the image in pixels.
        width: Width of the image in pixels.
    """
    operations = jnp.array([row.operation for row in rows], jnp.int32)
    arguments = jnp.stack(
        [
            jnp.broadcast_to(row.argument(levels, negated, height, width), levels.shape)
            for row in rows
        ]
    )
    return operations[chosen], arguments[chosen, jnp.arange(len(levels))]

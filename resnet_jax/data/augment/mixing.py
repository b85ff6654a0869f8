"""Mixing of images and their targets within a batch: mixup, CutMix, or a random choice of both.

By default one draw applies to the whole batch, and the first image is mixed with the last, the
second with the last but one, and so on, as in timm's ``Mixup`` with ``mode="batch"``.

References:
    mixup: Zhang et al. 2017, arXiv:1710.09412.
    CutMix: Yun et al. 2019, arXiv:1905.04899.
"""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp

from resnet_jax.config import AugmentConfig

Partner = Literal["flip", "roll", "random"]


def mix(
    key: jax.Array,
    images: jax.Array,
    targets: jax.Array,
    config: AugmentConfig,
    *,
    enabled: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Mix a batch by mixup or CutMix.

    Args:
        key: PRNG key.
        images: float[B, H, W, C], the global batch.
        targets: float32[B, K], one-hot or smoothed.
        config: Its fields ``mixup_alpha``, ``cutmix_alpha``, ``cutmix_even_sides``,
            ``mix_probability``, ``mix_switch_probability``, ``mix_partner`` and ``mix_draw`` are
            used.
        enabled: bool[], whether to mix at all. None means True.

    Returns:
        Mixed images, float[B, H, W, C], and mixed targets, float32[B, K].
    """
    if not (config.mixup_alpha or config.cutmix_alpha):
        return images, targets
    draw = partial(_draw, height=images.shape[1], width=images.shape[2], config=config)
    if enabled is not None:
        draw = partial(draw, enabled=enabled)
    if config.mix_draw == "image":
        weight, share = jax.vmap(draw)(jax.random.split(key, len(images)))
        share = share[:, None]
    else:
        weight, share = draw(key)
    # `_draw` splits its key into five, so that this key is used nowhere else.
    partner_key = jax.random.fold_in(key, max(5, len(images)))
    return (
        blend(images, weight, config.mix_partner, partner_key).astype(images.dtype),
        blend(targets, share, config.mix_partner, partner_key),
    )


def blend(batch: jax.Array, weight: jax.Array, partner: Partner, key: jax.Array) -> jax.Array:
    """Return weighted means of each example and its partner.

    Args:
        batch: float[B, ...].
        weight: Weight of each example itself, from 0 to 1, of a shape that broadcasts.
        partner: ``"flip"`` takes the examples in reverse order (timm), ``"roll"`` the example
            before, and the last one for the first (torchvision), ``"random"`` a random permutation
            (NVIDIA, and the code of the papers).
        key: PRNG key of the permutation.

    Returns:
        float[B, ...].
    """
    return batch * weight + _partners(batch, partner, key) * (1 - weight)


def _partners(batch: jax.Array, partner: Partner, key: jax.Array) -> jax.Array:
    """Return the partner of each example; see `blend`."""
    if partner == "flip":
        return batch[::-1]
    if partner == "roll":
        return jnp.roll(batch, 1, axis=0)
    return batch[jax.random.permutation(key, len(batch))]


def _draw(
    key: jax.Array,
    *,
    height: int,
    width: int,
    config: AugmentConfig,
    enabled: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Return the weights of an image's own pixels, [H, W, 1], and of its own target, []."""
    mixed_key, switch_key, mixup_key, cutmix_key, box_key = jax.random.split(key, 5)
    weights, shares = [], []
    if config.mixup_alpha:
        share = jax.random.beta(mixup_key, config.mixup_alpha, config.mixup_alpha)
        weights.append(jnp.full((height, width, 1), share))
        shares.append(share)
    if config.cutmix_alpha:
        kept = jax.random.beta(cutmix_key, config.cutmix_alpha, config.cutmix_alpha)
        even = config.cutmix_even_sides
        outside = ~cutmix_box(box_key, height, width, kept, even_sides=even)
        weights.append(outside[..., None].astype(jnp.float32))
        shares.append(jnp.mean(outside, dtype=jnp.float32))
    cut = jax.random.bernoulli(switch_key, config.mix_switch_probability)
    weight, share = (
        pair[0] if len(pair) == 1 else jnp.where(cut, pair[1], pair[0])
        for pair in (weights, shares)
    )
    mixed = jax.random.bernoulli(mixed_key, config.mix_probability)
    if enabled is not None:
        mixed &= enabled
    return jnp.where(mixed, weight, 1), jnp.where(mixed, share, 1)


def cutmix_box(
    key: jax.Array, height: int, width: int, kept: jax.Array, *, even_sides: bool = False
) -> jax.Array:
    """Return the pixels that CutMix replaces, in a box with a uniformly drawn center.

    Args:
        key: PRNG key.
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        kept: As in `box_around`.
        even_sides: As in `box_around`.

    Returns:
        bool[H, W].
    """
    center = [
        jax.random.randint(axis_key, (), 0, size)
        for axis_key, size in zip(jax.random.split(key), (height, width), strict=True)
    ]
    return box_around(center, height, width, kept, even_sides=even_sides)


def box_around(
    center: list[jax.Array], height: int, width: int, kept: jax.Array, *, even_sides: bool = False
) -> jax.Array:
    """Return the pixels of a box with the aspect ratio of the image, clipped at its edges.

    Args:
        center: Row and column of the center, int32[] each.
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        kept: float32[], share of the image outside the box before clipping.
        even_sides: Round the sides down to even numbers of pixels, as torchvision does.

    Returns:
        bool[H, W].
    """
    center_y, center_x = center
    side = jnp.sqrt(1 - kept)
    cut_y, cut_x = (jnp.floor(size * side).astype(jnp.int32) for size in (height, width))
    odd = 0 if even_sides else 1
    row, column = jnp.arange(height)[:, None], jnp.arange(width)
    return (
        (row >= center_y - cut_y // 2)
        & (row < center_y + (cut_y + odd) // 2)
        & (column >= center_x - cut_x // 2)
        & (column < center_x + (cut_x + odd) // 2)
    )


def smooth_targets(labels: jax.Array, num_classes: int, smoothing: float) -> jax.Array:
    """Return one-hot targets with a share spread evenly over all classes.

    Args:
        labels: int32[B], from 0 to K - 1.
        num_classes: Number of classes, K.
        smoothing: The share, from 0 to below 1.

    Returns:
        float32[B, K].

    Reference:
        Szegedy et al. 2015, arXiv:1512.00567, section 7.
    """
    # As `optax.smooth_labels`. Optax is not installed where images are only prepared.
    return (1 - smoothing) * jax.nn.one_hot(labels, num_classes) + smoothing / num_classes

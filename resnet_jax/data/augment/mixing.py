"""Mixing of images and their targets within a batch: mixup, CutMix, or a random choice of both.

One draw applies to the whole batch.  The first image is mixed with the last, the second with the
last but one, and so on, as in timm's ``Mixup`` with ``mode="batch"``.

References:
    mixup: Zhang et al. 2017, arXiv:1710.09412.
    CutMix: Yun et al. 2019, arXiv:1905.04899.
"""

import jax
import jax.numpy as jnp


def mix(
    key: jax.Array,
    images: jax.Array,
    targets: jax.Array,
    *,
    mixup_alpha: float = 0.0,
    cutmix_alpha: float = 0.0,
    probability: float = 1.0,
    switch_probability: float = 0.5,
) -> tuple[jax.Array, jax.Array]:
    """Mix a batch by mixup or CutMix.

    Args:
        key: PRNG key.
        images: float[B, H, W, C], the global batch.
        targets: float32[B, K], one-hot or smoothed.
        mixup_alpha: The share of each image in mixup is drawn from Beta(alpha, alpha). 0 turns
            mixup off.
        cutmix_alpha: The area that CutMix keeps is drawn from Beta(alpha, alpha). 0 turns CutMix
            off.
        probability: Probability that the batch is mixed.
        switch_probability: Probability of CutMix, if both are on.

    Returns:
        Mixed images, float[B, H, W, C], and mixed targets, float32[B, K].
    """
    mixed_key, switch_key, mixup_key, cutmix_key, box_key = jax.random.split(key, 5)
    height, width = images.shape[1:3]
    # Weights of each image's own pixels, [H, W, 1], and of its own target, [].
    weights, shares = [], []
    if mixup_alpha:
        share = jax.random.beta(mixup_key, mixup_alpha, mixup_alpha)
        weights.append(jnp.full((height, width, 1), share))
        shares.append(share)
    if cutmix_alpha:
        kept = jax.random.beta(cutmix_key, cutmix_alpha, cutmix_alpha)
        outside = ~cutmix_box(box_key, height, width, kept)
        weights.append(outside[..., None].astype(jnp.float32))
        shares.append(jnp.mean(outside, dtype=jnp.float32))
    if not weights:
        return images, targets
    cut = jax.random.bernoulli(switch_key, switch_probability)
    weight, share = (
        pair[0] if len(pair) == 1 else jnp.where(cut, pair[1], pair[0])
        for pair in (weights, shares)
    )
    mixed = jax.random.bernoulli(mixed_key, probability)
    weight, share = jnp.where(mixed, weight, 1), jnp.where(mixed, share, 1)
    return (
        (images * weight + images[::-1] * (1 - weight)).astype(images.dtype),
        targets * share + targets[::-1] * (1 - share),
    )


def cutmix_box(key: jax.Array, height: int, width: int, kept: jax.Array) -> jax.Array:
    """Return the pixels that CutMix replaces.

    The box has the aspect ratio of the image and a uniformly drawn center.  It is clipped at the
    edges of the image.

    Args:
        key: PRNG key.
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        kept: float32[], share of the image outside the box before clipping.

    Returns:
        bool[H, W].
    """
    center_y, center_x = (
        jax.random.randint(axis_key, (), 0, size)
        for axis_key, size in zip(jax.random.split(key), (height, width), strict=True)
    )
    side = jnp.sqrt(1 - kept)
    cut_y, cut_x = (jnp.floor(size * side).astype(jnp.int32) for size in (height, width))
    row, column = jnp.arange(height)[:, None], jnp.arange(width)
    return (
        (row >= center_y - cut_y // 2)
        & (row < center_y + (cut_y + 1) // 2)
        & (column >= center_x - cut_x // 2)
        & (column < center_x + (cut_x + 1) // 2)
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

"""Images mixed with each other, and their labels with them: mixup, CutMix and a choice of both.

References:
    mixup: Zhang et al. 2017, arXiv:1710.09412.  CutMix: Yun et al. 2019, arXiv:1905.04899.  As in
    timm's ``Mixup`` in its mode "batch": one draw for the whole batch, and the first image goes
    with the last, the second with the last but one.
"""

import jax
import jax.numpy as jnp
import optax


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
    """Mixes a batch, by mixup or by CutMix.

    Args:
        key: PRNG key.
        images: float[B, H, W, C], the global batch.
        targets: float32[B, K], one-hot or smoothed.
        mixup_alpha: the share of mixup is drawn from Beta(alpha, alpha); 0 turns it off.
        cutmix_alpha: the same for the area that CutMix keeps.
        probability: that the batch is mixed at all.
        switch_probability: of CutMix, where both are on.

    Returns:
        Mixed images, float[B, H, W, C], and mixed targets, float32[B, K].
    """
    mixed_key, switch_key, mixup_key, cutmix_key, box_key = jax.random.split(key, 5)
    height, width = images.shape[1:3]
    # A weight of each image's own pixels, [H, W, 1], and of its own target, [].
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
    """Which pixels CutMix replaces.

    The box has the proportions of the image and a uniform centre; what lies outside is cut off.

    Args:
        key: PRNG key.
        height: of the image, in pixels.
        width: of the image, in pixels.
        kept: float32[], share of the image that stays if nothing of the box lies outside.

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
    """One-hot targets, of which a share is spread evenly over all classes; float32[B, K]."""
    return optax.smooth_labels(jax.nn.one_hot(labels, num_classes), smoothing)

"""The whole device part: from a uint8 batch to normalised images and targets."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from resnet_jax.config import AugmentConfig, ConfigError
from resnet_jax.data.augment.erasing import random_erase
from resnet_jax.data.augment.geometric import random_crop, random_flip
from resnet_jax.data.augment.mixing import mix, smooth_targets
from resnet_jax.data.augment.normalization import normalize
from resnet_jax.data.augment.operations import apply_operation
from resnet_jax.data.augment.policies import policies


def augment_batch(
    images: jax.Array,
    labels: jax.Array,
    config: AugmentConfig,
    key: jax.Array,
    *,
    num_classes: int,
    label_smoothing: float = 0.0,
    positions: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Augments a batch for training; to be called inside `jax.jit`.

    In the order of timm's pipeline: crop, flip, policy, colour jitter, grey, normalise, erase, and
    then mix with other images of the batch.  The host has resized and cropped to a size before.

    Every image has a key of its own, made of ``key`` and its position in the global batch.  So its
    pixels, apart from mixing, depend neither on the sharding nor on the size of the batch.

    Args:
        images: uint8[B, H, W, C], the global batch; of 1 or 3 channels where colours change.
        labels: int32[B], 0 to K - 1.
        config: what to do.
        key: PRNG key; another one for each step.
        num_classes: K.
        label_smoothing: share of every target spread evenly over all K classes, before mixing.
        positions: int32[B], positions in the global batch where ``images`` is a part of it; mixing
            then stays within the part.

    Returns:
        float32[B, H, W, C] images and float32[B, K] targets, each of which sums to 1.

    Raises:
        ConfigError: mean, std or fill do not fit the channels of the images.
    """
    channels = images.shape[-1]
    for name in ("mean", "std", "fill"):
        count = len(getattr(config, name))
        if count not in (1, channels):
            raise ConfigError(
                f"{name} has {count} values, but the images have {channels} channels; "
                f"give 1 value or {channels}"
            )
    example_key, batch_key = jax.random.split(key)
    positions = jnp.arange(len(images)) if positions is None else positions
    keys = jax.vmap(partial(jax.random.fold_in, example_key))(positions)
    augmented = map_examples(partial(_augment_example, config), keys, images)
    return mix(
        batch_key,
        augmented,
        smooth_targets(labels, num_classes, label_smoothing),
        mixup_alpha=config.mixup_alpha,
        cutmix_alpha=config.cutmix_alpha,
        probability=config.mix_probability,
        switch_probability=config.mix_switch_probability,
    )


def normalize_batch(images: jax.Array, config: AugmentConfig) -> jax.Array:
    """The same normalisation, for evaluation: uint8[..., C] to float32[..., C]."""
    return normalize(images, 255 * np.asarray(config.mean), 255 * np.asarray(config.std))


def map_examples(function: Callable[..., jax.Array], *batches: Any) -> jax.Array:
    """Applies a function of one example to all of a batch.

    On accelerators all at once (`jax.vmap`), where a `jax.lax.switch` evaluates all its branches;
    on CPUs one after the other (`jax.lax.map`), where it evaluates the branch that was drawn.
    """
    return jax.lax.platform_dependent(
        *batches,
        cpu=lambda *batches: jax.lax.map(lambda example: function(*example), batches),
        default=jax.vmap(function),
    )


def _augment_example(config: AugmentConfig, key: jax.Array, image: jax.Array) -> jax.Array:
    """uint8[H, W, C] to float32[H, W, C]."""
    crop_key, flip_key, erase_key, *policy_keys = jax.random.split(key, 6)
    height, width = image.shape[:2]
    if config.crop_padding:
        image = random_crop(
            crop_key, image, padding=config.crop_padding, mode=config.crop_padding_mode
        )
    if config.flip:
        image = random_flip(flip_key, image, probability=config.flip)
    for policy_key, policy in zip(policy_keys, policies(config), strict=False):
        apply = partial(
            apply_operation,
            among=policy.operations,
            interpolation=config.interpolation,
            fill=config.fill,
        )
        # A loop, so that XLA does not fuse one operation into the next, which would compute the
        # first of them once for every use in the later ones.
        image, _ = jax.lax.scan(
            lambda image, drawn, apply=apply: (apply(image, *drawn), None),
            image,
            policy.draw(policy_key, height, width),
        )
    normalized = normalize_batch(image, config)
    if config.erasing:
        normalized = random_erase(
            erase_key,
            normalized,
            probability=config.erasing,
            area=config.erasing_area,
            aspect=config.erasing_aspect,
            mode=config.erasing_mode,
            max_count=config.erasing_max_count,
        )
    return normalized

"""Augmentation of a whole batch: from uint8 images to normalized images and targets."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from resnet_jax.config import AugmentConfig, ConfigError
from resnet_jax.data.augment.erasing import random_erase
from resnet_jax.data.augment.geometric import random_crop, random_flip
from resnet_jax.data.augment.mixing import mix, smooth_targets
from resnet_jax.data.augment.normalization import normalize
from resnet_jax.data.augment.operations import apply_operation
from resnet_jax.data.augment.policies import policies


def augment_batch(
    key: jax.Array,
    images: jax.Array,
    labels: jax.Array,
    config: AugmentConfig,
    *,
    num_classes: int,
    label_smoothing: float = 0.0,
    positions: jax.Array | None = None,
    mixing: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Augment a batch for training. Call it inside `jax.jit`.

    The steps come in the same order as in timm: crop, flip, policy, color jitter, grayscale,
    normalization, erasing, and mixing with other images of the batch.  The host has resized and
    cropped the images to one size before.

    Each image has its own random key, made from ``key`` and the position of the image in the global
    batch.  The pixels before mixing therefore depend neither on the sharding nor on the size of the
    batch.

    Args:
        key: PRNG key, a different one for each step.
        images: uint8[B, H, W, C], the global batch. Operations on colors need 1 or 3 channels.
        labels: int32[B], from 0 to K - 1.
        config: What to do.
        num_classes: Number of classes, K.
        label_smoothing: Share of each target that is spread evenly over all K classes, before
            mixing.
        positions: int32[B], positions in the global batch, if ``images`` is only a part of it.
            Mixing then stays within the part. By default the positions are 0 to B - 1.
        mixing: bool[], whether mixup and CutMix are on, if ``config`` has them. None means True.

    Returns:
        float32[B, H, W, C] images and float32[B, K] targets. Each target sums to 1.

    Raises:
        ConfigError: See `check_channels`.
    """
    check_channels(config, images.shape[-1])
    example_key, batch_key = jax.random.split(key)
    positions = jnp.arange(len(images)) if positions is None else positions
    keys = jax.vmap(partial(jax.random.fold_in, example_key))(positions)
    augmented = map_examples(partial(_augment_example, config), keys, images)
    return mix(
        batch_key,
        augmented,
        smooth_targets(labels, num_classes, label_smoothing),
        config,
        enabled=mixing,
    )


def check_channels(config: AugmentConfig, channels: int) -> None:
    """Raise `ConfigError` if a setting with one value for each channel does not match the images.

    Args:
        config: Its ``mean``, ``std``, ``fill`` and ``erasing_value`` are checked.
        channels: Number of channels of the images.
    """
    for name in ("mean", "std", "fill", "erasing_value"):
        values = getattr(config, name)
        if len(values) not in (1, channels):
            raise ConfigError(
                f"the images have {channels} channels, but augment.{name} is {values}; give 1 "
                f"value or {channels}"
            )


def normalize_batch(images: jax.Array, config: AugmentConfig) -> jax.Array:
    """Normalize images for evaluation, exactly as `augment_batch` does for training.

    Args:
        images: uint8[..., C].
        config: Its ``mean`` and ``std`` are used.

    Returns:
        float32[..., C].
    """
    return normalize(images, config.mean, config.std)


def map_examples(function: Callable[..., jax.Array], *batches: Any) -> jax.Array:
    """Apply a function of one example to every example of a batch.

    Accelerators process all examples at once (`jax.vmap`), where a `jax.lax.switch` evaluates all
    of its branches.  CPUs process one example after another (`jax.lax.map`), where it evaluates
    only the branch that was drawn.

    Args:
        function: Function of one example of each batch.
        *batches: Arrays [B, ...], or pytrees of them.

    Returns:
        The results, [B, ...].
    """
    return jax.lax.platform_dependent(
        *batches,
        cpu=lambda *batches: jax.lax.map(lambda example: function(*example), batches),
        default=jax.vmap(function),
    )


def _augment_example(config: AugmentConfig, key: jax.Array, image: jax.Array) -> jax.Array:
    """Augment one image, uint8[H, W, C], without mixing; return float32[H, W, C]."""
    crop_key, flip_key, erase_key, *policy_keys = jax.random.split(key, 6)
    height, width = image.shape[:2]
    if config.crop_padding:
        image = random_crop(
            crop_key, image, padding=config.crop_padding, mode=config.crop_padding_mode
        )
    # The host does alternating flips, because it knows the epoch of each image.
    if config.flip and config.flip_mode == "random":
        image = random_flip(flip_key, image, probability=config.flip)
    for policy_key, policy in zip(policy_keys, policies(config), strict=False):
        apply = partial(
            apply_operation,
            among=policy.operations,
            interpolation=config.interpolation,
            fill=config.fill,
        )
        # A loop keeps XLA from fusing one operation into the next. The fused code would recompute
        # the first operation for every use of its result in the later ones.
        image, _ = jax.lax.scan(
            lambda image, drawn, apply=apply: (apply(image, *drawn), None),
            image,
            policy.draw(policy_key, height, width),
        )
    normalized = normalize_batch(image, config)
    if config.erasing:
        normalized = random_erase(erase_key, normalized, config)
    return normalized

"""Mixup and CutMix against timm and torchvision, given the same share, partner and box."""

import itertools
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.config import AugmentConfig, ConfigError
from resnet_jax.data.augment.mixing import Partner, blend, box_around, mix

# As in regenerate_mixing.py.
SHARES = (0.3, 0.55, 0.9, 0.15)
CENTERS = ((0, 0), (5, 3), (10, 7), (7, 2))
CUT = (True, False, False, True)
KEY = jax.random.key(0)

PARTNERS: dict[str, Partner] = {"timm": "flip", "torchvision": "roll"}


@pytest.fixture(scope="module")
def reference() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parent / "mixing_values.npz") as archive:
        return dict(archive)


def weights(index: int, *, cut: bool, even: bool) -> tuple[jax.Array, jax.Array]:
    """Return the weights of the pixels, [H, W, 1], and of the target, []."""
    share = jnp.asarray(SHARES[index])
    if not cut:
        return jnp.full((11, 8, 1), share), share
    center = [jnp.asarray(axis) for axis in CENTERS[index]]
    outside = ~box_around(center, 11, 8, share, even_sides=even)
    return outside[..., None].astype(float), outside.mean()


@pytest.mark.parametrize(
    ("library", "kind", "index"),
    list(itertools.product(PARTNERS, ("mixup", "cutmix"), range(len(SHARES)))),
)
def test_a_batch_is_mixed_as_by_the_reference(
    reference: dict[str, np.ndarray], library: str, kind: str, index: int
) -> None:
    with jax.enable_x64(True):
        weight, share = weights(index, cut=kind == "cutmix", even=library == "torchvision")
        for name, own, batch in (
            ("images", weight, jnp.asarray(reference["images"])),
            ("targets", share, jax.nn.one_hot(reference["labels"], 3)),
        ):
            mixed = blend(batch, own, PARTNERS[library], KEY)
            expected = reference[f"{library} {kind} {index} {name}"]
            # The references have float32 targets.
            tolerance = 1e-9 if name == "images" else 1e-6
            np.testing.assert_allclose(mixed, expected, rtol=0, atol=tolerance)


def test_images_are_mixed_one_by_one_as_by_timm(reference: dict[str, np.ndarray]) -> None:
    with jax.enable_x64(True):
        drawn = [weights(index, cut=cut, even=False) for index, cut in enumerate(CUT)]
        weight, share = map(jnp.stack, zip(*drawn, strict=True))
        images = blend(jnp.asarray(reference["images"]), weight, "flip", KEY)
        targets = blend(jax.nn.one_hot(reference["labels"], 3), share[:, None], "flip", KEY)
    np.testing.assert_allclose(images, reference["timm elem images"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(targets, reference["timm elem targets"], rtol=0, atol=1e-6)


def numbered(count: int) -> tuple[jax.Array, jax.Array]:
    """Return images whose pixels are all one-hot, as their targets are."""
    return jnp.broadcast_to(jnp.eye(count)[:, None, None], (count, 12, 8, count)), jnp.eye(count)


BATCH = AugmentConfig(mixup_alpha=0.8, mix_partner="roll")
IMAGE = AugmentConfig(mixup_alpha=0.8, cutmix_alpha=1.0, mix_partner="random", mix_draw="image")


@cache
def compiled(config: AugmentConfig) -> Any:
    """Return the mixing, compiled once for all tests."""

    def colors_and_targets(key: jax.Array, enabled: jax.Array) -> tuple[jax.Array, jax.Array]:
        images, targets = mix(key, *numbered(6), config, enabled=enabled)
        return images.mean((1, 2)), targets

    return jax.jit(colors_and_targets)


def mixed(
    config: AugmentConfig, seed: int, *, enabled: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean color of each mixed image, and its target."""
    return jax.device_get(compiled(config)(jax.random.key(seed), jnp.array(enabled)))


@pytest.mark.parametrize("config", [BATCH, IMAGE], ids=["batch", "image"])
def test_targets_are_the_shares_of_the_pixels(config: AugmentConfig) -> None:
    for seed in range(8):
        colors, targets = mixed(config, seed)
        np.testing.assert_allclose(colors, targets, atol=1e-6)
        own = np.diag(targets)
        shares = np.unique(own[own < 1].round(5))
        assert (len(shares) > 1) == (config.mix_draw == "image")


def test_a_random_partner_changes_with_the_key() -> None:
    partners = [tuple((mixed(IMAGE, seed)[1] - np.eye(6)).argmax(1)) for seed in range(4)]
    assert len(set(partners)) == 4


@pytest.mark.parametrize("config", [BATCH, IMAGE], ids=["batch", "image"])
def test_mixing_that_is_turned_off_changes_nothing(config: AugmentConfig) -> None:
    colors, targets = mixed(config, 0, enabled=False)
    np.testing.assert_array_equal(targets, np.eye(6))
    np.testing.assert_array_equal(colors, np.eye(6))
    assert (mixed(config, 0)[1] != np.eye(6)).any()


def test_an_end_of_mixing_needs_mixing() -> None:
    with pytest.raises(ConfigError, match="mix_until_epoch needs mixup_alpha or cutmix_alpha"):
        AugmentConfig(mix_until_epoch=3.0)

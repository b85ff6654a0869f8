"""Resampling of images, compared with its definition and with Pillow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from PIL import Image

from resnet_jax import list_pretrained
from resnet_jax.data.augment import affine_resize, normalize, random_affine_resize


def resize(images: np.ndarray, size: int, rotation=0.0, scale=1.0, shift=(0.0, 0.0)) -> np.ndarray:  # noqa: ANN001
    count = len(images)
    return np.asarray(
        affine_resize(
            jnp.asarray(images),
            size,
            rotation=jnp.full(count, rotation),
            scale=jnp.full(count, scale),
            shift=jnp.tile(jnp.asarray(shift), (count, 1)),
        )
    )


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 9, 9, 2), np.uint8)


def test_without_change_the_image_stays(images: np.ndarray) -> None:
    np.testing.assert_allclose(resize(images, 9), images, atol=1e-3)


def test_a_quarter_turn_is_counter_clockwise(images: np.ndarray) -> None:
    turned = resize(images, 9, rotation=np.pi / 2)
    np.testing.assert_allclose(turned, np.rot90(images, axes=(1, 2)), atol=1e-2)


def test_a_shift_moves_the_content_down_and_right(images: np.ndarray) -> None:
    moved = resize(images, 9, shift=(2.0, 1.0))
    np.testing.assert_allclose(moved[:, 2:, 1:], images[:, :-2, :-1], atol=1e-2)
    assert not moved[:, :1].any()


def test_a_scale_above_one_magnifies() -> None:
    image = np.zeros((1, 9, 9, 1), np.uint8)
    image[0, 3:6, 3:6] = 255
    assert resize(image, 9, scale=2.0).sum() > 3 * image.sum()


def test_larger_sizes_interpolate_as_pillow_does(images: np.ndarray) -> None:
    ours = resize(images, 18)[0, :, :, 0]
    # Pillow's floating-point mode does not round.
    channel = Image.fromarray(images[0, :, :, 0].astype(np.float32))
    pillow = channel.resize((18, 18), Image.Resampling.BILINEAR)
    # The border is left out: Pillow repeats it beyond the image, and we continue with zeros.
    np.testing.assert_allclose(ours[1:-1, 1:-1], np.asarray(pillow)[1:-1, 1:-1], atol=1e-2)


def test_normalize_works_by_channel(images: np.ndarray) -> None:
    mean, std = images.mean((0, 1, 2)), images.std((0, 1, 2))
    normalized = np.asarray(normalize(jnp.asarray(images), mean / 255, std / 255))
    np.testing.assert_allclose(normalized.mean((0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(normalized.std((0, 1, 2)), 1, atol=1e-4)


@jax.jit
def augment(images: jax.Array) -> jax.Array:
    return random_affine_resize(
        jax.random.key(3), images, 12, max_rotation=20.0, max_scaling=0.2, max_shift=1.0
    )


@pytest.mark.parametrize("num_devices", [2, 4, 8])
def test_augmentation_does_not_depend_on_the_sharding(num_devices: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 1), np.uint8)

    mesh = Mesh(np.asarray(jax.devices()[:num_devices]), ("data",))
    sharded = jax.device_put(images, NamedSharding(mesh, PartitionSpec("data")))
    np.testing.assert_array_equal(augment(sharded), augment(images))


def test_random_parameters_stay_within_their_bounds() -> None:
    # The bright center pixel moves in both directions, by no more than the bound.
    images = np.zeros((256, 9, 9, 1), np.uint8)
    images[:, 4, 4] = 255
    resample = jax.jit(
        lambda images: random_affine_resize(
            jax.random.key(0), images, 9, max_rotation=0.0, max_scaling=0.0, max_shift=2.0
        )
    )
    moved = np.asarray(resample(images))[..., 0]
    rows = (moved.sum(2) * np.arange(9)).sum(1) / moved.sum((1, 2)) - 4
    assert rows.min() < -1.5
    assert rows.max() > 1.5
    assert np.abs(rows).max() <= 2.0001


def test_normalize_takes_the_statistics_of_the_catalogue(images: np.ndarray) -> None:
    (entry,) = list_pretrained("resnet50.a1_in1k")
    rgb = jnp.asarray(np.repeat(images[..., :1], 3, axis=-1))
    expected = (np.asarray(rgb) / 255 - entry.mean) / entry.std
    np.testing.assert_allclose(normalize(rgb, entry.mean, entry.std), expected, atol=1e-5)
    np.testing.assert_allclose(
        normalize(rgb, jnp.asarray(entry.mean), jnp.asarray(entry.std)), expected, atol=1e-5
    )
    with pytest.raises(ValueError, match=r"mean must be on a scale from 0 to 1, but it is 127\.5"):
        normalize(rgb, 127.5, 73.9)

"""Corruptions equal independent implementations, or have the moments that define them."""

import colorsys
import io
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy.stats import poisson
from skimage.color import hsv2rgb, rgb2hsv
from skimage.data import astronaut

from resnet_jax.inference.corruptions import CORRUPTIONS, corrupt

# On noise, one gray level of rounding is the largest difference.
PHOTO = np.ascontiguousarray(astronaut()[:224, 100:324])


def gray(level: int) -> np.ndarray:
    return np.full((224, 224, 3), level, np.uint8)


def by_opencv(pixels: np.ndarray, severity: int) -> np.ndarray:
    """Return the defocus blur as Hendrycks and Dietterich compute it."""
    radius, sigma = [(3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)][severity - 1]
    side, taps = (np.arange(-8, 9), 3) if radius <= 8 else (np.arange(-radius, radius + 1), 5)
    x, y = np.meshgrid(side, side)
    disk = np.array(x**2 + y**2 <= radius**2, np.float32)
    disk /= disk.sum()
    kernel = cv2.GaussianBlur(disk, ksize=(taps, taps), sigmaX=sigma)
    return cv2.filter2D(pixels / 255.0, -1, kernel)


def by_skimage(pixels: np.ndarray, severity: int) -> np.ndarray:
    hsv = rgb2hsv(pixels / 255.0)
    hsv[..., 2] = np.clip(hsv[..., 2] + [0.1, 0.2, 0.3, 0.4, 0.5][severity - 1], 0, 1)
    return hsv2rgb(hsv)


def by_mean(pixels: np.ndarray, severity: int) -> np.ndarray:
    levels = pixels / 255.0
    mean = levels.mean(axis=(0, 1))
    return (levels - mean) * [0.4, 0.3, 0.2, 0.1, 0.05][severity - 1] + mean


def by_jpeg(pixels: np.ndarray, severity: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=[25, 18, 15, 10, 7][severity - 1])
    return np.asarray(Image.open(file)) / 255.0


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
@pytest.mark.parametrize(
    ("corruption", "reference"),
    [
        ("defocus_blur", by_opencv),
        ("brightness", by_skimage),
        ("contrast", by_mean),
        ("jpeg_compression", by_jpeg),
    ],
)
def test_values_are_those_of_another_implementation(
    corruption: str, severity: int, reference: Callable[[np.ndarray, int], np.ndarray]
) -> None:
    expected = 255 * np.clip(reference(PHOTO, severity), 0, 1)
    found = corrupt(PHOTO, corruption, severity)
    # Half a level is rounding.
    np.testing.assert_allclose(found, expected, atol=0.501)


@pytest.mark.parametrize(("severity", "side"), [(1, 134), (2, 112), (3, 89), (4, 67), (5, 56)])
def test_pixelation_has_as_many_colors_as_large_pixels(severity: int, side: int) -> None:
    found = corrupt(PHOTO, "pixelate", severity)
    rows = np.unique(found.reshape(224, -1), axis=0)
    assert len(rows) <= side if 224 % side == 0 else len(rows) >= side
    if 224 % side == 0:
        block = 224 // side
        means = PHOTO.reshape(side, block, side, block, 3).mean(axis=(1, 3))
        np.testing.assert_allclose(found[::block, ::block], means, atol=1)


@pytest.mark.parametrize(
    ("severity", "scale", "photons", "share"),
    [(1, 0.08, 60, 0.03), (2, 0.12, 25, 0.06), (3, 0.18, 12, 0.09), (4, 0.26, 5, 0.17)],
)
def test_noise_has_the_moments_that_define_it(
    severity: int, scale: float, photons: float, share: float
) -> None:
    levels = corrupt(gray(102), "gaussian_noise", severity) / 255
    # Clipping hides the tails, so the quartiles are compared: 0.6745 standard deviations.
    assert np.median(levels) == pytest.approx(0.4, abs=0.004)
    low, high = np.percentile(levels, [25, 75])
    assert (high - low) / (2 * 0.6745) == pytest.approx(scale, rel=0.03)
    counts = corrupt(gray(102), "shot_noise", severity) / 255 * photons
    assert np.allclose(counts, counts.round(), atol=photons / 500)
    # A white pixel is the brightest that there is.
    possible = np.arange(200)
    probability, clipped = poisson.pmf(possible, 0.4 * photons), np.minimum(possible, photons)
    mean = np.sum(probability * clipped)
    assert counts.mean() == pytest.approx(mean, rel=0.01)
    assert counts.var() == pytest.approx(np.sum(probability * (clipped - mean) ** 2), rel=0.02)
    impulses = corrupt(gray(102), "impulse_noise", severity)
    assert np.mean(impulses != 102) == pytest.approx(share, rel=0.03)
    assert np.mean(impulses == 0) == pytest.approx(share / 2, rel=0.05)
    assert np.mean(impulses == 255) == pytest.approx(share / 2, rel=0.05)
    # Channels are affected separately.
    assert np.any((impulses == 102).any(axis=-1) & (impulses != 102).any(axis=-1))


def test_brightness_keeps_hue_and_saturation() -> None:
    found = corrupt(PHOTO[:1, :1].repeat(4, 0).repeat(4, 1), "brightness", 1)[0, 0] / 255
    before = colorsys.rgb_to_hsv(*(PHOTO[0, 0] / 255))
    after = colorsys.rgb_to_hsv(*found)
    assert after == pytest.approx((*before[:2], min(1, before[2] + 0.1)), abs=0.02)
    np.testing.assert_array_equal(corrupt(gray(0), "brightness", 1), gray(26))


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_corruptions_depend_on_the_pixels_alone_and_grow(corruption: str) -> None:
    distances = []
    for severity in (1, 2, 3, 4, 5):
        found = corrupt(PHOTO, corruption, severity)
        assert found.shape == PHOTO.shape
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, corrupt(PHOTO.copy(), corruption, severity))
        distances.append(np.abs(found.astype(int) - PHOTO).mean())
    assert distances == sorted(distances)
    # Images get numbers of their own.
    if "noise" in corruption:
        other = corrupt(gray(103), corruption, 1)
        assert np.any((corrupt(gray(102), corruption, 1) == 102) != (other == 103))


@pytest.mark.parametrize("corruption", CORRUPTIONS)
@pytest.mark.parametrize("shape", [(8, 8, 1), (1, 1, 3), (5, 40, 3)])
def test_small_and_gray_images_have_corruptions(
    corruption: str, shape: tuple[int, int, int]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    assert corrupt(pixels, corruption, 5).shape == shape


def test_unknown_corruptions_are_errors() -> None:
    with pytest.raises(ValueError, match=r"gaussian_noise, shot_noise, .* but it is 'fog'"):
        corrupt(PHOTO, "fog", 1)
    with pytest.raises(ValueError, match="severity must be from 1 to 5, but it is 6"):
        corrupt(PHOTO, "contrast", 6)

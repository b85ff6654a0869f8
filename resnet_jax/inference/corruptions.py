"""Corruptions of images, at five severities, to measure how robust a network is.

The eight corruptions are among the fifteen of Hendrycks and Dietterich, with their published
parameters for images of about 224 pixels.  Results are not those of the data set ImageNet-C: its
images were stored as JPEG files and have other random numbers and seven more corruptions.

Images are corrupted after they are resized and cropped for the network, as there.  The random
numbers of an image depend on its own pixels, the corruption and the severity alone.  They are the
same in any order, in any data set and on any machine.

Reference:
    Hendrycks and Dietterich 2019, arXiv:1903.12261, and its ``make_imagenet_c.py``.
"""

import dataclasses
import hashlib
import io
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from resnet_jax.data.preprocessing import ImageLike, Preprocessing
from resnet_jax.inference.classifier import Classifier

SEVERITIES = (1, 2, 3, 4, 5)
"""The severities, from weak to strong."""


def corrupt(pixels: np.ndarray, corruption: str, severity: int) -> np.ndarray:
    """Return a corrupted image.

    Args:
        pixels: uint8[H, W, 1 or 3].
        corruption: Name of the corruption, one of `CORRUPTIONS`.
        severity: 1 to 5.

    Returns:
        uint8[H, W, 1 or 3]. Levels are rounded; Hendrycks and Dietterich drop the fractions.

    Raises:
        ValueError: There is no such corruption or severity.
    """
    if corruption not in CORRUPTIONS:
        raise ValueError(
            f"corruption must be one of {', '.join(CORRUPTIONS)}, but it is {corruption!r}"
        )
    if severity not in SEVERITIES:
        raise ValueError(f"severity must be from 1 to 5, but it is {severity}")
    function, parameters = CORRUPTIONS[corruption]
    key = hashlib.sha256(f"{corruption} {severity} {pixels.shape}".encode())
    key.update(pixels.tobytes())
    rng = np.random.Generator(np.random.Philox(key=int.from_bytes(key.digest()[:16], "little")))
    levels = function(pixels / 255, parameters[severity - 1], rng)
    return np.rint(255 * np.clip(levels, 0, 1)).astype(np.uint8)


def corrupted(classifier: Classifier, corruption: str, severity: int) -> Classifier:
    """Return a classifier that corrupts each image before the network sees it.

    It shares the weights and the compiled programs of the original.

    Args:
        classifier: The original.
        corruption: See `corrupt`.
        severity: See `corrupt`.
    """
    fields = {
        field.name: getattr(classifier.preprocessing, field.name)
        for field in dataclasses.fields(classifier.preprocessing)
    }
    return classifier.with_host_preprocessing(
        _Corrupted(**fields, corruption=corruption, severity=severity)
    )


@dataclasses.dataclass(frozen=True)
class _Corrupted(Preprocessing):
    """Preprocessing that corrupts the images after they are cropped; see `corrupt`."""

    corruption: str = dataclasses.field(kw_only=True)
    severity: int = dataclasses.field(kw_only=True)

    def on_host(self, image: ImageLike, **options: Any) -> np.ndarray:
        return corrupt(super().on_host(image, **options), self.corruption, self.severity)


def _gaussian_noise(levels: np.ndarray, scale: float, rng: np.random.Generator) -> np.ndarray:
    return levels + rng.normal(scale=scale, size=levels.shape)


def _shot_noise(levels: np.ndarray, photons: float, rng: np.random.Generator) -> np.ndarray:
    return rng.poisson(levels * photons) / photons


def _impulse_noise(levels: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Make a share of the values, in each channel separately, either 0 or 1."""
    affected = rng.uniform(size=levels.shape) < share
    return np.where(affected, rng.integers(2, size=levels.shape), levels)


def _defocus_blur(
    levels: np.ndarray, disk: tuple[int, float], rng: np.random.Generator
) -> np.ndarray:
    """Convolve with a disk whose edge is smoothed. The image is reflected at its border."""
    del rng
    kernel = _disk(*disk)
    margin = len(kernel) // 2
    padded = np.pad(levels, ((margin, margin), (margin, margin), (0, 0)), mode="reflect")
    shape = padded.shape[:2]
    # The kernel is symmetric, so its correlation with the image is a convolution.
    spectrum = np.fft.rfft2(padded, axes=(0, 1)) * np.fft.rfft2(kernel, shape)[..., None]
    blurred = np.fft.irfft2(spectrum, shape, axes=(0, 1))
    return blurred[2 * margin :, 2 * margin :]


def _disk(radius: int, smoothing: float) -> np.ndarray:
    """Return a disk float64[D, D], after a Gaussian filter.

    The filter reflects the array at its border, as OpenCV's does. Where the disk touches the
    border, the sum of the result is therefore slightly below 1.

    Args:
        radius: Radius in pixels. The array has a side of at least 17 pixels.
        smoothing: Standard deviation in pixels of the Gaussian, which has 3 taps up to a radius of
            8, and otherwise 5.
    """
    taps, half = (3, 8) if radius <= 8 else (5, radius)
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    disk = (x**2 + y**2 <= radius**2).astype(np.float64)
    disk /= disk.sum()
    offsets = np.arange(taps) - taps // 2
    weights = np.exp(-(offsets**2) / (2 * smoothing**2))
    weights /= weights.sum()
    for axis in (0, 1):
        margins = [(taps // 2, taps // 2) if i == axis else (0, 0) for i in (0, 1)]
        windows = np.lib.stride_tricks.sliding_window_view(
            np.pad(disk, margins, mode="reflect"), taps, axis=axis
        )
        disk = windows @ weights
    return disk


def _brightness(levels: np.ndarray, shift: float, rng: np.random.Generator) -> np.ndarray:
    """Add to the value in HSV, the largest channel, and keep hue and saturation."""
    del rng
    value = levels.max(axis=-1, keepdims=True)
    brighter = np.minimum(value + shift, 1)
    return np.where(value > 0, levels * brighter / np.where(value > 0, value, 1), brighter)


def _contrast(levels: np.ndarray, factor: float, rng: np.random.Generator) -> np.ndarray:
    """Reduce the distance from the mean of each channel."""
    del rng
    mean = levels.mean(axis=(0, 1), keepdims=True)
    return mean + factor * (levels - mean)


def _pixelate(levels: np.ndarray, factor: float, rng: np.random.Generator) -> np.ndarray:
    del rng
    image = _to_image(levels)
    small = [max(1, int(side * factor)) for side in image.size]
    box = Image.Resampling.BOX
    return _to_levels(image.resize((small[0], small[1]), box).resize(image.size, box))


def _jpeg_compression(levels: np.ndarray, quality: int, rng: np.random.Generator) -> np.ndarray:
    del rng
    buffer = io.BytesIO()
    _to_image(levels).save(buffer, "JPEG", quality=quality)
    return _to_levels(Image.open(buffer))


def _to_image(levels: np.ndarray) -> Image.Image:
    pixels = np.rint(255 * levels).astype(np.uint8)
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def _to_levels(image: Image.Image) -> np.ndarray:
    pixels = np.asarray(image) / 255
    return pixels[..., None] if pixels.ndim == 2 else pixels


_Corrupt = Callable[[np.ndarray, Any, np.random.Generator], np.ndarray]

CORRUPTIONS: dict[str, tuple[_Corrupt, tuple[Any, ...]]] = {
    # Standard deviation, on a scale from 0 to 1.
    "gaussian_noise": (_gaussian_noise, (0.08, 0.12, 0.18, 0.26, 0.38)),
    # Number of photons of a white pixel.
    "shot_noise": (_shot_noise, (60, 25, 12, 5, 3)),
    # Share of the values that become black or white.
    "impulse_noise": (_impulse_noise, (0.03, 0.06, 0.09, 0.17, 0.27)),
    # Radius, and standard deviation of its smoothing, in pixels.
    "defocus_blur": (_defocus_blur, ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))),
    # Added to the value in HSV, on a scale from 0 to 1.
    "brightness": (_brightness, (0.1, 0.2, 0.3, 0.4, 0.5)),
    # Factor of the distance from the mean.
    "contrast": (_contrast, (0.4, 0.3, 0.2, 0.1, 0.05)),
    # Factor of height and width.
    "pixelate": (_pixelate, (0.6, 0.5, 0.4, 0.3, 0.25)),
    # Quality of the JPEG encoder.
    "jpeg_compression": (_jpeg_compression, (25, 18, 15, 10, 7)),
}
"""The function of each corruption and its parameters at the five severities."""

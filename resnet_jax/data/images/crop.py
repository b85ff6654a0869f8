"""Cropping of images for evaluation."""

import math

import numpy as np

from resnet_jax.data.images.decode import _LONGEST, Interpolation, _center_of_long, resize

__all__ = ["evaluation_crop", "resize"]


def evaluation_crop(
    pixels: np.ndarray, *, image_size: int, crop_fraction: float, interpolation: Interpolation
) -> np.ndarray:
    """Return the central crop of an image whose short side is resized to size / crop_fraction.

    Args:
        pixels: uint8[H, W, 3].
        image_size: Height and width of the result, in pixels.
        crop_fraction: Side of the crop as a fraction of the short side, above 0 to 1.
        interpolation: How the image is resized.

    Returns:
        uint8[image_size, image_size, 3].
    """
    height, width = pixels.shape[:2]
    short = math.floor(image_size / crop_fraction)
    if height <= width:
        height, width = short, int(short * width / height)
    else:
        height, width = int(short * height / width), short
    if max(height, width) > _LONGEST * short:
        return _center_of_long(pixels, (height, width), image_size, interpolation)
    pixels = resize(pixels, height, width, interpolation)
    top, left = round((height - image_size) / 2), round((width - image_size) / 2)
    return pixels[top : top + image_size, left : left + image_size]

"""Pictures within a page: thumbnails of images, and the kernels of the first convolution."""

import base64
import io
import math
from typing import NamedTuple

import numpy as np
from PIL import Image

# Larger images are photographs, and stored with loss. Smaller ones keep every pixel.
_MAX_EXACT = 48
_QUALITY = 80
_MAX_KERNELS = 256
# Side of a kernel in its picture, and the gap between two kernels, in pixels.
_KERNEL_SIDE, _KERNEL_GAP = 36, 4


class Picture(NamedTuple):
    """A picture within a page.

    Attributes:
        uri: The picture as a ``data:`` URI.
        width: Width in pixels of the picture.
        height: Height in pixels of the picture.
        exact: Whether it has every pixel of the image, to be enlarged without blurring.
    """

    uri: str
    width: int
    height: int
    exact: bool


def thumbnail(pixels: np.ndarray, side: int) -> Picture:
    """Return a picture of an image.

    Args:
        pixels: uint8[H, W, 1 or 3].
        side: Largest height and width in pixels. Smaller images keep their size.
    """
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    if max(image.size) <= _MAX_EXACT:
        return _picture(image, "PNG", exact=True)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return _picture(image, "WEBP", exact=False)


def _picture(image: Image.Image, kind: str, *, exact: bool) -> Picture:
    buffer = io.BytesIO()
    options = {"optimize": True} if kind == "PNG" else {"quality": _QUALITY}
    image.save(buffer, kind, **options)
    text = base64.b64encode(buffer.getvalue()).decode()
    return Picture(f"data:image/{kind.lower()};base64,{text}", *image.size, exact)


class Kernels(NamedTuple):
    """The kernels of the first convolution, side by side.

    Attributes:
        picture: The kernels in rows, with gaps between them.
        shown: Number of kernels in the picture.
        total: Number of kernels of the convolution.
        size: Height and width of a kernel in pixels.
        channels: Number of channels of the images.
    """

    picture: Picture
    shown: int
    total: int
    size: tuple[int, int]
    channels: int


def draw_kernels(kernels: np.ndarray) -> Kernels | None:
    """Return a picture of kernels, each scaled to the whole range from black to white.

    Args:
        kernels: float[H, W, C, K]. Kernels of 1 and 3 channels are shown; for others the result is
            None.
    """
    *size, channels, total = kernels.shape
    if channels not in (1, 3):
        return None
    shown = np.moveaxis(kernels, -1, 0)[:_MAX_KERNELS].astype(np.float32)
    low, high = (
        shown.min(axis=(1, 2, 3), keepdims=True),
        shown.max(axis=(1, 2, 3), keepdims=True),
    )
    levels = np.rint(255 * (shown - low) / np.maximum(high - low, 1e-12)).astype(np.uint8)
    count = len(levels)
    factor = max(1, _KERNEL_SIDE // max(size))
    levels = levels.repeat(factor, axis=1).repeat(factor, axis=2)
    height, width = levels.shape[1:3]
    columns = min(16, math.ceil(math.sqrt(2 * count)))
    rows = math.ceil(count / columns)
    gap = _KERNEL_GAP
    # The gaps are transparent, so that they have the color of the page.
    sheet = np.zeros((rows * (height + gap) - gap, columns * (width + gap) - gap, 4), np.uint8)
    for i, kernel in enumerate(levels):
        top, left = i // columns * (height + gap), i % columns * (width + gap)
        place = sheet[top : top + height, left : left + width]
        place[..., :3], place[..., 3] = kernel, 255
    picture = _picture(Image.fromarray(sheet, "RGBA"), "PNG", exact=True)
    return Kernels(picture, count, total, (size[0], size[1]), channels)

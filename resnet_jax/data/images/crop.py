"""Cropping and resizing on the host: random crops for training, central crops for evaluation.

Importing this module imports NumPy and Pillow; OpenCV is imported when ``"linear"`` is first used.
"""

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
from PIL import Image

from resnet_jax.config.data import CropMode, Interpolation
from resnet_jax.data.images.decode import MAX_PIXELS, decode, decode_with_header
from resnet_jax.data.images.jpeg import read_header
from resnet_jax.data.images.optional import opencv

_PIL = {f"pil_{filter_.name.lower()}": filter_ for filter_ in Image.Resampling}
# libjpeg can shrink an image by these factors while it decodes, which saves most of the work.
_JPEG_FACTORS = (8, 4, 2)
# An image that would have more pixels than this after resizing, and whose long side exceeds this
# multiple of its short side, is not resized as a whole: the crop would discard most of the result.
# The values of the part may differ from those of the whole by two gray levels.
_LARGEST, _LONGEST = 1 << 24, 8

Size = int | tuple[int, int]
"""Height and width in pixels; one integer means a square."""

CENTER = (0.5, 0.5)
"""Position of the central crop, see `evaluation_crop`."""

Draws = Sequence[Sequence[float]]
"""Ten rows of four numbers, uniform in [0, 1), that choose a random box; one row for each try."""


def random_box(
    height: int,
    width: int,
    draws: Draws,
    *,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> tuple[int, int, int, int]:
    """Return a random box inside an image, drawn as torchvision's ``RandomResizedCrop`` does.

    If no try fits, the box is the largest one of an allowed ratio at the center of the image.

    Args:
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        draws: Random numbers that choose the box.
        scale: Smallest and largest area of the box, as a share of the image.
        ratio: Smallest and largest width divided by height; its logarithm is uniform.

    Returns:
        Top, left, height and width in pixels.

    Reference:
        Szegedy et al. 2014, arXiv:1409.4842.
    """
    for size, shape, y, x in draws:
        area = height * width * (scale[0] + (scale[1] - scale[0]) * size)
        aspect = ratio[0] * (ratio[1] / ratio[0]) ** shape
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(y * (height - h + 1)), int(x * (width - w + 1)), h, w
    w, h = width, height
    if width / height < ratio[0]:
        h = min(height, max(1, round(width / ratio[0])))
    elif width / height > ratio[1]:
        w = min(width, max(1, round(height * ratio[1])))
    return (height - h) // 2, (width - w) // 2, h, w


def random_resized_crop(
    data: bytes,
    out: np.ndarray,
    draws: Draws,
    *,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    interpolation: Interpolation,
    max_pixels: int = MAX_PIXELS,
) -> None:
    """Write a random part of an image, resized, to ``out``.

    Args:
        data: Content of an image file.
        out: uint8[size, size, 3], overwritten.
        draws: Random numbers that choose the part, see `random_box`.
        scale: Smallest and largest area of the part, as a share of the image.
        ratio: Smallest and largest width divided by height of the part.
        interpolation: How to resize. With ``"linear"``, JPEG files are also decoded roughly.
        max_pixels: Largest number of pixels of the file.

    Raises:
        DecodeError: The file cannot be decoded, see `decode`.
        ImportError: ``"linear"`` needs OpenCV, which is not installed.
    """
    draw = partial(random_box, draws=draws, scale=scale, ratio=ratio)
    if (header := read_header(data)) is None:
        pixels = decode_with_header(data, header, max_pixels=max_pixels)
        box = draw(*pixels.shape[:2])
    else:
        box = draw(header.height, header.width)
        shrink = next((f for f in _JPEG_FACTORS if min(box[2:]) >= f * len(out)), 1)
        rough = interpolation == "linear"
        pixels = decode_with_header(
            data,
            header,
            shrink=shrink,
            rows=box[0] + box[2],
            rough=rough,
            max_pixels=max_pixels,
        )
        if pixels.shape[1] != header.width:
            _resize_part(pixels, [side / shrink for side in box], out, interpolation)
            return
    top, left, h, w = box
    part = pixels[top : top + h, left : left + w]
    if interpolation == "linear":
        cv2 = opencv()
        # Writing into the batch saves the allocation and the copy of another array.
        cv2.resize(part, (len(out), len(out)), dst=out, interpolation=cv2.INTER_LINEAR)
    else:
        out[:] = resize(part, len(out), len(out), interpolation)


def evaluation_image(
    data: bytes,
    *,
    image_size: int,
    crop_fraction: float,
    interpolation: Interpolation,
    crop_mode: CropMode = "center",
    fill: tuple[int, ...] = (0, 0, 0),
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """Decode an image file and return the central crop that evaluation uses.

    Args:
        data: Content of an image file.
        image_size: Height and width of the result in pixels.
        crop_fraction: See `evaluation_crop`.
        interpolation: See `evaluation_crop`.
        crop_mode: See `evaluation_crop`.
        fill: See `evaluation_crop`.
        max_pixels: Largest number of pixels of the file.

    Returns:
        uint8[image_size, image_size, 3].

    Raises:
        DecodeError: The file cannot be decoded, see `decode`.
        ImportError: ``"linear"`` needs OpenCV, which is not installed.
    """
    return evaluation_crop(
        decode(data, max_pixels=max_pixels),
        image_size=image_size,
        crop_fraction=crop_fraction,
        interpolation=interpolation,
        crop_mode=crop_mode,
        fill=fill,
    )


def evaluation_crop(
    pixels: np.ndarray,
    *,
    image_size: Size,
    crop_fraction: float,
    interpolation: Interpolation,
    crop_mode: CropMode = "center",
    fill: tuple[int, ...] = (0, 0, 0),
    anchor: tuple[float, float] = CENTER,
) -> np.ndarray:
    """Resize an image to ``image_size / crop_fraction`` and cut out the center, or another part.

    Sizes are rounded as in timm and, for a fraction of 0.875, as in torchvision.

    Args:
        pixels: uint8[H, W, 3].
        image_size: Height and width of the result in pixels.
        crop_fraction: Side of the crop divided by the side of the resized image, above 0 and at
            most 1.
        interpolation: How to resize.
        crop_mode: Which side is resized to that size: the short one (``"center"``), the long one
            (``"border"``), or both (``"squash"``).
        fill: Levels of red, green and blue beside the image, for ``"border"``.
        anchor: Vertical and horizontal position of the part, from 0 (top, left) to 1 (bottom,
            right).

    Returns:
        uint8[height, width, 3].

    Raises:
        ImportError: ``"linear"`` needs OpenCV, which is not installed.
    """
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    target = _target(size, crop_fraction)
    resized = _resized(pixels.shape[:2], target, crop_mode)
    if math.prod(resized) > _LARGEST and max(resized) > _LONGEST * max(target):
        return _part_of_long(pixels, resized, size, interpolation, anchor)
    return _part(resize(pixels, *resized, interpolation), size, fill, anchor)


def evaluation_box(
    shape: tuple[int, ...],
    *,
    image_size: Size,
    crop_fraction: float,
    crop_mode: CropMode = "center",
) -> tuple[float, float, float, float]:
    """Return the part of an image that `evaluation_crop` cuts out of its center.

    Args:
        shape: Height and width of the image in pixels.
        image_size: See `evaluation_crop`.
        crop_fraction: See `evaluation_crop`.
        crop_mode: See `evaluation_crop`.

    Returns:
        Top, left, height and width, in pixels of the image. They are not rounded. The part is
        larger than the image where `evaluation_crop` pads.
    """
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    resized = _resized(shape, _target(size, crop_fraction), crop_mode)
    edges, sides = [], []
    for length, before, side in zip(shape[:2], resized, size, strict=True):
        excess = before - side
        start = round(excess / 2) if excess > 0 else -(-excess // 2)
        edges.append(start * length / before)
        sides.append(side * length / before)
    return edges[0], edges[1], sides[0], sides[1]


def _target(size: tuple[int, int], crop_fraction: float) -> tuple[int, int]:
    """Return the size to which an image of the same proportions is resized before the crop."""
    return math.floor(size[0] / crop_fraction), math.floor(size[1] / crop_fraction)


def _resized(
    shape: tuple[int, ...], target: tuple[int, int], crop_mode: CropMode
) -> tuple[int, int]:
    """Return height and width of the resized image, before the crop."""
    height, width = shape
    if crop_mode == "squash":
        return target
    short = target[0]
    if crop_mode == "center" and target == (short, short):
        # torchvision rounds down, and timm uses it here. Below, timm rounds to the nearest.
        if height <= width:
            return short, int(short * width / height)
        return int(short * height / width), short
    ratios = height / target[0], width / target[1]
    ratio = max(ratios) if crop_mode == "border" else min(ratios)
    return max(1, round(height / ratio)), max(1, round(width / ratio))


def _part(
    pixels: np.ndarray,
    size: tuple[int, int],
    fill: tuple[int, ...],
    anchor: tuple[float, float],
) -> np.ndarray:
    """Cut out a part, and pad with a color where the image is smaller."""
    missing = [max(0, side - length) for side, length in zip(size, pixels.shape, strict=False)]
    if any(missing):
        (top, bottom), (left, right) = ((m // 2, (m + 1) // 2) for m in missing)
        padded = np.empty((*np.add(pixels.shape[:2], missing), 3), np.uint8)
        padded[:] = fill
        padded[top : padded.shape[0] - bottom, left : padded.shape[1] - right] = pixels
        pixels = padded
    height, width = size
    top = round((pixels.shape[0] - height) * anchor[0])
    left = round((pixels.shape[1] - width) * anchor[1])
    return pixels[top : top + height, left : left + width]


def resize(pixels: np.ndarray, height: int, width: int, interpolation: Interpolation) -> np.ndarray:
    """Resize uint8[H, W, 3] to uint8[height, width, 3].

    Raises:
        ImportError: ``"linear"`` needs OpenCV, which is not installed.
    """
    if interpolation == "linear":
        cv2 = opencv()
        return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(Image.fromarray(pixels).resize((width, height), _PIL[interpolation]))


def _resize_part(
    pixels: np.ndarray, box: Sequence[float], out: np.ndarray, interpolation: Interpolation
) -> None:
    """Resize a box whose edges may fall between pixels, given as top, left, height and width."""
    top, left, h, w = box
    height, width = out.shape[:2]
    if interpolation != "linear":
        image = Image.fromarray(pixels)
        part = (left, top, min(left + w, image.width), min(top + h, image.height))
        out[:] = np.asarray(image.resize((width, height), _PIL[interpolation], box=part))
        return
    cv2 = opencv()
    x, y = w / width, h / height
    matrix = np.array([[x, 0, left + x / 2 - 0.5], [0, y, top + y / 2 - 0.5]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    cv2.warpAffine(
        pixels, matrix, (width, height), dst=out, flags=flags, borderMode=cv2.BORDER_REPLICATE
    )


def _part_of_long(
    pixels: np.ndarray,
    resized: tuple[int, int],
    size: tuple[int, int],
    interpolation: Interpolation,
    anchor: tuple[float, float],
) -> np.ndarray:
    """Return a part of the image as if resized, without resizing the rest of it."""
    scale = np.array(pixels.shape[:2]) / resized
    start = np.round(np.subtract(resized, size) * anchor) * scale
    # OpenCV stores coordinates in 16 bits. Pixels beyond this margin do not affect the result.
    # Lanczos reaches farthest, three pixels of the result.
    margin = 2 + 3 * np.ceil(scale)
    first = np.maximum(0, np.floor(start) - margin).astype(int)
    last = np.ceil(start + np.multiply(size, scale) + margin).astype(int)
    part = pixels[first[0] : last[0], first[1] : last[1]]
    out = np.empty((*size, 3), np.uint8)
    _resize_part(part, [*(start - first), *np.multiply(size, scale)], out, interpolation)
    return out

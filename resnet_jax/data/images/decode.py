"""From the bytes of an image file to pixels: decoding, cropping, resizing, all on the host."""

import io
import math
import re
from collections.abc import Sequence
from functools import partial
from typing import Literal

import cv2
import numpy as np
import simplejpeg
from PIL import Image, ImageOps

Interpolation = Literal["linear", "pil_bilinear", "pil_bicubic"]
"""``linear`` is OpenCV's without antialiasing, the fastest; the others are Pillow's with it, as
torchvision and timm have them."""

_PIL = {
    "pil_bilinear": Image.Resampling.BILINEAR,
    "pil_bicubic": Image.Resampling.BICUBIC,
}
# Where libjpeg may shrink by these at decoding, it saves most of the work.
_JPEG_FACTORS = (8, 4, 2)


class DecodeError(ValueError):
    """Bytes that are no whole image."""


def decode(data: bytes, *, shrink: int = 1) -> np.ndarray:
    """Decodes any image file to colours.

    JPEG, PNG, WebP, GIF, BMP, TIFF: CMYK and greyscale become RGB, 16 bits become 8, transparency
    is dropped, of an animation the first frame is taken, and EXIF's orientation is applied.

    Args:
        data: content of the file.
        shrink: a JPEG may come smaller by this factor, 1, 2, 4 or 8.

    Returns:
        uint8[H, W, 3].

    Raises:
        DecodeError: it is truncated, damaged, or no image; the message says how many bytes it has.
    """
    if size := _plain_jpeg_size(data):
        height, width = (-(-side // shrink) for side in size)
        try:
            return simplejpeg.decode_jpeg(data, "RGB", min_height=height, min_width=width)
        except ValueError:
            pass  # Pillow forgives more, and says more clearly what is wrong.
    try:
        with Image.open(io.BytesIO(data)) as image:
            return _rgb(image)
    except Exception as error:  # Of whichever plugin of Pillow.
        reason = re.sub(r"<[^>]*>", "the bytes", " ".join(str(error).split()))
        raise DecodeError(f"no whole image, {len(data)} bytes ({reason[:100]})") from None


def _plain_jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Height and width of a JPEG that needs neither turning nor another colour space."""
    if not data.startswith(b"\xff\xd8") or b"Exif\0" in data[:4096]:
        return None
    try:
        height, width, colors, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    return None if colors in ("CMYK", "YCCK") else (int(height), int(width))


def _rgb(image: Image.Image) -> np.ndarray:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        levels = np.asarray(image, np.float64)
        levels = levels / 257 if levels.max(initial=0) > 255 else levels
        return np.repeat(np.clip(np.rint(levels), 0, 255).astype(np.uint8)[..., None], 3, axis=-1)
    if image.mode in ("P", "PA", "LA"):
        image = image.convert("RGBA")
    return np.array(image.convert("RGB"))


def random_box(
    height: int,
    width: int,
    rng: np.random.Generator,
    *,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> tuple[int, int, int, int]:
    """A random part of an image (Szegedy et al. 2014), drawn as torchvision's RandomResizedCrop.

    Args:
        height: of the image, in pixels.
        width: of the image, in pixels.
        rng: decides.
        scale: smallest and largest share of the area.
        ratio: smallest and largest width over height; uniform in the logarithm.

    Returns:
        Top, left, height and width in pixels.
    """
    for _ in range(10):
        area = height * width * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
    # The largest part of an allowed ratio, from the centre.
    w, h = width, height
    if width / height < ratio[0]:
        h = min(height, max(1, round(width / ratio[0])))
    elif width / height > ratio[1]:
        w = min(width, max(1, round(height * ratio[1])))
    return (height - h) // 2, (width - w) // 2, h, w


def random_resized_crop(
    data: bytes,
    size: int,
    rng: np.random.Generator,
    *,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    interpolation: Interpolation,
) -> np.ndarray:
    """A random part of an encoded image, resized to uint8[size, size, 3].

    Raises:
        DecodeError: as `decode`.
    """
    draw = partial(random_box, rng=rng, scale=scale, ratio=ratio)
    if (stored := _plain_jpeg_size(data)) is None:
        pixels = decode(data)
        box = draw(*pixels.shape[:2])
    else:
        height, width = stored
        box = draw(height, width)
        shrink = next((f for f in _JPEG_FACTORS if min(box[2:]) >= f * size), 1)
        pixels = decode(data, shrink=shrink)
        if pixels.shape[:2] != stored:
            return _resize_part(pixels, [side / shrink for side in box], size, interpolation)
    top, left, h, w = box
    return resize(pixels[top : top + h, left : left + w], size, size, interpolation)


def _resize_part(
    pixels: np.ndarray, box: Sequence[float], size: int, interpolation: Interpolation
) -> np.ndarray:
    """`resize` of a part whose border lies between pixels: top, left, height and width."""
    top, left, h, w = box
    if interpolation != "linear":
        image = Image.fromarray(pixels)
        part = (left, top, min(left + w, image.width), min(top + h, image.height))
        return np.asarray(image.resize((size, size), _PIL[interpolation], box=part))
    x, y = w / size, h / size
    matrix = np.array([[x, 0, left + x / 2 - 0.5], [0, y, top + y / 2 - 0.5]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(
        pixels, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_REPLICATE
    )


def resized_center_crop(
    data: bytes, size: int, *, crop_fraction: float, interpolation: Interpolation
) -> np.ndarray:
    """The short side resized to size / crop_fraction, then the centre: uint8[size, size, 3].

    Rounds as timm and, at its fraction of 0.875, torchvision.

    Raises:
        DecodeError: as `decode`.
    """
    pixels = decode(data)
    height, width = pixels.shape[:2]
    short = math.floor(size / crop_fraction)
    if height <= width:
        height, width = short, int(short * width / height)
    else:
        height, width = int(short * height / width), short
    pixels = resize(pixels, height, width, interpolation)
    top, left = round((height - size) / 2), round((width - size) / 2)
    return pixels[top : top + size, left : left + size]


def resize(pixels: np.ndarray, height: int, width: int, interpolation: Interpolation) -> np.ndarray:
    """uint8[H, W, 3] to uint8[height, width, 3]."""
    if interpolation == "linear":
        return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(Image.fromarray(pixels).resize((width, height), _PIL[interpolation]))

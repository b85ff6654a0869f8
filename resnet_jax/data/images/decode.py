"""From the bytes of an image file to pixels: decoding, cropping, resizing, all on the host."""

import io
import math
import re
from collections.abc import Sequence
from functools import partial
from typing import Literal, NamedTuple

import cv2
import numpy as np
import simplejpeg
from PIL import Image, ImageOps

Interpolation = Literal["linear", "pil_bilinear", "pil_bicubic"]
"""``linear`` is OpenCV's without antialiasing, the fastest, and random crops of JPEGs are then
decoded roughly too; the others are Pillow's with it, as torchvision and timm have them."""

_PIL = {
    "pil_bilinear": Image.Resampling.BILINEAR,
    "pil_bicubic": Image.Resampling.BICUBIC,
}
# Where libjpeg may shrink by these at decoding, it saves most of the work.
_JPEG_FACTORS = (8, 4, 2)
# Longer images than this are not resized as a whole: most of it would be cut off again.
_LONGEST = 8
_EXIF_ORIENTATION = 0x0112
# What libjpeg says of the rows that it was not asked for, where it warned of nothing before.
_ROWS_LEFT = re.compile(r"extraneous bytes before marker 0xd[0-79]")

Draws = Sequence[Sequence[float]]
"""Ten times four numbers, uniform from 0 to below 1, by which a random part is chosen."""


class DecodeError(ValueError):
    """Bytes that are no whole image."""


class _Jpeg(NamedTuple):
    """What stands before the pixels of a JPEG that needs neither turning nor another colour space.

    Attributes:
        height: in pixels.
        width: in pixels.
        height_at: where the height is written if the rows come one after the other, so that the
            lower ones need not be decoded; else None.
        rows_of_colour: a row of the colours is shared by so many of the brightness.
    """

    height: int
    width: int
    height_at: int | None
    rows_of_colour: int


def decode(
    data: bytes,
    *,
    shrink: int = 1,
    rows: int | None = None,
    rough: bool = False,
    strict: bool = False,
) -> np.ndarray:
    """Decodes any image file to colours.

    JPEG, PNG, WebP, GIF, BMP, TIFF: CMYK and greyscale become RGB, 16 bits become 8, as do levels
    from 0 to 1, transparency is dropped, of an animation the first frame is taken, and EXIF's
    orientation is applied.

    Args:
        data: content of the file.
        shrink: a JPEG may come smaller by this factor, 1, 2, 4 or 8.
        rows: only so many of the uppermost rows, counted before shrinking, are needed; a JPEG may
            come without the others.
        rough: a JPEG may come with cosines of few bits, as TensorFlow has them by default, and with
            colours that are repeated where they are shared, instead of interpolated; that is
            quicker.
        strict: refuse a JPEG that libjpeg warns of, although the rest of it can be shown.

    Returns:
        uint8[H, W, 3].

    Raises:
        DecodeError: it is truncated, damaged, or no image; the message says how many bytes it has.
            Damage below the rows that are needed is not seen, truncation is.
    """
    return _decode(data, _jpeg_header(data), shrink, rows, rough=rough, strict=strict)


def _decode(
    data: bytes,
    header: _Jpeg | None,
    shrink: int = 1,
    rows: int | None = None,
    *,
    rough: bool = False,
    strict: bool = False,
) -> np.ndarray:
    if header:
        try:
            return _decode_jpeg(data, header, shrink, rows, rough)
        except ValueError as error:
            if strict:
                raise DecodeError(f"{error}, {len(data)} bytes") from None
            # Pillow forgives more, and says more clearly what is wrong.
    try:
        with Image.open(io.BytesIO(data)) as image:
            return _rgb(image)
    except DecodeError:
        raise
    except Exception as error:  # Of whichever plugin of Pillow.
        reason = re.sub(r"<[^>]*>", "the bytes", " ".join(str(error).split()))
        raise DecodeError(f"no whole image, {len(data)} bytes ({reason[:100]})") from None


def _decode_jpeg(
    data: bytes, header: _Jpeg, shrink: int, rows: int | None, rough: bool
) -> np.ndarray:
    height, width, at, rows_of_colour = header
    to_rgb = partial(simplejpeg.decode_jpeg, colorspace="RGB", fastdct=rough, fastupsample=rough)
    needed = height if rows is None else rows
    if not rough:
        # Colours are interpolated between their rows, so one more of those is needed.
        needed += 2 * rows_of_colour * shrink
    # What is cut off has no end, and decoders need not look that far to notice.
    if at is None or needed >= height or data.rfind(b"\xff\xd9", at) < 0:
        return to_rgb(data, min_height=-(-height // shrink), min_width=-(-width // shrink))
    # libjpeg decodes as many rows as the header announces.
    shorter = bytearray(data)
    shorter[at : at + 2] = needed.to_bytes(2, "big")
    pixels = np.empty((-(-needed // shrink), -(-width // shrink), 3), np.uint8)
    try:
        to_rgb(shorter, min_height=len(pixels), min_width=pixels.shape[1], buffer=pixels)
    except ValueError as error:
        if not _ROWS_LEFT.search(str(error)):
            raise
    return pixels


def _jpeg_header(data: bytes) -> _Jpeg | None:
    """None where Pillow has to look at it: another format, a turned image, CMYK."""
    if not data.startswith(b"\xff\xd8"):
        return None
    at, frame = 2, None
    while at + 10 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xFF:  # Padding.
            at += 1
            continue
        if marker == 0xE1 and not _upright(data[at + 4 : at + 2 + length]):
            return None
        if marker == 0xDA:
            if frame is None:
                return None
            baseline, height, width, colors, height_at, rows_of_colour = frame
            in_rows = baseline and data[at + 4] == colors
            return _Jpeg(height, width, height_at if in_rows else None, rows_of_colour)
        # A frame, of whichever coding; C4, C8 and CC are other things.
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height = int.from_bytes(data[at + 5 : at + 7], "big")
            width = int.from_bytes(data[at + 7 : at + 9], "big")
            colors = data[at + 9]
            if data[at + 4] != 8 or colors not in (1, 3) or not height or not width:
                return None
            rows_of_colour = max(byte & 15 for byte in data[at + 11 : at + 2 + length : 3])
            frame = marker == 0xC0, height, width, colors, at + 5, rows_of_colour
        at += 2 + length
    return None


def _upright(segment: bytes) -> bool:
    """Whether the metadata in a JPEG let the image as it is."""
    if not segment.startswith(b"Exif\0"):
        return b"Orientation" not in segment
    exif = Image.Exif()
    try:
        exif.load(segment)
        return exif.get(_EXIF_ORIENTATION, 1) == 1
    except Exception:  # Whatever Pillow stumbles over, it is to say what follows.
        return False


def _rgb(image: Image.Image) -> np.ndarray:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        levels = np.asarray(image, np.float64)
        if image.mode == "F":
            if not (levels.min() >= 0 and levels.max() <= 1):
                raise DecodeError(
                    f"levels are floating-point numbers from {levels.min():g} to "
                    f"{levels.max():g}; they must be from 0 to 1, or whole ones of 8 or 16 bits"
                )
            levels = levels * 255
        # 32 bits hold what may have had 8 or 16.
        elif image.mode != "I" or levels.max() > 255:
            levels = levels / 257
        return np.repeat(np.clip(np.rint(levels), 0, 255).astype(np.uint8)[..., None], 3, axis=-1)
    if image.mode in ("P", "PA", "LA"):
        image = image.convert("RGBA")
    return np.array(image.convert("RGB"))


def random_box(
    height: int,
    width: int,
    draws: Draws,
    *,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> tuple[int, int, int, int]:
    """A random part of an image (Szegedy et al. 2014), drawn as torchvision's RandomResizedCrop.

    Args:
        height: of the image, in pixels.
        width: of the image, in pixels.
        draws: decide; one row for each try.
        scale: smallest and largest share of the area.
        ratio: smallest and largest width over height; uniform in the logarithm.

    Returns:
        Top, left, height and width in pixels.
    """
    for size, shape, y, x in draws:
        area = height * width * (scale[0] + (scale[1] - scale[0]) * size)
        aspect = ratio[0] * (ratio[1] / ratio[0]) ** shape
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(y * (height - h + 1)), int(x * (width - w + 1)), h, w
    # The largest part of an allowed ratio, from the centre.
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
) -> None:
    """Fills ``out``, uint8[size, size, 3], with a random part of an image, as `random_box`.

    Raises:
        DecodeError: as `decode`.
    """
    draw = partial(random_box, draws=draws, scale=scale, ratio=ratio)
    if (header := _jpeg_header(data)) is None:
        pixels = _decode(data, header)
        box = draw(*pixels.shape[:2])
    else:
        box = draw(header.height, header.width)
        shrink = next((f for f in _JPEG_FACTORS if min(box[2:]) >= f * len(out)), 1)
        rough = interpolation == "linear"
        pixels = _decode(data, header, shrink, box[0] + box[2], rough=rough)
        if pixels.shape[1] != header.width:
            _resize_part(pixels, [side / shrink for side in box], out, interpolation)
            return
    top, left, h, w = box
    part = pixels[top : top + h, left : left + w]
    if interpolation == "linear":
        # To write where the batch is saves an array that nothing else is made of.
        cv2.resize(part, (len(out), len(out)), dst=out, interpolation=cv2.INTER_LINEAR)
    else:
        out[:] = resize(part, len(out), len(out), interpolation)


def _resize_part(
    pixels: np.ndarray, box: Sequence[float], out: np.ndarray, interpolation: Interpolation
) -> None:
    """Resizes a part whose border lies between pixels: top, left, height and width."""
    top, left, h, w = box
    size = len(out)
    if interpolation != "linear":
        image = Image.fromarray(pixels)
        part = (left, top, min(left + w, image.width), min(top + h, image.height))
        out[:] = np.asarray(image.resize((size, size), _PIL[interpolation], box=part))
        return
    x, y = w / size, h / size
    matrix = np.array([[x, 0, left + x / 2 - 0.5], [0, y, top + y / 2 - 0.5]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    cv2.warpAffine(
        pixels, matrix, (size, size), dst=out, flags=flags, borderMode=cv2.BORDER_REPLICATE
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
    if max(height, width) > _LONGEST * short:
        return _center_of_long(pixels, (height, width), size, interpolation)
    pixels = resize(pixels, height, width, interpolation)
    top, left = round((height - size) / 2), round((width - size) / 2)
    return pixels[top : top + size, left : left + size]


def _center_of_long(
    pixels: np.ndarray, resized: tuple[int, int], size: int, interpolation: Interpolation
) -> np.ndarray:
    """The centre of the image as large as ``resized``, of which nothing else is made."""
    scale = np.array(pixels.shape[:2]) / resized
    start = np.round((np.array(resized) - size) / 2) * scale
    # OpenCV counts pixels in 16 bits, and what lies further away changes nothing.
    margin = 2 + 2 * np.ceil(scale)
    first = np.maximum(0, np.floor(start) - margin).astype(int)
    last = np.ceil(start + size * scale + margin).astype(int)
    part = pixels[first[0] : last[0], first[1] : last[1]]
    out = np.empty((size, size, 3), np.uint8)
    _resize_part(part, [*(start - first), *(size * scale)], out, interpolation)
    return out


def resize(pixels: np.ndarray, height: int, width: int, interpolation: Interpolation) -> np.ndarray:
    """uint8[H, W, 3] to uint8[height, width, 3]."""
    if interpolation == "linear":
        return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(Image.fromarray(pixels).resize((width, height), _PIL[interpolation]))

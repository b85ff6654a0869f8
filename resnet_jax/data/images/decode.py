"""Decoding of image files to RGB pixels."""

import contextlib
import functools
import importlib.util
import io
import itertools
import re
import threading
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image, ImageOps

from resnet_jax.config.data import ImageConfig
from resnet_jax.data.images.jpeg import JpegHeader, decode_jpeg, read_header

MAX_PIXELS = ImageConfig.max_pixels
"""Default of the largest number of pixels of an image."""

# The formats that are read. Pillow has more, some of which are no images alone: it gives EPS files
# to Ghostscript, which runs the program in them, and an icon can contain an image that is much
# larger than the icon says.
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000")
_AVIF = "AVIF"
# Tags of the width and the height of a tile of a TIFF file, and the number of pixels that a tile
# may have in any case.
_TILE_WIDTH, _TILE_HEIGHT, _SMALL_TILE = 322, 323, 2**24

# Number of pixels of a strip: a few hundred kilobytes, which stay in a core's cache.
_STRIP = 2**18


class DecodeError(ValueError):
    """Raised for bytes that are not a complete, undamaged image file."""


class TooLargeError(DecodeError):
    """Raised for an image that has more pixels than allowed."""


def decode(
    data: bytes,
    *,
    shrink: int = 1,
    rows: int | None = None,
    rough: bool = False,
    strict: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """Decode an image file to RGB.

    The formats are JPEG, PNG, WebP, GIF, BMP, TIFF, PPM, JPEG 2000 and, if Pillow has it, AVIF.
    CMYK and grayscale become RGB.  Levels of 16 bits, and floating-point levels from 0 to 1, become
    8 bits.  Transparency is dropped.  An animation gives its first frame.  The orientation in the
    EXIF metadata is applied.

    Args:
        data: Content of the file.
        shrink: Divide height and width of a JPEG by this factor, 1, 2, 4 or 8. Other files, and
            JPEG files that only Pillow can decode, keep their size.
        rows: Number of rows from the top that are needed, counted before shrinking. A JPEG may lack
            the others in the result.
        rough: Decode a JPEG faster, with an inverse cosine transform of fewer bits, which is
            TensorFlow's default, and with shared colors repeated instead of interpolated.
        strict: Refuse a JPEG that libjpeg warns of, although Pillow can show the rest of it. This
            needs simplejpeg; without it nothing more is refused.
        max_pixels: Largest number of pixels of the file. A small file can announce so many that
            the memory does not suffice.

    Returns:
        uint8[H, W, 3].

    Raises:
        DecodeError: The file is truncated, damaged, or not an image; the message gives its size in
            bytes. Damage below the needed rows is not noticed, truncation is.
        TooLargeError: The image has more than ``max_pixels`` pixels.
    """
    return decode_with_header(
        data,
        read_header(data),
        shrink=shrink,
        rows=rows,
        rough=rough,
        strict=strict,
        max_pixels=max_pixels,
    )


def decode_with_header(
    data: bytes,
    header: JpegHeader | None,
    *,
    shrink: int = 1,
    rows: int | None = None,
    rough: bool = False,
    strict: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """Decode as `decode` does, with the result of `read_header` for ``data``."""
    if header:
        check_size(header.width, header.height, max_pixels)
        try:
            return decode_jpeg(data, header, shrink=shrink, rows=rows, rough=rough)
        except Exception as error:  # simplejpeg raises ValueError, Pillow errors of many kinds.
            if strict:
                raise DecodeError(f"{error}, {len(data)} bytes") from None
            # Pillow accepts some damaged files, and its messages are clearer.
    with _opened(data, max_pixels) as image:
        strips = _strips(image)
        first = next(strips)
        if len(first) == image.height:
            return first
        pixels = np.empty((image.height, image.width, 3), np.uint8)
        top = 0
        for strip in itertools.chain([first], strips):
            pixels[top : top + len(strip)] = strip
            top += len(strip)
        return pixels


def decode_strips(
    data: bytes, *, strict: bool = False, max_pixels: int = MAX_PIXELS
) -> Iterator[np.ndarray]:
    """Decode the whole image as `decode` does, and yield it in strips of rows from the top.

    This needs less memory than `decode`, because Pillow's pixels are never copied as a whole.

    Args:
        data: Content of the file.
        strict: See `decode`.
        max_pixels: See `decode`.

    Yields:
        uint8[h, W, 3], strips of about a million values.

    Raises:
        DecodeError: As `decode` does, before the first strip.
    """
    if header := read_header(data):
        check_size(header.width, header.height, max_pixels)
        try:
            pixels = decode_jpeg(data, header)
        except Exception as error:  # As above.
            if strict:
                raise DecodeError(f"{error}, {len(data)} bytes") from None
        else:
            height = _strip_height(header.width)
            for top in range(0, len(pixels), height):
                yield pixels[top : top + height]
            return
    with _opened(data, max_pixels) as image:
        yield from _strips(image)


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raise `TooLargeError` if an image has more pixels than allowed."""
    if width * height > max_pixels:
        raise TooLargeError(
            f"{width:,} x {height:,} pixels are more than the limit of {max_pixels:,} "
            "(data.images.max_pixels in training, --max-pixels of other commands, max_pixels of "
            "Classifier)"
        )


@contextlib.contextmanager
def _opened(data: bytes, max_pixels: int) -> Iterator[Image.Image]:
    """Open an image with Pillow, load its pixels, and apply its orientation.

    Raises:
        DecodeError: In the block, too, for every error of Pillow.
    """
    try:
        with contextlib.ExitStack() as stack:
            with _without_pillows_limit:
                image = stack.enter_context(Image.open(io.BytesIO(data), formats=_formats()))
                check_size(image.width, image.height, max_pixels)
                _check_tiles(image, max_pixels)
                image.load()
            ImageOps.exif_transpose(image, in_place=True)
            yield image
    except DecodeError:
        raise
    except Exception as error:  # Each of Pillow's plugins raises errors of its own.
        reason = re.sub(r"<[^>]*>", "the bytes", " ".join(str(error).split()))
        raise DecodeError(f"no whole image, {len(data)} bytes ({reason[:100]})") from None


@functools.cache
def _formats() -> tuple[str, ...]:
    """Return the formats that this version of Pillow can read."""
    # Pillow before 11.3 has no AVIF, and does not accept the name.
    return (*_FORMATS, _AVIF) if importlib.util.find_spec("PIL.AvifImagePlugin") else _FORMATS


def _check_tiles(image: Image.Image, max_pixels: int) -> None:
    """Raise `TooLargeError` if a tile of a TIFF file has more pixels than allowed.

    A tile is decoded as a whole, also if only a corner of it belongs to the image.
    """
    tags = getattr(image, "tag_v2", {})
    width, height = tags.get(_TILE_WIDTH, 1), tags.get(_TILE_HEIGHT, 1)
    check_size(width, height, max(max_pixels, _SMALL_TILE))


class _WithoutPillowsLimit:
    """Context in which Pillow reads images of any size.

    Pillow has one limit for the whole process, which it also compares while it decodes some
    formats.  The limit is restored when the last thread leaves the context.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads = 0
        self._limit: int | None = None

    def __enter__(self) -> None:
        with self._lock:
            if not self._threads:
                self._limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            self._threads += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._threads -= 1
            if not self._threads:
                Image.MAX_IMAGE_PIXELS = self._limit


_without_pillows_limit = _WithoutPillowsLimit()


def _strip_height(width: int) -> int:
    return max(1, _STRIP // width)


def rgb_pixels(image: Image.Image) -> np.ndarray:
    """Return the pixels of an image that Pillow has opened, uint8[H, W, 3]; see `decode`."""
    return np.concatenate(list(_strips(ImageOps.exif_transpose(image))))


def _strips(image: Image.Image) -> Iterator[np.ndarray]:
    """Yield the pixels of an opened image, uint8[h, W, 3], in strips of rows from the top."""
    to_bytes = _levels(image) if image.mode.startswith(("I", "F")) else None
    for part in _parts(image):
        if to_bytes is not None:
            yield np.repeat(to_bytes(np.asarray(part))[..., None], 3, axis=-1)
            continue
        if part.mode in ("P", "PA", "LA"):
            part = part.convert("RGBA")
        yield np.array(part if part.mode == "RGB" else part.convert("RGB"))


def _parts(image: Image.Image) -> Iterator[Image.Image]:
    """Cut an image into strips of rows. An image of one strip is not copied."""
    height = _strip_height(image.width)
    if height >= image.height:
        yield image
        return
    for top in range(0, image.height, height):
        yield image.crop((0, top, image.width, min(top + height, image.height)))


def _levels(image: Image.Image) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function from gray levels of more than 8 bits, of any shape, to uint8 levels.

    Raises:
        DecodeError: The image has levels outside the range of its kind.
    """
    low, high = _extrema(image)
    if image.mode == "F":
        if not (low >= 0 and high <= 1):
            raise DecodeError(
                f"levels are floating-point numbers from {low:g} to {high:g}; they must be from 0 "
                "to 1, or whole ones of 8 or 16 bits"
            )
        scale = 255.0
    else:
        if not (low >= 0 and high <= 65535):
            raise DecodeError(
                f"levels are whole numbers from {low:.0f} to {high:.0f}; they must be from 0 to "
                "65535"
            )
        # An image of 32 bits may hold levels of 8 or of 16 bits.
        scale = 1 if image.mode == "I" and high <= 255 else 1 / 257

    def to_bytes(levels: np.ndarray) -> np.ndarray:
        return np.rint(levels.astype(np.float64) * scale).astype(np.uint8)

    return to_bytes


def _extrema(image: Image.Image) -> tuple[float, float]:
    """Return the smallest and the largest level; NaN if any level is NaN."""
    found = [(levels.min(), levels.max()) for levels in map(np.asarray, _parts(image))]
    low, high = zip(*found, strict=True)
    return float(np.min(low)), float(np.max(high))

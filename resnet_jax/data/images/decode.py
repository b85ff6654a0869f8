"""Decoding of image files of any format to RGB pixels."""

import io
import re

import numpy as np
from PIL import Image, ImageOps

from resnet_jax.data.images.jpeg import JpegHeader, decode_jpeg, read_header


class DecodeError(ValueError):
    """Raised for bytes that are not a complete, undamaged image file."""


def decode(
    data: bytes,
    *,
    shrink: int = 1,
    rows: int | None = None,
    rough: bool = False,
    strict: bool = False,
) -> np.ndarray:
    """Decode an image file of any format to RGB.

    The formats are those that Pillow reads, such as JPEG, PNG, WebP, GIF, BMP and TIFF.  CMYK and
    greyscale become RGB.  Levels of 16 bits, and floating-point levels from 0 to 1, become 8 bits.
    Transparency is dropped.  An animation gives its first frame.  The orientation in the EXIF
    metadata is applied.

    Args:
        data: Content of the file.
        shrink: Divide height and width of a JPEG by this factor, 1, 2, 4 or 8. Other files, and
            JPEG files that only Pillow can decode, keep their size.
        rows: Number of rows from the top that are needed, counted before shrinking. A JPEG may lack
            the others in the result.
        rough: Decode a JPEG faster, with an inverse cosine transform of fewer bits, which is
            TensorFlow's default, and with shared colours repeated instead of interpolated.
        strict: Refuse a JPEG that libjpeg warns of, although Pillow can show the rest of it. This
            needs simplejpeg; without it nothing more is refused.

    Returns:
        uint8[H, W, 3].

    Raises:
        DecodeError: The file is truncated, damaged, or not an image; the message gives its size in
            bytes. Damage below the needed rows is not noticed, truncation is.
    """
    header = read_header(data)
    return decode_with_header(data, header, shrink=shrink, rows=rows, rough=rough, strict=strict)


def decode_with_header(
    data: bytes,
    header: JpegHeader | None,
    *,
    shrink: int = 1,
    rows: int | None = None,
    rough: bool = False,
    strict: bool = False,
) -> np.ndarray:
    """Decode as `decode` does, with the result of `read_header` for ``data``."""
    if header:
        try:
            return decode_jpeg(data, header, shrink=shrink, rows=rows, rough=rough)
        except Exception as error:  # simplejpeg raises ValueError, Pillow errors of many kinds.
            if strict:
                raise DecodeError(f"{error}, {len(data)} bytes") from None
            # Pillow accepts some damaged files, and its messages are clearer.
    try:
        with Image.open(io.BytesIO(data)) as image:
            return rgb_pixels(image)
    except DecodeError:
        raise
    except Exception as error:  # Each of Pillow's plugins raises errors of its own.
        reason = re.sub(r"<[^>]*>", "the bytes", " ".join(str(error).split()))
        raise DecodeError(f"no whole image, {len(data)} bytes ({reason[:100]})") from None


def rgb_pixels(image: Image.Image) -> np.ndarray:
    """Return the pixels of an image that Pillow has opened, uint8[H, W, 3]; see `decode`.

    Raises:
        DecodeError: The levels are floating-point numbers outside 0 to 1.
    """
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
        # An image of 32 bits may hold levels of 8 or of 16 bits.
        elif image.mode != "I" or levels.max() > 255:
            levels = levels / 257
        return np.repeat(np.clip(np.rint(levels), 0, 255).astype(np.uint8)[..., None], 3, axis=-1)
    if image.mode in ("P", "PA", "LA"):
        image = image.convert("RGBA")
    return np.array(image.convert("RGB"))

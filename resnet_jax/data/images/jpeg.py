"""JPEG files: what their header says, and decoding of no more than is needed.

Only plain JPEG files are handled here: 8 bits, gray or three colors, upright.  Pillow decodes all
others, see `resnet_jax.data.images.decode`.
"""

import io
import re
from functools import partial
from typing import NamedTuple

import numpy as np
from PIL import Image

from resnet_jax.data.images.optional import simplejpeg

_EXIF_ORIENTATION = 0x0112
_END_OF_IMAGE = b"\xff\xd9"
# A file could hide its true size from `read_header`, and so from the limit on pixels.
_DISAGREEMENT = "the header can be read in two ways"
# libjpeg's warning about the rows that it was not asked to decode, if it had no earlier warning.
_ROWS_LEFT = re.compile(r"extraneous bytes before marker 0xd[0-79]")


class JpegHeader(NamedTuple):
    """Header of a plain JPEG file.

    Attributes:
        height: Height in pixels.
        width: Width in pixels.
        height_at: Offset in bytes of the two bytes that store the height, if the rows are stored
            from top to bottom, so that decoding can stop early; otherwise None.
        rows_of_color: Number of rows of pixels that share one row of color information.
    """

    height: int
    width: int
    height_at: int | None
    rows_of_color: int


def read_header(data: bytes) -> JpegHeader | None:
    """Return the header of a plain JPEG file, or None if Pillow has to decode the file.

    Pillow decodes other formats, images that their metadata rotates or mirrors, CMYK images, and
    files whose header is damaged.
    """
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
            baseline, height, width, colors, height_at, rows_of_color = frame
            in_rows = baseline and data[at + 4] == colors
            return JpegHeader(height, width, height_at if in_rows else None, rows_of_color)
        # Every code from C0 to CF starts a frame, except C4, C8 and CC.
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height = int.from_bytes(data[at + 5 : at + 7], "big")
            width = int.from_bytes(data[at + 7 : at + 9], "big")
            colors = data[at + 9]
            if data[at + 4] != 8 or colors not in (1, 3) or not height or not width:
                return None
            rows_of_color = max(byte & 15 for byte in data[at + 11 : at + 2 + length : 3])
            frame = marker == 0xC0, height, width, colors, at + 5, rows_of_color
        at += 2 + length
    return None


def _upright(segment: bytes) -> bool:
    """Return whether a metadata segment leaves the orientation of the image unchanged."""
    if not segment.startswith(b"Exif\0"):
        return b"Orientation" not in segment
    exif = Image.Exif()
    try:
        exif.load(segment)
        return exif.get(_EXIF_ORIENTATION, 1) == 1
    except Exception:  # Pillow raises various errors here, and repeats them when it decodes.
        return False


def decode_jpeg(
    data: bytes,
    header: JpegHeader,
    *,
    shrink: int = 1,
    rows: int | None = None,
    rough: bool = False,
) -> np.ndarray:
    """Decode a plain JPEG file, with simplejpeg if it is installed, otherwise with Pillow.

    Both use libjpeg-turbo and give the same pixels, except that Pillow ignores ``rough``, and
    decodes all rows.

    Args:
        data: Content of the file.
        header: Its header, from `read_header`.
        shrink: Divide height and width by this factor, 1, 2, 4 or 8.
        rows: Number of rows from the top that are needed, counted before shrinking. The result may
            lack the other rows.
        rough: Allow a faster, less precise inverse cosine transform, and repeat colors that
            several pixels share instead of interpolating them.

    Returns:
        uint8[H, W, 3].

    Raises:
        ValueError: libjpeg finds another size in the header; or simplejpeg is installed, and
            libjpeg warns of a damaged file.
        Exception: simplejpeg is not installed, and Pillow finds the file truncated or damaged.
    """
    library = simplejpeg()
    if library is None:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            if image.size != (header.width, header.height):
                raise ValueError(_DISAGREEMENT)
            if shrink > 1:
                # Pillow takes the largest factor that leaves at least this size.
                size = max(1, header.width // shrink), max(1, header.height // shrink)
                image.draft("RGB", size)
            return np.array(image.convert("RGB"))
    height, width, at, rows_of_color = header
    if library.decode_jpeg_header(data)[:2] != (height, width):
        raise ValueError(_DISAGREEMENT)
    to_rgb = partial(library.decode_jpeg, colorspace="RGB", fastdct=rough, fastupsample=rough)
    needed = height if rows is None else rows
    if not rough:
        # Colors are interpolated between their rows, which needs one more row of color.
        needed += 2 * rows_of_color * shrink
    # Decoders that stop early do not notice a missing end of the file, so look for it here.
    if at is None or needed >= height or data.rfind(_END_OF_IMAGE, at) < 0:
        return to_rgb(data, min_height=-(-height // shrink), min_width=-(-width // shrink))
    # libjpeg decodes as many rows as the header announces. Announcing fewer saves 8 % of the CPU
    # time of a random crop with "linear" and 5 % with "pil_bilinear" (500x375 pixels to 224x224, 2
    # cores of an AMD EPYC, Zen 4, 2026-11-28).
    shorter = bytearray(data)
    shorter[at : at + 2] = needed.to_bytes(2, "big")
    pixels = np.empty((-(-needed // shrink), -(-width // shrink), 3), np.uint8)
    try:
        to_rgb(shorter, min_height=len(pixels), min_width=pixels.shape[1], buffer=pixels)
    except ValueError as error:
        if not _ROWS_LEFT.search(str(error)):
            raise
    return pixels

"""Image files in requests, and their pixels."""

import io
from typing import NamedTuple

import numpy as np
from PIL import Image
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from resnet_jax.data.images.decode import TooLargeError
from resnet_jax.data.preprocessing import Preprocessing, to_rgb
from resnet_jax.inference.explain import overlay, uncropped
from resnet_jax.serving.limits import Limits, limited

# Fields of forms that are not files. None of them is used.
_FIELDS, _FIELD_BYTES = 16, 2**16
# Largest number of scans of a JPEG file. Progressive files have about ten, and decoding thousands
# of them takes minutes. The marker of a scan does not occur in the data of scans.
_SCANS, _SCAN = 100, b"\xff\xda"
# Longest side of an overlay in pixels.
_OVERLAY_SIDE = 1024


class ImageFile(NamedTuple):
    """An image file in a request.

    Attributes:
        name: Name that the client gives to it, or None.
        data: Content of the file.
    """

    name: str | None
    data: bytes


async def read_images(request: Request, limits: Limits) -> list[ImageFile]:
    """Return the image files of a request: all files of a form, or else the whole body.

    Files of a form that are larger than a megabyte are on disk until all of them have arrived.

    Raises:
        HTTPException: There are no images or too many, the body is too large, or the form is
            damaged.
    """
    request = limited(request, limits)
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "multipart/form-data":
        data = await request.body()
        if not data:
            raise HTTPException(400, "the body is empty; send the bytes of an image file")
        return [ImageFile(None, data)]
    form = request.form(max_files=limits.images, max_fields=_FIELDS, max_part_size=_FIELD_BYTES)
    async with form as parts:
        uploads = [part for _, part in parts.multi_items() if isinstance(part, UploadFile)]
        files = [ImageFile(upload.filename, await upload.read()) for upload in uploads]
    if not files:
        raise HTTPException(400, "the form has no file; send one, such as -F image=@cat.jpg")
    return files


def decode(data: bytes, limits: Limits) -> np.ndarray:
    """Return the pixels of an image file, uint8[H, W, 3].

    Raises:
        HTTPException: The bytes are no undamaged image of a format that is read (status 400), or
            the image has too many pixels (413).
    """
    if data.startswith(b"\xff\xd8") and data.count(_SCAN) > _SCANS:
        raise HTTPException(400, f"a JPEG file with more than {_SCANS} scans is not read")
    try:
        return to_rgb(data, max_pixels=limits.pixels)
    except TooLargeError:
        raise HTTPException(413, f"more than {limits.pixels:,} pixels") from None
    except ValueError as error:
        raise HTTPException(400, f"the image cannot be read: {error}") from None


def decode_for_network(data: bytes, preprocessing: Preprocessing, limits: Limits) -> np.ndarray:
    """Return an image file as the network takes it, uint8[H, W, C].

    Raises:
        HTTPException: As `decode` does.
    """
    return preprocessing.on_host(decode(data, limits))


def thumbnail(pixels: np.ndarray) -> np.ndarray:
    """Return an image that is no larger than an overlay, uint8[height, width, 3].

    Args:
        pixels: uint8[H, W, 3].
    """
    image = Image.fromarray(pixels)
    image.thumbnail((_OVERLAY_SIDE, _OVERLAY_SIDE))
    return np.asarray(image)


def draw_heat(pixels: np.ndarray, heat: np.ndarray, preprocessing: Preprocessing) -> bytes:
    """Return a JPEG file of an image with its heatmap in color on top.

    Args:
        pixels: uint8[height, width, 3], the image in its own proportions.
        heat: float32[H, W], 0 to 1, for the part of the image that the network has seen.
        preprocessing: How the image became the input of the network.
    """
    box = preprocessing.box(pixels.shape)
    drawn = overlay(pixels, uncropped(heat, box, pixels.shape))
    file = io.BytesIO()
    Image.fromarray(drawn).save(file, "JPEG", quality=90)
    return file.getvalue()

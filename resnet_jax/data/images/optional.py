"""The optional libraries of data.

simplejpeg and OpenCV are for speed, google-crc32c for TFRecords, and fsspec for URLs.

Pillow alone decodes every file and does every interpolation but ``"linear"``.  This is the only
module that imports these libraries, and it imports them when they are first needed.
"""

import functools
import importlib
from collections.abc import Callable
from typing import Any


@functools.cache
def simplejpeg() -> Any | None:
    """Return the module `simplejpeg`, or None if it is not installed."""
    try:
        return importlib.import_module("simplejpeg")
    except ImportError:
        return None


@functools.cache
def opencv() -> Any:
    """Return the module `cv2`.

    Raises:
        ImportError: It is not installed. The message is one line that names the extra.
    """
    return _required(
        "cv2",
        "interpolation 'linear' needs OpenCV",
        "pip install 'resnet-linen[data]', or choose 'pil_bilinear' or 'pil_bicubic', which need "
        "only Pillow",
    )


@functools.cache
def crc32c() -> Callable[[bytes], int]:
    """Return the function from bytes to their CRC-32C.

    Raises:
        ImportError: google-crc32c is not installed. The message is one line that names the extra.
    """
    return _required(
        "google_crc32c", "TFRecord files need google-crc32c", "pip install 'resnet-linen[data]'"
    ).value


@functools.cache
def fsspec() -> Any:
    """Return the module `fsspec`.

    Raises:
        ImportError: It is not installed. The message is one line that names the extra.
    """
    return _required("fsspec", "URLs need fsspec", "pip install 'resnet-linen[predict]'")


def _required(module: str, need: str, remedy: str) -> Any:
    """Return a module, or raise `ImportError` in one line that says what to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{need} ({error}): {remedy}", name=module) from None

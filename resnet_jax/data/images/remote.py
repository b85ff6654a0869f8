"""Files at URLs, such as ``https://host/cat.jpg`` or ``gs://bucket/cat.jpg``, through fsspec."""

import os
from collections.abc import Callable
from typing import Any

from resnet_jax.data.images.optional import fsspec


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is a URL."""
    return "://" in os.fspath(path)


def read_remote(url: str) -> bytes:
    """Return the content of a file at a URL.

    Raises:
        OSError: The file does not exist, or its server cannot be reached.
        ImportError: fsspec, or the package that it needs for this kind of URL, is not installed.
    """
    try:
        return remote(url, lambda system, name: system.cat_file(name))
    except (ImportError, OSError):
        raise
    except Exception as error:  # Each file system of fsspec raises errors of its own.
        raise OSError(f"{type(error).__name__}: {' '.join(str(error).split())}") from None


def remote(url: str, action: Callable[[Any, str], Any]) -> Any:
    """Call a function with the file system of a URL and the name in it.

    Raises:
        ImportError: fsspec, or the package that it needs for this kind of URL, is not installed.
            The message is one line that says what to install.
        ValueError: fsspec does not know this kind of URL.
    """
    library = fsspec()
    try:
        system, name = library.core.url_to_fs(url)
    except ImportError as error:
        kind = url.partition("://")[0]
        extra = "pip install 'resnet-linen[predict]'" if kind in ("http", "https") else str(error)
        raise ImportError(
            f"{kind}:// needs a package that is not installed: {extra}", name=error.name
        ) from None
    return action(system, name)

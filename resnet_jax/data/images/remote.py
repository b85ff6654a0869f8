"""Files at URLs, such as ``https://host/cat.jpg`` or ``gs://bucket/cat.jpg``, through fsspec."""

import errno
import os
from collections.abc import Callable
from typing import Any

from resnet_jax.data.images.names import is_hidden
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
    except FileNotFoundError:  # Some file systems only repeat the URL.
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), url) from None
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


def list_remote(url: str) -> list[str] | None:
    """Return the URLs of the files below a folder or of a pattern, or None for a single file.

    A web server cannot say whether a URL is a folder, so ``http://`` URLs are files, unless they
    end with a slash.  Files in hidden folders are left out.

    Raises:
        OSError: The URL cannot be listed.
        ImportError: As in `read_remote`.
    """
    head, separator, archive = url.partition("::")
    is_web = head.startswith(("http://", "https://"))

    def names(system: Any, name: str) -> list[str] | None:
        if "*" in head:
            found = system.glob(name, detail=True)
            return [file for file, facts in found.items() if facts["type"] == "file"]
        if head.endswith("/") if is_web else system.isdir(name):
            return system.find(name)
        return None

    def urls(system: Any, name: str) -> list[str] | None:
        if (found := names(system, name)) is None:
            return None
        # What the user has written may itself lead through a hidden folder.
        above = len(os.path.dirname(name.partition("*")[0])) if "*" in name else len(name)
        return [
            f"{system.unstrip_protocol(file)}{separator}{archive}"
            for file in sorted(found)
            if not any(map(is_hidden, file[above:].split("/")))
        ]

    try:
        return remote(url, urls)
    except (ImportError, OSError):
        raise
    except Exception as error:  # As above.
        raise OSError(f"{url}: {type(error).__name__}: {error}") from None

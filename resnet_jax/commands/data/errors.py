"""Errors of data sets, as one line."""

from collections.abc import Iterator
from contextlib import contextmanager

from resnet_jax.commands.arguments import UsageError


@contextmanager
def data_errors() -> Iterator[None]:
    """Raise `UsageError` for data that are missing or cannot be read or written."""
    from resnet_jax.data import DataError

    try:
        yield
    except ModuleNotFoundError:
        raise
    except (DataError, ImportError, OSError) as error:
        raise UsageError(str(error)) from error

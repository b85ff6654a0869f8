"""Mistakes in the command, the data or the weights, which are answered in one line."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from resnet_jax.commands.arguments import UsageError


@contextmanager
def mistakes() -> Iterator[None]:
    """Turn what is wrong with the command, the data or the weights into a `UsageError`.

    It is for work before the training, after which nothing has been written.
    """
    from resnet_jax.data import DataError
    from resnet_jax.training.rundir.workdir import WorkdirError

    try:
        yield
    except ModuleNotFoundError:
        raise
    except (DataError, ImportError, OSError, WorkdirError) as error:
        raise UsageError(str(error)) from error
    except KeyboardInterrupt:
        print("interrupted before the training; nothing was written", file=sys.stderr)
        sys.exit(130)

"""Tables of predictions, and files of features."""

import contextlib
import itertools
import math
import os
from collections.abc import Callable, Iterator
from typing import Any, Literal

from resnet_jax.data.dataset import printable
from resnet_jax.inference.neighbors import Neighbor
from resnet_jax.inference.predictions import Predicted
from resnet_jax.inference.rows import new_rows

Layout = Literal["wide", "long"]
"""One row for each image, with columns for each rank; or one row for each rank of each image."""

TABLES = (".csv", ".jsonl", ".parquet")
"""Endings of the names of tables."""

FEATURES = (".npy", ".parquet")
"""Endings of the names of files of features."""

# Columns for the fields of a `Prediction` and of a `Neighbor`.
_CLASS = ("class", "probability", "class_index")
_NEIGHBOR = ("neighbor", "similarity")
# All rows have the same columns, also those of an image whose only neighbor would be itself.
_NO_NEIGHBOR = Neighbor("", math.nan)

Write = Callable[[Predicted], None]
"""Function that appends one image to a file. Images that could not be read are left out."""


@contextlib.contextmanager
def open_table(
    path: str | os.PathLike[str], *, layout: Layout = "wide", overwrite: bool = False
) -> Iterator[Write]:
    """Open a table of predictions for writing, see `new_rows`.

    Args:
        path: A ``.csv``, ``.jsonl`` or ``.parquet`` file.
        layout: ``"wide"`` has the columns ``image``, ``decision`` if there is a threshold, and for
            each rank, from 1, ``class_1``, ``probability_1``, ``class_index_1``, and with neighbors
            ``neighbor_1`` and ``similarity_1``. ``"long"`` has the same columns without numbers,
            and a column ``rank``. Neighbors that an image lacks are empty, and their similarity is
            NaN in a parquet file.
        overwrite: Whether to replace a file that exists.

    Raises:
        ValueError: The ending is unknown.
        OSError: The file exists or cannot be written.
        ModuleNotFoundError: Parquet needs pyarrow, which is not installed.
    """
    with new_rows(path, TABLES, overwrite=overwrite) as file:

        def write(predicted: Predicted) -> None:
            for row in table_rows(predicted, layout):
                file.write(row)

        yield write


@contextlib.contextmanager
def open_features(path: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[Write]:
    """Open a file of features for writing, see `new_rows`.

    Args:
        path: A ``.npy`` file gets an array float32[N, C], whose rows are the images that could be
            read, in their order, as in a wide table. A ``.parquet`` file has columns ``image`` and
            ``features``.
        overwrite: Whether to replace a file that exists.

    Raises:
        ValueError: The ending is unknown.
        OSError: The file exists or cannot be written.
        ModuleNotFoundError: Parquet needs pyarrow, which is not installed.
    """
    with new_rows(path, FEATURES, overwrite=overwrite) as file:

        def write(predicted: Predicted) -> None:
            if not predicted.error:
                file.write({"image": printable(predicted.image), "features": predicted.features})

        yield write


def table_rows(predicted: Predicted, layout: Layout) -> list[dict[str, Any]]:
    """Return the rows of an image; none if it could not be read."""
    if predicted.error:
        return []
    start: dict[str, Any] = {"image": printable(predicted.image)}
    if predicted.decision is not None:
        start["decision"] = predicted.decision
    columns = predicted.most_neighbors if layout == "wide" else min(1, predicted.most_neighbors)
    missing = columns - len(predicted.neighbors)
    neighbors = [*predicted.neighbors, *[_NO_NEIGHBOR] * missing]
    ranks: list[dict[str, Any]] = []
    for best, neighbor in itertools.zip_longest(predicted.classes, neighbors):
        values = {}
        if predicted.classes:
            values |= dict(zip(_CLASS, best or (None,) * 3, strict=True))
        if neighbors:
            values |= dict(zip(_NEIGHBOR, neighbor or (None,) * 2, strict=True))
        ranks.append(values)
    if layout == "long":
        return [start | {"rank": rank} | values for rank, values in enumerate(ranks, start=1)]
    return [
        start
        | {
            f"{name}_{rank}": value
            for rank, values in enumerate(ranks, start=1)
            for name, value in values.items()
            if value is not None
        }
    ]

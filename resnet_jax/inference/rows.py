"""Files of rows that are written one at a time: CSV, JSON lines, parquet and NumPy arrays."""

import contextlib
import csv
import importlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

Row = Mapping[str, Any]
"""Values by column: text, a whole number, a number, None, or float32[C]."""

# Number of rows that are collected before they are written to a parquet file.
_ROW_GROUP = 1024


class Rows(Protocol):
    """A file that is open for writing."""

    def write(self, row: Row) -> None:
        """Append a row. All rows have the columns of the first one."""
        ...

    def close(self) -> None:
        """Complete the file. Without any row it stays empty."""
        ...


@contextlib.contextmanager
def new_rows(
    path: str | os.PathLike[str], endings: Sequence[str], *, overwrite: bool = False
) -> Iterator[Rows]:
    """Open a file for writing; it gets its name when it is complete.

    Until the block ends, the rows are in a file beside it, ``x.partial.csv`` for ``x.csv``.  If an
    error or Ctrl-C ends the block, that file remains, and it is valid and has all rows so far.
    Without any row there is no file.

    Args:
        path: Where to write. The ending chooses the format.
        endings: The endings that are allowed, some of ``.csv``, ``.jsonl``, ``.parquet`` and
            ``.npy``.
        overwrite: Whether to replace a file that exists.

    Raises:
        ValueError: The ending is not allowed.
        OSError: The file or a partial one exists, the directory does not exist, or it may not be
            written to. The message is one line.
        ModuleNotFoundError: Parquet needs pyarrow, which is not installed.
    """
    path = Path(path).expanduser()
    kind = path.suffix.lower()
    if kind not in endings:
        raise ValueError(f"{path} must end with {' or '.join(endings)}, which chooses the format")
    partial = partial_name(path)
    for file in (path, partial):
        if file.exists() and not overwrite:
            raise FileExistsError(
                f"{file} exists; choose another name, or replace it with --overwrite (in Python, "
                "overwrite=True)"
            )
    try:
        if path.is_dir():
            raise IsADirectoryError(None, "it is a directory")
        partial.write_bytes(b"")
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error.strerror}") from None
    try:
        rows = _FORMATS[kind](partial)
        try:
            yield rows
        finally:
            rows.close()
    finally:
        if not partial.stat().st_size:
            partial.unlink()
    if partial.exists():
        os.replace(partial, path)


def partial_name(path: str | os.PathLike[str]) -> Path:
    """Return the name of a file until it is complete: ``x.partial.csv`` for ``x.csv``."""
    path = Path(path).expanduser()
    return path.with_name(f"{path.stem}.partial{path.suffix}")


class _Csv:
    """Comma-separated values in UTF-8, with a header."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", newline="")
        self._writer: csv.DictWriter[str] | None = None

    def write(self, row: Row) -> None:
        if self._writer is None:
            self._writer = csv.DictWriter(self._file, list(row), lineterminator="\n")
            self._writer.writeheader()
        self._writer.writerow({name: _rounded(value) for name, value in row.items()})

    def close(self) -> None:
        self._file.close()


class _JsonLines:
    """One JSON object on each line, in UTF-8."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", newline="")

    def write(self, row: Row) -> None:
        values = {name: _rounded(value) for name, value in row.items()}
        self._file.write(json.dumps(values, ensure_ascii=False) + "\n")

    def close(self) -> None:
        self._file.close()


class _Parquet:
    """A parquet file, written in groups of rows."""

    def __init__(self, path: Path) -> None:
        self._arrow = importlib.import_module("pyarrow")
        self._parquet = importlib.import_module("pyarrow.parquet")
        self._path = path
        self._rows: list[Row] = []
        self._writer: Any = None

    def write(self, row: Row) -> None:
        self._rows.append(row)
        if len(self._rows) == _ROW_GROUP:
            self._write_group()

    def close(self) -> None:
        if self._rows:
            self._write_group()
        if self._writer is not None:
            self._writer.close()

    def _write_group(self) -> None:
        if self._writer is None:
            schema = self._arrow.schema(
                [(name, self._type(name, value)) for name, value in self._rows[0].items()]
            )
            self._writer = self._parquet.ParquetWriter(self._path, schema)
        self._writer.write_table(
            self._arrow.Table.from_pylist(self._rows, schema=self._writer.schema)
        )
        self._rows = []

    def _type(self, name: str, value: Any) -> Any:
        match value:
            case str():
                return self._arrow.string()
            case int():
                return self._arrow.int32()
            case float():
                return self._arrow.float32()
            case np.ndarray():
                return self._arrow.list_(self._arrow.float32())
            case _:
                raise TypeError(f"column {name}: a parquet file cannot hold {type(value).__name__}")


class _Npy:
    """The only column that holds arrays, as one array float32[N, C]."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._shape: tuple[int, ...] = (0,)

    def write(self, row: Row) -> None:
        (values,) = (value for value in row.values() if isinstance(value, np.ndarray))
        if not self._shape[0]:
            self._shape = (0, *values.shape)
            self._write_header()
        self._file.write(values.astype("<f4", order="C").tobytes())
        self._shape = (self._shape[0] + 1, *self._shape[1:])

    def close(self) -> None:
        if self._shape[0]:
            # NumPy pads the header so that it keeps its length when the first axis grows.
            self._file.seek(0)
            self._write_header()
        self._file.close()

    def _write_header(self) -> None:
        header = {"descr": "<f4", "fortran_order": False, "shape": self._shape}
        np.lib.format.write_array_header_1_0(self._file, header)


_FORMATS = {".csv": _Csv, ".jsonl": _JsonLines, ".parquet": _Parquet, ".npy": _Npy}


def _rounded(value: Any) -> Any:
    """Return a value for a text file: numbers have six significant digits, and NaN is empty."""
    if not isinstance(value, float):
        return value
    return None if math.isnan(value) else float(f"{value:.6g}")

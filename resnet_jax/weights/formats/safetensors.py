"""Reader of ``.safetensors`` files (https://huggingface.co/docs/safetensors).

The safetensors package is used for writing only.  Its NumPy reader copies each tensor once more,
which takes twice as long, and it does not support bfloat16.
"""

import itertools
import json
import math
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from resnet_jax.weights.formats.dtypes import widened_dtype

_DTYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(jnp.bfloat16),
    "F8_E4M3": np.dtype(jnp.float8_e4m3fn),
    "F8_E5M2": np.dtype(jnp.float8_e5m2),
    "C64": np.dtype("<c8"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}

# The longest header that the format allows, in bytes.
_LONGEST_HEADER = 100_000_000
# NumPy's limit.
_MOST_DIMENSIONS = 64


class _Entry(NamedTuple):
    """The header's description of a tensor; ``begin`` and ``end`` are offsets in the data."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def is_safetensors(head: bytes) -> bool:
    """Return whether the first bytes of a file, at least nine, look like a safetensors header."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _LONGEST_HEADER


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Read every tensor directly into its array, in the order of the file.

    Returns:
        The names in the file, mapped to arrays.  float16 and bfloat16 become float32.

    Raises:
        ValueError: The file is truncated or damaged, or has a dtype that is not supported.
    """
    with path.open("rb", buffering=0) as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            entries = _parse(file.read(length))
        except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
            raise _damaged(path, f"its header cannot be parsed: {type(error).__name__}") from error
        for entry in entries:
            if entry.dtype not in _DTYPES:
                raise ValueError(
                    f"{path}: {entry.name!r} has type {entry.dtype}, which is not supported; "
                    "convert it to float32 first"
                )
        position = 0
        for entry in entries:
            size = math.prod(entry.shape) * _DTYPES[entry.dtype].itemsize
            if (entry.begin, entry.end) != (position, position + size):
                raise _damaged(path, f"{entry.name!r} is not where its header says")
            position = entry.end
        present = path.stat().st_size - 8 - length
        if present != position:
            raise _damaged(path, f"its header announces {position} bytes, but it has {present}")

        try:
            tensors = _allocate(entries)
        except (OverflowError, ValueError) as error:  # Dimensions that NumPy does not have.
            raise _damaged(path, f"it has impossible shapes: {error}") from error
        for entry in entries:
            if tensors[entry.name].nbytes == entry.end - entry.begin:
                read = file.readinto(tensors[entry.name].reshape(-1).view(np.uint8).data)
                if read != entry.end - entry.begin:
                    raise _damaged(path, f"{entry.name!r} could not be read")
            else:
                narrow = np.fromfile(file, _DTYPES[entry.dtype], math.prod(entry.shape))
                tensors[entry.name][...] = narrow.reshape(entry.shape)
        return tensors


def _allocate(entries: list[_Entry]) -> dict[str, np.ndarray]:
    """Return an uninitialized array for each tensor.

    All of them share one allocation, for which the system uses large pages.  Each begins at a
    multiple of 64 bytes, so that JAX on a CPU can use it without a copy.
    """
    dtypes = [widened_dtype(_DTYPES[entry.dtype]) for entry in entries]
    sizes = [math.prod(e.shape) * dtype.itemsize for e, dtype in zip(entries, dtypes, strict=True)]
    starts = list(itertools.accumulate((-(-size // 64) * 64 for size in sizes), initial=0))
    memory = np.empty(starts[-1] + 64, np.uint8)
    memory = memory[-memory.ctypes.data % 64 :]
    return {
        entry.name: memory[start : start + size].view(dtype).reshape(entry.shape)
        for entry, dtype, start, size in zip(entries, dtypes, starts, sizes, strict=False)
    }


def _parse(header: bytes) -> list[_Entry]:
    """Return the entries of the header, in the order of their data."""
    listed = json.loads(header)
    listed.pop("__metadata__", None)
    entries = []
    for name, fields in listed.items():
        begin, end = fields["data_offsets"]
        shape = tuple(fields["shape"])
        dtype = fields["dtype"]
        if not (isinstance(dtype, str) and dtype.isidentifier()) or len(shape) > _MOST_DIMENSIONS:
            raise ValueError
        if not all(type(n) is int and n >= 0 for n in (*shape, begin, end)):
            raise ValueError
        entries.append(_Entry(name, dtype, shape, begin, end))
    return sorted(entries, key=lambda entry: (entry.begin, entry.end))


def _damaged(path: Path, cause: str) -> ValueError:
    return ValueError(f"{path}: truncated or damaged ({cause}); fetch it again")

"""Reading of ``.safetensors`` files: https://huggingface.co/docs/safetensors.

The package of that name copies each tensor once more, which takes twice as long, and its NumPy side
knows no bfloat16; so it writes our files and does not read them.
"""

import itertools
import json
import math
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

_DTYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(jnp.bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}

# Bytes; the format allows no longer one.
_LONGEST_HEADER = 100_000_000


class _Entry(NamedTuple):
    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def is_safetensors(head: bytes) -> bool:
    """Whether a file with these first bytes, nine or more, has the form of one."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _LONGEST_HEADER


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Reads every tensor straight into its array, in the order of the file.

    Returns:
        Names to arrays; float16 and bfloat16 come as float32.

    Raises:
        ValueError: the file is truncated or damaged, or has a dtype that NumPy and we do not.
    """
    with path.open("rb", buffering=0) as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            entries = _parse(file.read(length))
        except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
            raise _damaged(path, f"its header is none: {type(error).__name__}") from error
        for entry in entries:
            if entry.dtype not in _DTYPES:
                raise ValueError(
                    f"{path}: {entry.name!r} has type {entry.dtype}; convert it to float32 first"
                )
        position = 0
        for entry in entries:
            size = math.prod(entry.shape) * _DTYPES[entry.dtype].itemsize
            if (entry.begin, entry.end) != (position, position + size):
                raise _damaged(path, f"{entry.name!r} is not where its header says")
            position = entry.end
        present = path.stat().st_size - 8 - length
        if present != position:
            raise _damaged(path, f"{position} bytes are announced, {present} are there")

        tensors = _allocate(entries)
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
    """Arrays for the tensors within one piece of memory, which the system gives in large pages.

    Each begins at a multiple of 64 bytes, as JAX wants it.
    """
    dtypes = [_widened(_DTYPES[entry.dtype]) for entry in entries]
    sizes = [math.prod(e.shape) * dtype.itemsize for e, dtype in zip(entries, dtypes, strict=True)]
    starts = list(itertools.accumulate((-(-size // 64) * 64 for size in sizes), initial=0))
    memory = np.empty(starts[-1] + 64, np.uint8)
    memory = memory[-memory.ctypes.data % 64 :]
    return {
        entry.name: memory[start : start + size].view(dtype).reshape(entry.shape)
        for entry, dtype, start, size in zip(entries, dtypes, starts, sizes, strict=False)
    }


def _widened(dtype: np.dtype) -> np.dtype:
    return np.dtype("<f4") if dtype in (np.float16, jnp.bfloat16) else dtype


def _parse(header: bytes) -> list[_Entry]:
    """What the file holds, in the order of the bytes."""
    listed = json.loads(header)
    listed.pop("__metadata__", None)
    entries = []
    for name, fields in listed.items():
        begin, end = fields["data_offsets"]
        shape = tuple(fields["shape"])
        if not all(type(n) is int and n >= 0 for n in (*shape, begin, end)):
            raise ValueError
        entries.append(_Entry(name, fields["dtype"], shape, begin, end))
    return sorted(entries, key=lambda entry: (entry.begin, entry.end))


def _damaged(path: Path, cause: str) -> ValueError:
    return ValueError(f"{path}: truncated or damaged ({cause}); fetch it again")

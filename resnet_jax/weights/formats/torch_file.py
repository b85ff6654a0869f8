"""Reader of files of ``torch.save``, without PyTorch and without running the code in them.

Both formats consist of a pickle of the saved object, in which tensors refer to storages by key, and
the bytes of the storages.  Since PyTorch 1.6 they are members of a zip archive; before, the
storages followed the pickle.  Everything that a tensor claims about its storage is checked before a
byte of it is read.
"""

import io
import reprlib
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from resnet_jax.weights.formats.dtypes import widened
from resnet_jax.weights.formats.torch_pickle import Parameter, Refused, Storage, Tensor, Unpickler
from resnet_jax.weights.wrappers import innermost, without_prefixes

LEGACY_MAGIC = (0x1950A86A20F9469CFC6C).to_bytes(10, "little")
"""Bytes near the beginning of every file in the legacy format."""

_LEGACY_PROTOCOL = 1001


def read_torch(path: Path) -> dict[str, np.ndarray]:
    """Read the state dict in a file of ``torch.save``.

    In a checkpoint such as ``{"state_dict": ..., "epoch": 3}`` the state dict is found, averaged
    weights first.  Everything beside it, such as numbers, tensors and an ``argparse.Namespace``, is
    dropped.  A prefix such as ``module.`` that all names share is removed.

    Args:
        path: A file in the zip format (PyTorch 1.6 and newer) or in the legacy format.

    Returns:
        The names, mapped to read-only arrays.  float16 and bfloat16 become float32; other dtypes
        are unchanged.  Tensors that share a storage share memory.

    Raises:
        ValueError: The file is damaged, holds no state dict, or needs other objects.
    """
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"PK"
        return _read_zip(path) if zipped else _read_legacy(path.read_bytes())
    except Refused as error:
        raise ValueError(f"{path}: {_one_line(error)}") from None
    except Exception as error:  # A damaged pickle can raise anything.
        cause = f"{type(error).__name__}: {_one_line(error)}"
        raise ValueError(f"{path}: truncated or damaged ({cause}); fetch it again") from error


def is_torch_zip(members: list[str]) -> bool:
    """Return whether a zip archive with these members was written by ``torch.save``."""
    return any(member.split("/", 1)[1:] == ["data.pkl"] for member in members)


def _one_line(error: Exception) -> str:
    """Return the message of an error on one line, shortened: it may quote anything from a file."""
    return " ".join(str(error).split())[:200]


def _read_zip(path: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        return _read_archive(archive)


def _read_archive(archive: zipfile.ZipFile) -> dict[str, np.ndarray]:
    members = {info.filename.partition("/")[2]: info for info in archive.infolist()}
    # PyTorch does not compress.  Without compression a small file cannot fill the memory.
    if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
        raise Refused("it is compressed, which PyTorch never does; save it with torch.save")
    if "byteorder" in members and archive.read(members["byteorder"]) != b"little":
        raise Refused("it was saved on a big-endian machine; load and save it on another")
    with archive.open(members["data.pkl"]) as file:
        tensors = _state_dict(Unpickler(file).load())

    def read(storage: Storage) -> bytes:
        info = members.get(f"data/{storage.key}")
        if info is None:
            raise Refused(f"its storage {storage.key!r} is missing")
        if info.file_size != storage.numel * storage.dtype.itemsize:
            raise Refused(
                f"its member {info.filename} has {info.file_size} bytes, but {storage.numel} "
                f"elements of {storage.dtype} are announced"
            )
        return archive.read(info)

    storages = {tensor.storage for tensor in tensors.values()}
    return _arrays(tensors, {storage.key: read(storage) for storage in storages})


def _read_legacy(content: bytes) -> dict[str, np.ndarray]:
    file = io.BytesIO(content)
    magic, protocol, system = (Unpickler(file).load() for _ in range(3))
    if magic != int.from_bytes(LEGACY_MAGIC, "little") or protocol != _LEGACY_PROTOCOL:
        raise Refused("it is not a file of torch.save")
    if not system["little_endian"]:
        raise Refused("it was saved on a big-endian machine; load and save it on another")
    unpickler = Unpickler(file)
    tensors = _state_dict(unpickler.load())

    contents = {}
    for key in Unpickler(file).load():
        storage = unpickler.storages[key]
        (numel,) = struct.unpack("<q", file.read(8))
        if numel != storage.numel:
            raise Refused(
                f"its storage {key!r} has {numel} elements, but {storage.numel} are announced"
            )
        start = file.tell()
        end = file.seek(numel * storage.dtype.itemsize, io.SEEK_CUR)
        contents[key] = memoryview(content)[start:end]
    return _arrays(tensors, contents)


def _state_dict(content: Any) -> dict[str, Tensor]:
    """Return the tensors of the saved object under their names in the network."""
    if not isinstance(content, dict):
        raise Refused(f"it holds a {type(content).__name__.lstrip('_')}, not a state dict")
    tensors, others = {}, []
    for name, value in innermost(content).items():
        value = getattr(value, "data", None) if isinstance(value, Parameter) else value
        if isinstance(name, str) and isinstance(value, Tensor):
            tensors[name] = value
        else:
            others.append(reprlib.repr(name))
    if others:
        raise Refused(
            f"it is not a state dict: {', '.join(others[:5])} "
            f"{'are not tensors' if others[1:] else 'is not a tensor'}; save model.state_dict() "
            "alone"
        )
    tensors = without_prefixes(tensors)
    for name, tensor in tensors.items():
        _check(name, tensor)
    return tensors


def _check(name: str, tensor: Tensor) -> None:
    """Raise `Refused` if a tensor is malformed or reaches beyond its storage."""
    match tensor.storage, tensor.offset, tensor.size, tensor.stride:
        case Storage(), int(offset), tuple(size), tuple(stride) if (
            len(size) == len(stride)
            and offset >= 0
            and all(isinstance(n, int) and n >= 0 for n in size + stride)
        ):
            last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        case _:
            raise Refused(f"its tensor {name!r} has no valid storage, offset, size and stride")
    if 0 not in size and last >= tensor.storage.numel:
        raise Refused(
            f"its tensor {name!r} reaches to element {last} of a storage of {tensor.storage.numel}"
        )


def _arrays(
    tensors: dict[str, Tensor], contents: Mapping[str, bytes | memoryview]
) -> dict[str, np.ndarray]:
    """Return the tensors as views of their storages, given the bytes of each storage by key."""
    flat: dict[str, np.ndarray] = {}
    for storage in {tensor.storage for tensor in tensors.values()}:
        content = contents[storage.key]
        missing = storage.numel * storage.dtype.itemsize - len(content)
        if missing:
            raise Refused(f"{missing} bytes of a storage are missing; fetch the file again")
        flat[storage.key] = widened(np.frombuffer(content, storage.dtype))

    def view(tensor: Tensor) -> np.ndarray:
        values = flat[tensor.storage.key]
        if 0 in tensor.size:
            return np.empty(tensor.size, values.dtype)
        strides = [step * values.itemsize for step in tensor.stride]
        array = np.ndarray(
            tensor.size, values.dtype, values, tensor.offset * values.itemsize, strides
        )
        array.flags.writeable = False
        return array

    return {name: view(tensor) for name, tensor in tensors.items()}

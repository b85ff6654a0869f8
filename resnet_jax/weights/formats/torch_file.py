"""Reader of files of ``torch.save``, without PyTorch and without running the code in them.

Both formats consist of a pickle of the saved object, in which tensors refer to storages by key, and
the bytes of the storages.  Since PyTorch 1.6 they are members of a zip archive; before, the
storages followed the pickle.  Everything that a tensor claims about its storage is checked before a
byte of it is read.

A TorchScript program (``torch.jit.save``) is such an archive with further members for its code.
Its pickle holds the module, whose attributes are read like the items of nested dictionaries.
"""

import functools
import io
import reprlib
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from resnet_jax.weights.formats.dtypes import widened
from resnet_jax.weights.formats.pickle_depth import can_be_deep, check_depth
from resnet_jax.weights.formats.torch_pickle import (
    Other,
    Parameter,
    Refused,
    Storage,
    Tensor,
    Unpickler,
    Unsupported,
)
from resnet_jax.weights.prefixes import flattened

LEGACY_MAGIC = (0x1950A86A20F9469CFC6C).to_bytes(10, "little")
"""Bytes near the beginning of every file in the legacy format."""

_LEGACY_PROTOCOL = 1001


def read_torch(path: Path) -> dict[str, np.ndarray]:
    """Read the tensors in a file of ``torch.save`` or ``torch.jit.save``.

    Names in nested dictionaries are joined by dots: those in ``{"state_dict": ..., "epoch": 3}``
    begin with ``state_dict.``.  Those of a TorchScript program are the names of its state dict.
    Everything that is not a tensor is dropped.

    Args:
        path: A file in the zip format (PyTorch 1.6 and newer) or in the legacy format.

    Returns:
        The names, mapped to read-only arrays.  float16 and bfloat16 become float32; other dtypes
        are unchanged.  Tensors that share a storage share memory.  A tensor that is not dense, such
        as a sparse or quantized one, becomes an array of dtype str that says what it is.

    Raises:
        ValueError: The file is damaged or contains no tensors.
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
    """Return whether ``torch.save`` or ``torch.jit.save`` wrote a zip archive of these members."""
    return any(member.split("/", 1)[1:] == ["data.pkl"] for member in members)


def _one_line(error: Exception) -> str:
    """Return the message of an error on one line, shortened: it may quote anything from a file."""
    return " ".join(str(error).split())[:200]


def _read_zip(path: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        return _read_archive(archive)


def _read_archive(archive: zipfile.ZipFile) -> dict[str, np.ndarray]:
    members = {info.filename.partition("/")[2]: info for info in archive.infolist()}
    # PyTorch compresses only the code of TorchScript, which is not read.  Without compression a
    # small file cannot fill the memory.
    if any(
        info.compress_type != zipfile.ZIP_STORED
        for name, info in members.items()
        if name.startswith(("data.pkl", "data/", "byteorder"))
    ):
        raise Refused("it is compressed, which PyTorch never does; save it with torch.save")
    if "byteorder" in members and archive.read(members["byteorder"]) != b"little":
        raise Refused("it was saved on a big-endian machine; load and save it on another")
    pickled = archive.read(members["data.pkl"])
    if can_be_deep(pickled):
        check_depth(io.BytesIO(pickled))
    unpickler = Unpickler(io.BytesIO(pickled))
    tensors = _named_tensors(unpickler.load(), unpickler)

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

    return _arrays(tensors, {storage.key: read(storage) for storage in _storages(tensors)})


def _read_legacy(content: bytes) -> dict[str, np.ndarray]:
    file = io.BytesIO(content)
    magic, protocol, system = (_load_next(file) for _ in range(3))
    if magic != int.from_bytes(LEGACY_MAGIC, "little") or protocol != _LEGACY_PROTOCOL:
        raise Refused("it is not a file of torch.save")
    if not system["little_endian"]:
        raise Refused("it was saved on a big-endian machine; load and save it on another")
    check_depth(file)
    unpickler = Unpickler(file)
    tensors = _named_tensors(unpickler.load(), unpickler)

    contents = {}
    for key in _load_next(file):
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


def _load_next(file: io.BytesIO) -> Any:
    check_depth(file)
    return Unpickler(file).load()


def _named_tensors(content: Any, unpickler: Unpickler) -> dict[str, Tensor | Unsupported]:
    """Return the tensors in the saved object under their names, checked."""
    tensors = flattened(content, _as_tensor)
    tensors.pop("", None)  # The object itself is a tensor.
    if not tensors:
        others = [cls.path for cls in unpickler.dropped.values()]
        found = f" but objects such as {reprlib.repr(others[0])}" if others else ""
        raise Refused(f"it contains no named tensors{found}; save model.state_dict() instead")
    for name, tensor in tensors.items():
        if isinstance(tensor, Tensor):
            _check(name, tensor)
    return tensors


def _as_tensor(value: Any) -> Tensor | Unsupported | None:
    if isinstance(value, Parameter):
        value = value.data
    if isinstance(value, Tensor) and isinstance(value.storage, Storage) and value.dtype is None:
        return Other()
    return value if isinstance(value, Tensor | Unsupported) else None


def _check(name: str, tensor: Tensor) -> None:
    """Raise `Refused` if a tensor is malformed or reaches beyond its storage."""
    match tensor.storage, tensor.dtype, tensor.offset, tensor.size, tensor.stride:
        case Storage() as storage, np.dtype() as dtype, int(offset), tuple(size), tuple(stride) if (
            len(size) == len(stride)
            and offset >= 0
            and all(isinstance(n, int) and n >= 0 for n in size + stride)
        ):
            last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        case _:
            raise Refused(f"its tensor {name!r} has no valid storage, offset, size and stride")
    numel = storage.numel * storage.dtype.itemsize // dtype.itemsize
    if 0 not in size and last >= numel:
        raise Refused(f"its tensor {name!r} reaches to element {last} of a storage of {numel}")


def _storages(tensors: Mapping[str, Tensor | Unsupported]) -> set[Storage]:
    return {tensor.storage for tensor in tensors.values() if isinstance(tensor, Tensor)}


def _arrays(
    tensors: Mapping[str, Tensor | Unsupported], contents: Mapping[str, bytes | memoryview]
) -> dict[str, np.ndarray]:
    """Return the tensors as views of their storages, given the bytes of each storage by key."""
    for storage in _storages(tensors):
        missing = storage.numel * storage.dtype.itemsize - len(contents[storage.key])
        if missing:
            raise Refused(f"{missing} bytes of a storage are missing; fetch the file again")

    @functools.cache
    def flat(key: str, dtype: np.dtype) -> np.ndarray:
        content = contents[key]
        return widened(np.frombuffer(content, dtype, len(content) // dtype.itemsize))

    def view(tensor: Tensor | Unsupported) -> np.ndarray:
        if isinstance(tensor, Unsupported):
            return np.array(tensor.kind)
        values = flat(tensor.storage.key, tensor.dtype)
        if 0 in tensor.size:
            return np.empty(tensor.size, values.dtype)
        strides = [step * values.itemsize for step in tensor.stride]
        array = np.ndarray(
            tensor.size, values.dtype, values, tensor.offset * values.itemsize, strides
        )
        array.flags.writeable = False
        return array

    return {name: view(tensor) for name, tensor in tensors.items()}

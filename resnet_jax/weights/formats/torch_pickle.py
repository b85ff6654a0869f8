"""Files of `torch.save`, read without PyTorch and without running what they contain.

Both formats are a pickle of the saved object, in which tensors refer to storages by key, and the
bytes of the storages.  Since PyTorch 1.6 they are members of a zip archive, before that they
follow the pickle.  The pickle may name only the globals that a state dict needs and a few that
training scripts keep beside it, and calling those only records or drops arguments; whatever a
tensor says of its storage is checked before a byte is read.
"""

import io
import pickle
import reprlib
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from resnet_jax.weights.dialects.wrappers import innermost, without_prefixes

LEGACY_MAGIC = (0x1950A86A20F9469CFC6C).to_bytes(10, "little")
"""Within the first bytes of a file that is not a zip archive."""

_LEGACY_PROTOCOL = 1001

_DTYPES = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(jnp.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}


class _Refused(Exception):  # noqa: N818, it never leaves this module
    """What is wrong with a file that is otherwise readable, and what to do."""


class _Storage(NamedTuple):
    """A flat array somewhere in the file."""

    key: str
    dtype: np.dtype
    numel: int


class _Frozen(type):
    """Type of classes that a pickle gets hold of: it can set attributes of what is not frozen."""

    def __setattr__(cls, name: str, value: object) -> None:
        raise AttributeError(f"{name} cannot be set")


class _Tensor(metaclass=_Frozen):
    """What a pickle says of a tensor, none of it checked."""

    __slots__ = ("offset", "size", "storage", "stride")

    def __init__(self, storage: Any, offset: Any, size: Any, stride: Any, *unused: Any) -> None:
        del unused  # Whether it requires a gradient, hooks.
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride


class _Parameter(metaclass=_Frozen):
    """A parameter as PyTorch writes it, or as its versions before 0.4 did: by its state."""

    __slots__ = ("data",)

    def __init__(self, data: Any, *unused: Any) -> None:
        del unused
        self.data = data

    def __setstate__(self, state: Any) -> None:
        self.data = state[0]


class _Size(tuple[Any, ...], metaclass=_Frozen):
    """In the place of ``torch.Size``, a tuple too."""

    __slots__ = ()


class _Namespace(metaclass=_Frozen):
    """In the place of ``argparse.Namespace`` and alike: arguments and state are forgotten."""

    __slots__ = ()

    def __init__(self, *unused: Any) -> None:
        del unused

    def __setstate__(self, state: Any) -> None:
        del state


# What `torch.dtype` pickles as is its name.
_DTYPE_NAMES = (
    *("float64", "float32", "float16", "bfloat16", "complex64", "complex128"),
    *("int64", "int32", "int16", "int8", "uint8", "bool"),
)

_GLOBALS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor"): _Tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
    ("torch._utils", "_rebuild_parameter"): _Parameter,
    ("torch.nn.parameter", "Parameter"): _Parameter,
    # A string, of which a pickle can change nothing.
    **{("torch", name): name for name in (*_DTYPES, *_DTYPE_NAMES)},
    # The arguments of torchvision's and timm's training scripts, and what may be among them.
    ("argparse", "Namespace"): _Namespace,
    ("torch", "device"): _Namespace,
    ("torch", "Size"): _Size,
}


class _Unpickler(pickle.Unpickler):
    """Admits `_GLOBALS` and storages.

    Attributes:
        storages: that the pickle referred to, by key.
    """

    def __init__(self, file: IO[bytes]) -> None:
        # Strings of Python 2 are names, and as such UTF-8.
        super().__init__(file, encoding="utf-8")
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str, /) -> Any:
        if (module, name) not in _GLOBALS:
            raise _Refused(
                f"its pickle asks for {module}.{name}, which is no part of a state dict and might "
                "run code; save model.state_dict() alone"
            )
        return _GLOBALS[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        match pid:
            case ("storage", str(kind), str(key), _, int(numel), *view) if (
                kind in _DTYPES and numel >= 0 and view in ([], [None])
            ):
                storage = _Storage(key, _DTYPES[kind], numel)
            case _:
                raise _Refused(
                    f"its pickle refers to {reprlib.repr(pid)}, which is no storage we know"
                )
        if self.storages.setdefault(key, storage) != storage:
            raise _Refused(f"its storage {key!r} has two types or sizes")
        return storage


def read_torch(path: Path) -> dict[str, np.ndarray]:
    """Reads the state dict in a file of `torch.save`.

    Of a checkpoint such as ``{"state_dict": ..., "epoch": 3}`` the state dict is taken, averaged
    weights first; numbers, tensors and the ``argparse.Namespace`` beside it are dropped.  A prefix
    such as ``module.`` that all names share is taken off.

    Args:
        path: file in the zip format (PyTorch 1.6 and newer) or in the legacy format.

    Returns:
        Names to arrays, read-only; float16 and bfloat16 come as float32, every other dtype as it
        is.  Tensors that share a storage share memory.

    Raises:
        ValueError: the file is damaged, holds no state dict, or asks for other objects.
    """
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"PK"
        return _read_zip(path) if zipped else _read_legacy(path.read_bytes())
    except _Refused as error:
        raise ValueError(f"{path}: {_one_line(error)}") from None
    except Exception as error:  # A damaged pickle can raise anything.
        cause = f"{type(error).__name__}: {_one_line(error)}"
        raise ValueError(f"{path}: truncated or damaged ({cause}); fetch it again") from error


def is_torch_zip(members: list[str]) -> bool:
    """Whether an archive with such members is a file of `torch.save`."""
    return any(member.split("/", 1)[1:] == ["data.pkl"] for member in members)


def widened(array: np.ndarray) -> np.ndarray:
    """The same values, float16 and bfloat16 as float32."""
    return array.astype(np.float32) if array.dtype in (np.float16, jnp.bfloat16) else array


def _one_line(error: Exception) -> str:
    """The message of an error that may quote anything from a file."""
    return " ".join(str(error).split())[:200]


def _read_zip(path: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        return _read_archive(archive)


def _read_archive(archive: zipfile.ZipFile) -> dict[str, np.ndarray]:
    members = {info.filename.partition("/")[2]: info for info in archive.infolist()}
    # PyTorch does not compress, and so a small file cannot fill the memory.
    if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
        raise _Refused("it is compressed, which PyTorch never does; save it with torch.save")
    if "byteorder" in members and archive.read(members["byteorder"]) != b"little":
        raise _Refused("it was saved on a big-endian machine; load and save it on another")
    with archive.open(members["data.pkl"]) as file:
        tensors = _state_dict(_Unpickler(file).load())

    def read(storage: _Storage) -> bytes:
        info = members.get(f"data/{storage.key}")
        if info is None:
            raise _Refused(f"its storage {storage.key!r} is missing")
        if info.file_size != storage.numel * storage.dtype.itemsize:
            raise _Refused(
                f"its member {info.filename} has {info.file_size} bytes, where "
                f"{storage.numel} of {storage.dtype} are announced"
            )
        return archive.read(info)

    storages = {tensor.storage for tensor in tensors.values()}
    return _arrays(tensors, {storage.key: read(storage) for storage in storages})


def _read_legacy(content: bytes) -> dict[str, np.ndarray]:
    file = io.BytesIO(content)
    magic, protocol, system = (_Unpickler(file).load() for _ in range(3))
    if magic != int.from_bytes(LEGACY_MAGIC, "little") or protocol != _LEGACY_PROTOCOL:
        raise _Refused("it is no file of torch.save")
    if not system["little_endian"]:
        raise _Refused("it was saved on a big-endian machine; load and save it on another")
    unpickler = _Unpickler(file)
    tensors = _state_dict(unpickler.load())

    contents = {}
    for key in _Unpickler(file).load():
        storage = unpickler.storages[key]
        (numel,) = struct.unpack("<q", file.read(8))
        if numel != storage.numel:
            raise _Refused(
                f"its storage {key!r} has {numel} elements, where {storage.numel} are announced"
            )
        start = file.tell()
        end = file.seek(numel * storage.dtype.itemsize, io.SEEK_CUR)
        contents[key] = memoryview(content)[start:end]
    return _arrays(tensors, contents)


def _state_dict(content: Any) -> dict[str, _Tensor]:
    """The tensors of what was saved, under their names in the network."""
    if not isinstance(content, dict):
        raise _Refused(f"it holds a {type(content).__name__.lstrip('_')}, not a state dict")
    tensors, others = {}, []
    for name, value in innermost(content).items():
        value = getattr(value, "data", None) if isinstance(value, _Parameter) else value
        if isinstance(name, str) and isinstance(value, _Tensor):
            tensors[name] = value
        else:
            others.append(reprlib.repr(name))
    if others:
        raise _Refused(
            f"it is no state dict: {', '.join(others[:5])} {'are' if others[1:] else 'is'} "
            "no tensor; save model.state_dict() alone"
        )
    tensors = without_prefixes(tensors)
    for name, tensor in tensors.items():
        _check(name, tensor)
    return tensors


def _check(name: str, tensor: _Tensor) -> None:
    """Refuses a tensor that reaches outside its storage."""
    match tensor.storage, tensor.offset, tensor.size, tensor.stride:
        case _Storage(), int(offset), tuple(size), tuple(stride) if (
            len(size) == len(stride)
            and offset >= 0
            and all(isinstance(n, int) and n >= 0 for n in size + stride)
        ):
            last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        case _:
            raise _Refused(f"its tensor {name!r} has no valid storage, offset, size and stride")
    if 0 not in size and last >= tensor.storage.numel:
        raise _Refused(
            f"its tensor {name!r} reaches to element {last} of a storage of {tensor.storage.numel}"
        )


def _arrays(
    tensors: dict[str, _Tensor], contents: Mapping[str, bytes | memoryview]
) -> dict[str, np.ndarray]:
    """The tensors as views of their storages, whose bytes are given by key."""
    flat: dict[str, np.ndarray] = {}
    for storage in {tensor.storage for tensor in tensors.values()}:
        content = contents[storage.key]
        missing = storage.numel * storage.dtype.itemsize - len(content)
        if missing:
            raise _Refused(f"truncated, {missing} bytes of a storage are missing; fetch it again")
        flat[storage.key] = widened(np.frombuffer(content, storage.dtype))

    def view(tensor: _Tensor) -> np.ndarray:
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

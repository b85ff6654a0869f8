"""A restricted unpickler for PyTorch's state dicts, which runs none of the code in a file.

A pickle can name any function and have it called.  This unpickler admits only the globals that a
state dict needs, and a few that training scripts store beside it.  All of them are replaced by
classes that record or drop their arguments.
"""

import pickle
import reprlib
from collections import OrderedDict
from typing import IO, Any, NamedTuple

import jax.numpy as jnp
import numpy as np

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


class Refused(Exception):  # noqa: N818, `read_torch` turns it into a ValueError
    """Raised for a file that is readable but not acceptable; the message says what to do."""


class Storage(NamedTuple):
    """A flat array whose bytes are elsewhere in the file.

    Attributes:
        key: Name of the storage in the file.
        dtype: Type of the elements.
        numel: Number of elements.
    """

    key: str
    dtype: np.dtype
    numel: int


class _Frozen(type):
    """Metaclass that forbids setting class attributes, which a pickle could do otherwise."""

    def __setattr__(cls, name: str, value: object) -> None:
        raise AttributeError(f"{name} cannot be set")


class Tensor(metaclass=_Frozen):
    """A tensor as the pickle describes it; none of the values has been checked."""

    __slots__ = ("offset", "size", "storage", "stride")

    def __init__(self, storage: Any, offset: Any, size: Any, stride: Any, *unused: Any) -> None:
        del unused  # Whether it requires a gradient, and its hooks.
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride


class Parameter(metaclass=_Frozen):
    """A parameter, from its arguments or, as PyTorch before 0.4 wrote it, from its state."""

    __slots__ = ("data",)

    def __init__(self, data: Any, *unused: Any) -> None:
        del unused
        self.data = data

    def __setstate__(self, state: Any) -> None:
        self.data = state[0]


class _Size(tuple[Any, ...], metaclass=_Frozen):
    """Replacement of ``torch.Size``, which is a tuple too."""

    __slots__ = ()


class _Namespace(metaclass=_Frozen):
    """Replacement of ``argparse.Namespace`` and ``torch.device`` that drops all of its content."""

    __slots__ = ()

    def __init__(self, *unused: Any) -> None:
        del unused

    def __setstate__(self, state: Any) -> None:
        del state


# A `torch.dtype` is pickled as its name.
_DTYPE_NAMES = (
    *("float64", "float32", "float16", "bfloat16", "complex64", "complex128"),
    *("int64", "int32", "int16", "int8", "uint8", "bool"),
)

_GLOBALS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor"): Tensor,
    ("torch._utils", "_rebuild_tensor_v2"): Tensor,
    ("torch._utils", "_rebuild_parameter"): Parameter,
    ("torch.nn.parameter", "Parameter"): Parameter,
    # Plain strings, which a pickle cannot modify.
    **{("torch", name): name for name in (*_DTYPES, *_DTYPE_NAMES)},
    # The arguments of torchvision's and timm's training scripts, and the objects among them.
    ("argparse", "Namespace"): _Namespace,
    ("torch", "device"): _Namespace,
    ("torch", "Size"): _Size,
}


class Unpickler(pickle.Unpickler):
    """Unpickler that admits only `_GLOBALS` and references to storages.

    Attributes:
        storages: The storages that the pickle has referred to, by key.
    """

    def __init__(self, file: IO[bytes]) -> None:
        # Strings written by Python 2 are names, which are valid UTF-8.
        super().__init__(file, encoding="utf-8")
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str, /) -> Any:
        """Return the replacement of a global; any global without one is refused."""
        if (module, name) not in _GLOBALS:
            raise Refused(
                f"its pickle asks for {module}.{name}, which does not belong to a state dict and "
                "might run code; save model.state_dict() alone"
            )
        return _GLOBALS[module, name]

    def persistent_load(self, pid: Any) -> Storage:
        """Return the storage that a persistent id describes."""
        match pid:
            case ("storage", str(kind), str(key), _, int(numel), *view) if (
                kind in _DTYPES and numel >= 0 and view in ([], [None])
            ):
                storage = Storage(key, _DTYPES[kind], numel)
            case _:
                raise Refused(f"its pickle refers to {reprlib.repr(pid)}, which is not a storage")
        if self.storages.setdefault(key, storage) != storage:
            raise Refused(f"its storage {key!r} has two types or sizes")
        return storage

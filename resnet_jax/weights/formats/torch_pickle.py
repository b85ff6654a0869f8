"""A restricted unpickler for PyTorch's state dicts, which runs none of the code in a file.

A pickle can name any function and have it called.  This unpickler replaces each of them by a class
of this module: the few that make a tensor by classes that record their arguments, which are all
that ``torch.load(weights_only=True)`` of PyTorch 2.14 admits; the classes of TorchScript by
dictionaries; and any other by a class that does nothing.
"""

import pickle
import reprlib
from collections import OrderedDict
from typing import IO, Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np

_STORAGES = {
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
    "ComplexFloatStorage": np.dtype("<c8"),
    "ComplexDoubleStorage": np.dtype("<c16"),
    # Quantized tensors are not read, but the sizes of their elements are needed.
    "QInt8Storage": np.dtype("i1"),
    "QUInt8Storage": np.dtype("u1"),
    "QInt32Storage": np.dtype("<i4"),
    "QUInt4x2Storage": np.dtype("u1"),
    "QUInt2x4Storage": np.dtype("u1"),
    "UntypedStorage": np.dtype("u1"),
}
# Types of elements that have no storage of their own: PyTorch stores bytes and the type's name.
_DTYPES = {
    "uint16": np.dtype("<u2"),
    "uint32": np.dtype("<u4"),
    "uint64": np.dtype("<u8"),
    "float8_e4m3fn": np.dtype(jnp.float8_e4m3fn),
    "float8_e4m3fnuz": np.dtype(jnp.float8_e4m3fnuz),
    "float8_e5m2": np.dtype(jnp.float8_e5m2),
    "float8_e5m2fnuz": np.dtype(jnp.float8_e5m2fnuz),
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
    """A tensor as the pickle describes it; none of the values has been checked.

    It is described by its arguments or, as PyTorch before 0.2 wrote it, by its state.

    Attributes:
        dtype: Type of the elements, or None if the values cannot be read.
    """

    __slots__ = ("dtype", "offset", "size", "storage", "stride")

    def __init__(
        self,
        storage: Any = None,
        offset: Any = 0,
        size: Any = (),
        stride: Any = (),
        requires_grad: Any = False,
        hooks: Any = None,
        pending: Any = None,
    ) -> None:
        del requires_grad, hooks
        self.__setstate__((storage, offset, size, stride))
        if pending:  # A conjugation or negation, which PyTorch has not applied to the values.
            self.dtype = None

    def __setstate__(self, state: Any) -> None:
        self.storage, self.offset, self.size, self.stride = state
        self.dtype = getattr(self.storage, "dtype", None)


class _TypedTensor(Tensor):
    """A tensor in a storage of bytes."""

    __slots__ = ()

    def __init__(
        self,
        storage: Any,
        offset: Any,
        size: Any,
        stride: Any,
        requires_grad: Any,
        hooks: Any,
        dtype: Any,
        pending: Any = None,
    ) -> None:
        super().__init__(storage, offset, size, stride, requires_grad, hooks)
        self.dtype = _DTYPES.get(dtype) if isinstance(dtype, str) and not pending else None


class Unsupported(metaclass=_Frozen):
    """A tensor whose values are not read, because a kernel cannot be one.

    Attributes:
        kind: What it is instead of a dense tensor, with an article.
    """

    __slots__ = ()

    kind: ClassVar[str]

    def __init__(self, *unused: Any) -> None:
        del unused


class _Sparse(Unsupported):
    __slots__ = ()
    kind = "a sparse tensor"


class _Quantized(Unsupported):
    __slots__ = ()
    kind = "a quantized tensor"


class _Meta(Unsupported):
    __slots__ = ()
    kind = "a tensor without values, on PyTorch's device 'meta'"


class _Nested(Unsupported):
    __slots__ = ()
    kind = "a nested tensor"


class Other(Unsupported):
    """A tensor that `Tensor` describes, but whose values cannot be read."""

    __slots__ = ()
    kind = "a tensor of an unsupported type"


class _Subclass(Unsupported):
    __slots__ = ()
    kind = "a tensor of a class of its own"


class Parameter(metaclass=_Frozen):
    """A tensor within another object, of which nothing else is kept.

    It comes from the arguments of the object or, as PyTorch before 0.4 wrote it, from the state.

    Attributes:
        data: The tensor, if the pickle is not hostile.
    """

    __slots__ = ("data",)

    def __init__(self, data: Any = None, *unused: Any) -> None:
        del unused
        self.__setstate__((data,))

    def __setstate__(self, state: Any) -> None:
        data = state[0]
        self.data = data.data if isinstance(data, Parameter) else data


class _Rebuilt(Parameter):
    """A tensor of a subclass, or one with attributes, from the function that makes a plain one."""

    __slots__ = ()

    def __init__(self, function: Any, subclass: Any, arguments: Any, state: Any) -> None:
        del subclass, state
        plain = isinstance(function, type) and issubclass(
            function, Tensor | Unsupported | Parameter
        )
        super().__init__(function(*arguments) if plain else None)


class _Size(tuple[Any, ...], metaclass=_Frozen):
    """Replacement of ``torch.Size``, which is a tuple too."""

    __slots__ = ()


class Inert(dict[Any, Any], metaclass=_Frozen):
    """Replacement of every other class and function: a dictionary of the items it is given.

    It keeps the weights in a ``Counter``, a ``defaultdict`` or any other mapping, and drops all
    that is not an item.

    Attributes:
        path: Module and name of what it replaces.
    """

    __slots__ = ()

    path: ClassVar[str]

    def __new__(cls, *unused: Any, **also_unused: Any) -> "Inert":  # noqa: D102
        del unused, also_unused
        return super().__new__(cls)

    def __init__(self, *arguments: Any, **unused: Any) -> None:
        del unused
        super().__init__()
        for argument in arguments:
            if isinstance(argument, dict):
                self.update(argument)

    # It can be a key or an element of a set.
    __hash__ = object.__hash__  # pyrefly: ignore
    __eq__ = object.__eq__
    __ne__ = object.__ne__

    def __call__(self, *unused: Any) -> "Inert":  # noqa: D102
        del unused
        return self

    def __setstate__(self, state: Any) -> None:
        del state

    def _drop(self, value: Any) -> None:
        del value

    # By these methods, a pickle fills a list, a set or a deque.
    append = extend = add = _drop


class _ScriptModule(Inert):
    """Replacement of the classes of a TorchScript program: a dictionary of its attributes."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.update(state)


_GLOBALS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch", "Size"): _Size,
    ("torch", "Tensor"): Tensor,
    ("torch.nn.parameter", "Parameter"): Parameter,
    ("torch._tensor", "_rebuild_from_type_v2"): _Rebuilt,
    **{
        ("torch._utils", f"_rebuild_{name}"): replacement
        for name, replacement in {
            "tensor": Tensor,
            "tensor_v2": Tensor,
            "tensor_v3": _TypedTensor,
            "parameter": Parameter,
            "parameter_with_state": Parameter,
            "device_tensor_from_cpu_tensor": Parameter,
            "device_tensor_from_numpy": _Subclass,
            "qtensor": _Quantized,
            "sparse_tensor": _Sparse,
            "meta_tensor_no_storage": _Meta,
            "nested_tensor": _Nested,
            "wrapper_subclass": _Subclass,
        }.items()
    },
    # Plain strings, which a pickle cannot modify.
    **{("torch", name): name for name in (*_STORAGES, *_DTYPES)},
    **{("torch.cuda", name): name for name in _STORAGES},
    ("torch.storage", "UntypedStorage"): "UntypedStorage",
    **{
        (module, name.replace("Storage", "Tensor")): Tensor
        for module in ("torch", "torch.cuda")
        for name in _STORAGES
    },
}


class Unpickler(pickle.Unpickler):
    """Unpickler that creates instances of the classes of this module and of plain types only.

    Attributes:
        storages: The storages that the pickle has referred to, by key.
        dropped: What the pickle has named that is not part of a state dict.
    """

    def __init__(self, file: IO[bytes]) -> None:
        # Strings of Python 2 are names, in UTF-8, or bytes that nothing reads.
        super().__init__(file, encoding="utf-8", errors="surrogateescape")
        self.storages: dict[str, Storage] = {}
        self.dropped: dict[tuple[str, str], type[Inert]] = {}

    def find_class(self, module: str, name: str, /) -> Any:
        """Return the replacement of a global."""
        known = _GLOBALS.get((module, name)) or self.dropped.get((module, name))
        if known is None:
            # TorchScript defines its classes in this module and in its submodules.
            kind = _ScriptModule if module.split(".")[0] == "__torch__" else Inert
            known = type(kind.__name__, (kind,), {"__slots__": (), "path": f"{module}.{name}"})
            self.dropped[module, name] = known
        return known

    def persistent_load(self, pid: Any) -> Any:
        """Return the storage, or the replacement of a class, that a persistent id describes."""
        match pid:
            case ("storage", str(kind), str(key), _, int(numel), *view) if (
                kind in _STORAGES and numel >= 0 and view in ([], [None])
            ):
                storage = Storage(key, _STORAGES[kind], numel)
            case ("module", replacement, *_):
                return replacement  # The legacy format wrote the source beside a class.
            case _:
                raise Refused(f"its pickle refers to {reprlib.repr(pid)}, which is not a storage")
        if self.storages.setdefault(key, storage) != storage:
            raise Refused(f"its storage {key!r} has two types or sizes")
        return storage

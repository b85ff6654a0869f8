"""Files of torch.save, written here opcode by opcode as PyTorch writes them, and hostile ones.

PyTorch itself made the files in `data`, with this program (torch 2.14.1):

    base = torch.arange(12.0)
    state = {
        "module.rows": base[:6].view(2, 3),
        "module.columns": base[6:].view(2, 3).t(),
        "module.half": torch.tensor([1.5, -2.25]).half(),
        "module.bfloat16": torch.tensor([1.5, -(2.0**100)]).bfloat16(),
        "module.count": torch.tensor(7),
    }
    for name, zipped in (("zip", True), ("legacy", False)):
        torch.save(
            {"epoch": 3, "state_dict": state},
            f"tests/weights/data/{name}.pth",
            _use_new_zipfile_serialization=zipped,
        )

    class Stem(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(1, 2, 1)
            self.norm = torch.nn.BatchNorm2d(2)
            self.names = ["a", "b"]
            self.register_buffer("scale", torch.tensor([1.5, -2.25]).half())

        def forward(self, x):
            # Code of more than 200 bytes is compressed.
            for _ in range(len(self.names)):
                x = self.norm(self.conv(x)) * self.scale[:, None, None]
                x = torch.nn.functional.relu(x) + torch.nn.functional.silu(x)[:, :1]
                x = x.mean(dim=1, keepdim=True)
            return x

    script = torch.jit.script(torch.nn.Sequential(OrderedDict(stem=Stem(), act=torch.nn.ReLU())))
    for i, parameter in enumerate(script.parameters()):
        parameter.data = torch.full_like(parameter, i + 1)
    script.save("tests/weights/data/script.pt")
"""

import argparse
import copyreg
import io
import os
import pickle
import re
import sys
import zipfile
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.weights import prefixes
from resnet_jax.weights.formats.torch_file import read_torch

DATA = Path(__file__).parent / "data"

DTYPES = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "BFloat16Storage": jnp.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}


class Storage:
    """The bytes of a storage, with the type and the size that the pickle states."""

    def __init__(
        self, array: np.ndarray, kind: str = "FloatStorage", numel: int | None = None
    ) -> None:
        self.content = array.astype(DTYPES[kind]).tobytes()
        self.kind = kind
        self.numel = array.size if numel is None else numel


class Tensor:
    """A tensor as the pickle describes it: its storage, offset, size and stride."""

    def __init__(self, storage: Storage, offset: Any, size: Any, stride: Any) -> None:
        self.arguments = (storage, offset, size, stride)


class Parameter:
    """A parameter as PyTorch wrote it before 0.4."""

    def __init__(self, data: Tensor) -> None:
        self.data = data


def tensor(array: np.ndarray, kind: str = "FloatStorage") -> Tensor:
    strides = tuple(stride // array.itemsize for stride in array.strides)
    return Tensor(Storage(array, kind), 0, array.shape, strides)


def stand_ins() -> dict[str, ModuleType]:
    """Return modules in which a pickler finds stand-ins for the globals of PyTorch."""
    torch, functions, parameter = map(ModuleType, ("torch", "torch._utils", "torch.nn.parameter"))
    for name in DTYPES:
        setattr(torch, name, type(name, (), {"__module__": "torch"}))
    for name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
        setattr(functions, name, type(name, (), {"__module__": "torch._utils"}))
    Parameter.__module__, parameter.Parameter = "torch.nn.parameter", Parameter
    return {module.__name__: module for module in (torch, functions, parameter)}


class Pickler(pickle.Pickler):
    """A pickler that writes `Tensor` and `Storage` as PyTorch writes its own, with protocol 2."""

    def __init__(self, file: io.BytesIO, rebuild: str, view: tuple[None, ...] = ()) -> None:
        super().__init__(file, protocol=2)
        self.rebuild, self.view = rebuild, view
        self.storages: list[Storage] = []

    def persistent_id(self, obj: object) -> tuple | None:
        """Return the pickle's reference to a storage, whose bytes are written separately."""
        if not isinstance(obj, Storage):
            return None
        if obj not in self.storages:
            self.storages.append(obj)
        kind = getattr(sys.modules["torch"], obj.kind)
        return ("storage", kind, str(self.storages.index(obj)), "cpu", obj.numel, *self.view)

    def reducer_override(self, obj: Any) -> Any:
        """Return the calls that rebuild tensors and parameters in PyTorch."""
        if isinstance(obj, Parameter):
            return copyreg.__newobj__, (Parameter,), (obj.data, None, OrderedDict(), True, False)
        if isinstance(obj, Tensor):
            unused = () if self.rebuild == "_rebuild_tensor" else (False, OrderedDict())
            rebuild = getattr(sys.modules["torch._utils"], self.rebuild)
            return rebuild, (*obj.arguments, *unused)
        return NotImplemented


def save_zip(path: Path, content: object, **members: bytes | None) -> Path:
    """Write the format of PyTorch 1.6 and newer.  Members are replaced, or left out if None."""
    file = io.BytesIO()
    pickler = Pickler(file, "_rebuild_tensor_v2")
    with mock.patch.dict(sys.modules, stand_ins()):
        pickler.dump(content)
    contents = {"data.pkl": file.getvalue(), "byteorder": b"little", "version": b"3\n"}
    contents |= {f"data/{i}": storage.content for i, storage in enumerate(pickler.storages)}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (contents | members).items():
            if data is not None:
                archive.writestr(f"archive/{name}", data)
    return path


def save_legacy(path: Path, content: object, rebuild: str = "_rebuild_tensor_v2") -> Path:
    """Write the format of PyTorch before 1.6."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}
    with path.open("wb") as out:
        for header in (0x1950A86A20F9469CFC6C, 1001, system):
            pickle.dump(header, out, protocol=2)
        file = io.BytesIO()
        pickler = Pickler(file, rebuild, view=(None,))
        with mock.patch.dict(sys.modules, stand_ins()):
            pickler.dump(content)
        out.write(file.getvalue())
        pickle.dump([str(i) for i in range(len(pickler.storages))], out, protocol=2)
        for storage in pickler.storages:
            out.write(storage.numel.to_bytes(8, "little") + storage.content)
    return path


SAVERS = pytest.mark.parametrize("save", [save_zip, save_legacy])
Save = Callable[..., Path]


@pytest.mark.parametrize("name", ["zip.pth", "legacy.pth"])
def test_files_of_pytorch_are_read(name: str) -> None:
    tensors = read_torch(DATA / name)
    expected = {
        "rows": np.arange(6, dtype=np.float32).reshape(2, 3),
        "columns": np.arange(6, 12, dtype=np.float32).reshape(2, 3).T,
        "half": np.array([1.5, -2.25], np.float32),
        "bfloat16": np.array([1.5, -(2.0**100)], np.float32),
        "count": np.array(7),
    }
    expected = {f"state_dict.module.{key}": array for key, array in expected.items()}
    assert list(tensors) == list(expected)
    for key, array in expected.items():
        assert tensors[key].dtype == array.dtype
        np.testing.assert_array_equal(tensors[key], array)
    rows, columns = (tensors[f"state_dict.module.{key}"] for key in ("rows", "columns"))
    assert rows.base is columns.base


@SAVERS
@pytest.mark.parametrize("kind", DTYPES)
def test_every_type_of_storage_is_read(save: Save, kind: str, tmp_path: Path) -> None:
    array = np.array([[0, 1, 2], [3, 0, 1]])
    read = read_torch(save(tmp_path / "file", {"x": tensor(array, kind)}))["x"]
    wide = {"HalfStorage": np.float32, "BFloat16Storage": np.float32}
    assert read.dtype == wide.get(kind, DTYPES[kind])
    np.testing.assert_array_equal(read, array.astype(DTYPES[kind]).astype(read.dtype))


@SAVERS
def test_tensors_are_views_of_their_storage(save: Save, tmp_path: Path) -> None:
    storage = Storage(np.arange(24))
    tensors = read_torch(
        save(
            tmp_path / "file",
            {
                "transposed": Tensor(storage, 12, (4, 3), (1, 4)),
                "channels_last": Tensor(storage, 0, (1, 4, 2, 3), (24, 1, 12, 4)),
                "strided": Tensor(storage, 3, (5,), (5,)),
                "expanded": Tensor(storage, 23, (2, 3), (0, 0)),
                "scalar": Tensor(storage, 7, (), ()),
                "empty": Tensor(storage, 24, (0, 3), (3, 1)),
            },
        )
    )
    flat = np.arange(24, dtype=np.float32)
    expected = {
        "transposed": flat[12:].reshape(3, 4).T,
        "channels_last": flat.reshape(1, 2, 3, 4).transpose(0, 3, 1, 2),
        "strided": flat[3::5],
        "expanded": np.full((2, 3), 23),
        "scalar": np.array(7),
        "empty": np.empty((0, 3)),
    }
    for name, array in expected.items():
        np.testing.assert_array_equal(tensors[name], array)
        assert tensors[name].shape == array.shape


def test_names_in_containers_are_joined(tmp_path: Path) -> None:
    state = OrderedDict({"a.weight": tensor(np.arange(3)), "b.weight": tensor(np.arange(4))})
    state._metadata = OrderedDict({"": {"version": 2}})  # As modules of PyTorch do.
    content: dict[Any, Any] = {
        "epoch": 3,
        "state_dict": {"model": state},
        "swa": [{"a.weight": tensor(np.arange(2))}, (tensor(np.arange(1)), None)],
        "optimizer": {"state": {0: {"exp_avg": tensor(np.zeros(3))}}, "lr": [0.1, None, (1,)]},
        # The object itself has no name to load it by.
        "cycle": {},
    }
    content["cycle"]["again"] = content
    tensors = read_torch(save_zip(tmp_path / "file", content))
    assert {name: array.tolist() for name, array in tensors.items()} == {
        "state_dict.model.a.weight": [0, 1, 2],
        "state_dict.model.b.weight": [0, 1, 2, 3],
        "swa.0.a.weight": [0, 1],
        "swa.1.0": [0],
    }


def test_a_tree_of_exponential_size_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(prefixes, "_MOST_CONTAINERS", 10_000)
    tree: list[Any] = []
    for _ in range(40):
        tree = [tree, tree]
    with pytest.raises(ValueError, match="more than a million mappings and lists"):
        read_torch(save_zip(tmp_path / "file", {"x": tensor(np.zeros(1)), "tree": tree}))


def test_parameters_of_pytorch_0_3_are_read(tmp_path: Path) -> None:
    # torch.load(weights_only=True) of torch 2.14.1 reads this file too.
    state = OrderedDict({"x": Parameter(tensor(np.arange(6).reshape(2, 3)))})
    path = save_legacy(tmp_path / "file", state, rebuild="_rebuild_tensor")
    np.testing.assert_array_equal(read_torch(path)["x"], np.arange(6).reshape(2, 3))


def text(value: str) -> bytes:
    return b"X" + len(value).to_bytes(4, "little") + value.encode()


def beside_a_state_dict(value: bytes) -> bytes:
    """Return the pickle of a checkpoint with a tensor "x" of size 3 and opcodes for "args"."""
    storage = (
        b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"K\x03tQ"
    )
    x = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\x00K\x03\x85K\x01\x85\x89}tR"
    state = b"}" + text("x") + x + b"s"
    return b"\x80\x02}(" + text("model") + state + text("args") + value + b"u."


SIZE = b"ctorch\nSize\nK\x02K\x03\x86\x85R"
DEVICE = b"ctorch\ndevice\n" + text("cuda") + b"K\x00\x86R"
DTYPE = b"ctorch\nbfloat16\n"
NAMESPACE = b"cargparse\nNamespace\n)\x81"


@pytest.mark.parametrize(
    "value",
    [
        SIZE,
        DEVICE,
        DTYPE,
        NAMESPACE + b"}" + text("lr") + b"K\x01sb",
        NAMESPACE + b"}(" + b"".join(map(text, "ab")) + text("device") + DEVICE + b"ub",
        NAMESPACE + b"}(" + text("size") + SIZE + text("dtype") + DTYPE + b"ub",
        # These states would change the object, or the method that is called on it next.
        NAMESPACE + b"}(" + text("__class__") + SIZE + text("__setstate__") + DEVICE + b"ub}b",
        NAMESPACE + b"N}" + text("__class__") + b"cargparse\nNamespace\ns\x86b",
    ],
)
def test_states_beside_the_weights_are_dropped(value: bytes, tmp_path: Path) -> None:
    members = {
        "data.pkl": beside_a_state_dict(value),
        "data/0": np.arange(3, dtype="<f4").tobytes(),
    }
    tensors = read_torch(save_zip(tmp_path / "file", {}, **members))
    assert list(tensors) == ["model.x"]
    np.testing.assert_array_equal(tensors["model.x"], [0, 1, 2])


def test_the_size_of_a_tensor_may_be_one_of_torch(tmp_path: Path) -> None:
    payload = beside_a_state_dict(b"N")
    sized = payload.replace(b"K\x03\x85K\x01", b"ctorch\nSize\nK\x03\x85\x85RK\x01")
    assert sized != payload
    members = {"data.pkl": sized, "data/0": np.arange(3, dtype="<f4").tobytes()}
    np.testing.assert_array_equal(
        read_torch(save_zip(tmp_path / "file", {}, **members))["model.x"], [0, 1, 2]
    )


class Mapping(dict):
    """A class of a training script, such as Lightning's AttributeDict."""


class Slotted:
    """A class whose state is a pair."""

    __slots__ = ("x",)

    def __init__(self) -> None:
        self.x = 1


HARMLESS = {
    "Counter": Counter({30: 1, 60: 1}),
    "set": {1, 2},
    "frozenset": frozenset({Path("x"), 1j}),
    "numpy": np.float64(0.5),
    "array": np.arange(3),
    "path": Path("x"),
    "defaultdict": defaultdict(list, {"a": [1]}),
    "deque": deque([1, 2]),
    "bytes": [b"\xff", bytearray(b"\xff")],
    "namespace": argparse.Namespace(model="resnet18", milestones=[30, 60], resume=None),
    "class": argparse.ArgumentParser,
    "function": os.system,
    "method": [1].append,
    "partial": partial(max, 3),
    "datetime": datetime.now(UTC),
    "enum": re.ASCII,
    "slots": Slotted(),
    "mapping": Mapping(lr=0.1),
    "keys": {Path("x"): 1, 3: 2, None: 3},
}


@SAVERS
@pytest.mark.parametrize("kind", HARMLESS)
def test_what_stands_beside_the_weights_is_dropped(save: Save, kind: str, tmp_path: Path) -> None:
    content = {"net": {"x": tensor(np.arange(3)), kind: HARMLESS[kind]}, kind: HARMLESS[kind]}
    tensors = read_torch(save(tmp_path / "file", content))
    assert list(tensors) == ["net.x"]
    np.testing.assert_array_equal(tensors["net.x"], [0, 1, 2])
    with pytest.raises(ValueError, match=r"file: it contains no named tensors.*; save model"):
        read_torch(save(tmp_path / "file", {kind: HARMLESS[kind]}))


@pytest.mark.parametrize("kind", [Counter, OrderedDict, partial(defaultdict, list), Mapping])
def test_weights_may_be_in_any_mapping(kind: Any, tmp_path: Path) -> None:
    path = save_zip(tmp_path / "file", {"model": kind({"x": tensor(np.arange(3))})})
    np.testing.assert_array_equal(read_torch(path)["model.x"], [0, 1, 2])


def called(module: str, name: str, *arguments: bytes) -> bytes:
    """The opcodes of a call of a function."""
    return f"c{module}\n{name}\n(".encode() + b"".join(arguments) + b"tR"


def stored(kind: str = "FloatStorage", module: str = "torch", numel: int = 3) -> bytes:
    storage = f"c{module}\n{kind}\n".encode() + text("0") + text("cpu")
    return b"(" + text("storage") + storage + b"K" + bytes([numel]) + b"tQ"


STRIDED = b"K\x00K\x03\x85K\x01\x85"
PLAIN = called("torch._utils", "_rebuild_tensor_v2", stored(), STRIDED, b"\x89}")
READ = {
    "parameter": called("torch._utils", "_rebuild_parameter", PLAIN, b"\x88}"),
    "parameter with state": called(
        "torch._utils", "_rebuild_parameter_with_state", PLAIN, b"\x88}}"
    ),
    "xla": called("torch._utils", "_rebuild_device_tensor_from_cpu_tensor", PLAIN, b"NN\x89"),
    "parameter on xla": called(
        "torch._utils",
        "_rebuild_parameter",
        called("torch._utils", "_rebuild_device_tensor_from_cpu_tensor", PLAIN, b"NN\x89"),
        b"\x88}",
    ),
    "with attributes": called(
        "torch._tensor",
        "_rebuild_from_type_v2",
        b"ctorch._utils\n_rebuild_tensor_v2\nctorch\nTensor\n(" + stored() + STRIDED + b"\x89}t}",
    ),
    "of 0.1": b"ctorch\nFloatTensor\n)\x81(" + stored() + STRIDED + b"tb",
    "cuda": called("torch._utils", "_rebuild_tensor", stored(module="torch.cuda"), STRIDED),
}
NOT_READ = {
    "a sparse tensor": called("torch._utils", "_rebuild_sparse_tensor", PLAIN, b"}"),
    "a quantized tensor": called("torch._utils", "_rebuild_qtensor", stored("QInt8Storage")),
    "a tensor without values": called("torch._utils", "_rebuild_meta_tensor_no_storage", b"N"),
    "a tensor of an unsupported type": called(
        "torch._utils", "_rebuild_tensor_v2", stored(), STRIDED, b"\x89}}" + text("neg") + b"\x88s"
    ),
    "a nested tensor": called("torch._utils", "_rebuild_nested_tensor", PLAIN),
    "a tensor of a class of its own": called("torch._utils", "_rebuild_wrapper_subclass", b"N"),
}


@pytest.mark.parametrize("kind", READ)
def test_all_tensors_of_weights_only_are_read(kind: str, tmp_path: Path) -> None:
    members = {
        "data.pkl": beside_a_state_dict(READ[kind]),
        "data/0": np.arange(3, dtype="<f4").tobytes(),
    }
    tensors = read_torch(save_zip(tmp_path / "file", {}, **members))
    np.testing.assert_array_equal(tensors["args"], [0, 1, 2])


@pytest.mark.parametrize("kind", NOT_READ)
def test_tensors_that_are_not_dense_are_named(kind: str, tmp_path: Path) -> None:
    quantized = "quantized" in kind
    members = {
        "data.pkl": b"\x80\x02}" + text("x") + NOT_READ[kind] + b"s.",
        "data/0": bytes(3 if quantized else 12),
    }
    tensors = read_torch(save_zip(tmp_path / "file", {}, **members))
    assert str(tensors["x"]).startswith(kind)


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        ("uint16", np.array([1, 2**16 - 1, 3], "<u2")),
        ("float8_e5m2", np.array([1, -2, 0.5], jnp.float8_e5m2)),
    ],
)
def test_types_without_a_storage_are_read(dtype: str, values: np.ndarray, tmp_path: Path) -> None:
    storage = stored("UntypedStorage", "torch.storage", values.nbytes)
    payload = called(
        "torch._utils",
        "_rebuild_tensor_v3",
        storage,
        STRIDED,
        f"\x89}}ctorch\n{dtype}\n".encode("latin-1"),
    )
    members = {"data.pkl": b"\x80\x02}" + text("x") + payload + b"s."}
    read = read_torch(save_zip(tmp_path / "file", {}, **members, **{"data/0": values.tobytes()}))
    np.testing.assert_array_equal(read["x"].astype(np.float32), values.astype(np.float32))


class Reduced:
    """An object whose pickle calls a function."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> tuple:
        return self.call


ATTACKS = {
    "posix.system": lambda marker: Reduced(os.system, (f"touch {marker}",)),
    "builtins.eval": lambda marker: Reduced(eval, (f"open({str(marker)!r}, 'w').close()",)),
    "posix.mkdir": lambda marker: {"state_dict": {"x": [{"y": Reduced(os.mkdir, (str(marker),))}]}},
}


@SAVERS
@pytest.mark.parametrize("attack", ATTACKS)
def test_code_in_a_pickle_does_not_run(save: Save, attack: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    hostile = ATTACKS[attack](marker)
    pickle.loads(pickle.dumps(hostile, protocol=2))
    assert marker.exists(), "this attack does nothing"
    marker.rmdir() if marker.is_dir() else marker.unlink()
    name = attack.replace("builtins", "__builtin__")  # As protocol 2 spells it.
    with pytest.raises(ValueError, match=f"no named tensors but objects such as '{name}'"):
        read_torch(save(tmp_path / "file", hostile))
    beside = {"net": {"x": tensor(np.arange(3)), "y": hostile}, "z": hostile}
    assert list(read_torch(save(tmp_path / "file", beside))) == ["net.x"]
    assert not marker.exists()


CALL = text("touch marker")


@pytest.mark.parametrize(
    "payload",
    [
        b"cposix\nsystem\n" + CALL + b"\x85R",  # REDUCE
        b"cposix\nsystem\n" + CALL + b"\x85\x81",  # NEWOBJ
        b"cposix\nsystem\n" + CALL + b"\x85}\x92",  # NEWOBJ_EX
        b"(S'touch marker'\niposix\nsystem\n",  # INST
        b"(cposix\nsystem\n" + CALL + b"o",  # OBJ
        text("posix") + text("system") + b"\x93" + CALL + b"\x85R",  # STACK_GLOBAL
        b"cposix\nsystem\n)R" + CALL + b"a(" + CALL + b"e",  # APPEND, APPENDS
        b"cposix\nsystem\n)R" + CALL + b"Ns(" + CALL + b"Nu",  # SETITEM, SETITEMS
        b"cposix\nsystem\n)R(" + CALL + b"\x90",  # ADDITEMS
        b"cposix\nsystem\n)Rcposix\nsystem\nb",  # BUILD
        # Calls of what was memoized, as a key, and through another call.
        b"cposix\nsystem\nq\x000h\x00" + CALL + b"\x85R",
        b"}cposix\nsystem\n" + CALL + b"\x85RNs",
        called("torch._tensor", "_rebuild_from_type_v2", b"cposix\nsystem\nN", CALL, b"\x85N"),
        called("builtins", "getattr", b"cposix\nsystem\n", text("__call__")) + CALL + b"\x85R",
        called("collections", "OrderedDict", b"cposix\nsystem\n)R"),
        # A state that would change the class of an object, or what is called on it next.
        NAMESPACE + b"}" + text("__setstate__") + b"cposix\nsystem\nsb" + CALL + b"b",
        b"ccollections\nOrderedDict\n)R}" + text("items") + b"cposix\nsystem\nsb",
        # Neighbours of what makes tensors.
        called("torch", "load", text("marker")),
        called("torch.storage", "_load_from_bytes", b"C\x01x"),
        called("torch", "hub.load", text("marker")),
        text("collections") + text("OrderedDict.fromkeys") + b"\x93)R",
        text("torch") + text("Size.__new__") + b"\x93)R",
        called("resnet_jax.weights.formats.torch_pickle", "Unpickler"),
    ],
)
def test_no_opcode_calls_what_a_pickle_names(
    payload: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    members = {
        "data.pkl": beside_a_state_dict(payload).replace(b"\x80\x02", b"\x80\x04", 1),
        "data/0": np.arange(3, dtype="<f4").tobytes(),
    }
    path = save_zip(tmp_path / "file", {}, **members)
    with mock.patch.object(os, "system") as system:
        assert list(read_torch(path)) == ["model.x"]
    assert not system.called
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("pid", [b"K\x03", b"cposix\nsystem\n" + CALL + b"\x86", CALL])
def test_persistent_ids_that_are_no_storages_are_refused(pid: bytes, tmp_path: Path) -> None:
    members = {"data.pkl": beside_a_state_dict(pid + b"Q")}
    with pytest.raises(ValueError, match=r"its pickle refers to .*, which is not a storage"):
        read_torch(save_zip(tmp_path / "file", {}, **members))


def test_classes_that_the_legacy_format_describes_are_dropped(tmp_path: Path) -> None:
    pid = b"(" + text("module") + b"ctorchvision.models.resnet\nResNet\n" + text("p") + CALL + b"tQ"
    members = {
        "data.pkl": beside_a_state_dict(pid + b")\x81}b"),
        "data/0": np.arange(3, dtype="<f4").tobytes(),
    }
    assert list(read_torch(save_zip(tmp_path / "file", {}, **members))) == ["model.x"]


@pytest.mark.parametrize(
    "name",
    [
        b"collections\nOrderedDict",
        b"torch._utils\n_rebuild_tensor_v2",
        b"torch.nn.parameter\nParameter",
        b"torch\nFloatStorage",
        b"torch\nfloat32",
        b"torch\nSize",
        b"torch\ndevice",
        b"argparse\nNamespace",
    ],
)
def test_a_pickle_cannot_change_what_it_may_call(name: bytes, tmp_path: Path) -> None:
    # BUILD with the state (None, {"evil": 1}) sets the attribute `evil`.
    payload = b"\x80\x02c" + name + b"\nN}X\x04\x00\x00\x00evilK\x01s\x86b."
    with pytest.raises(ValueError, match="truncated or damaged"):
        read_torch(save_zip(tmp_path / "file", {}, **{"data.pkl": payload}))


@SAVERS
@pytest.mark.parametrize(
    ("offset", "size", "stride", "problem"),
    [
        (1, (6,), (1,), "'x' reaches to element 6 of a storage of 6"),
        (0, (2, 3), (4, 1), "'x' reaches to element 6 of a storage of 6"),
        (6, (), (), "'x' reaches to element 6 of a storage of 6"),
        (0, (2**62, 2**62), (2**62, 2**62), "'x' reaches to element"),
        (-1, (2,), (1,), "'x' has no valid"),
        (5, (2,), (-1,), "'x' has no valid"),
        (0, (-2,), (1,), "'x' has no valid"),
        (0, (2, 3), (1,), "'x' has no valid"),
        (0, (2.0,), (1,), "'x' has no valid"),
        (None, (2,), (1,), "'x' has no valid"),
        (0, "2", "1", "'x' has no valid"),
    ],
)
def test_tensors_that_leave_their_storage_are_refused(
    save: Save, offset: Any, size: Any, stride: Any, problem: str, tmp_path: Path
) -> None:
    state = {"x": Tensor(Storage(np.arange(6)), offset, size, stride)}
    with pytest.raises(ValueError, match=f"file: its tensor {problem}"):
        read_torch(save(tmp_path / "file", state))


@SAVERS
@pytest.mark.parametrize("numel", [5, 7, 2**60])
def test_storages_of_another_size_are_refused(save: Save, numel: int, tmp_path: Path) -> None:
    state = {"x": Tensor(Storage(np.arange(6), numel=numel), 0, (2,), (1,))}
    with pytest.raises(ValueError, match="file: ") as error:
        read_torch(save(tmp_path / "file", state | {"y": tensor(np.arange(3))}))
    assert "\n" not in str(error.value)


def test_a_storage_that_is_missing_is_named(tmp_path: Path) -> None:
    path = save_zip(tmp_path / "file", {"x": tensor(np.arange(3))}, **{"data/0": None})
    with pytest.raises(ValueError, match="its storage '0' is missing"):
        read_torch(path)


def test_compressed_archives_are_refused(tmp_path: Path) -> None:
    source = save_zip(tmp_path / "source", {"x": tensor(np.zeros(10**5))})
    with (
        zipfile.ZipFile(source) as archive,
        zipfile.ZipFile(tmp_path / "file", "w", zipfile.ZIP_DEFLATED) as compressed,
    ):
        for name in archive.namelist():
            compressed.writestr(name, archive.read(name))
    with pytest.raises(ValueError, match="it is compressed"):
        read_torch(tmp_path / "file")


def test_big_endian_files_are_refused(tmp_path: Path) -> None:
    path = save_zip(tmp_path / "file", {"x": tensor(np.zeros(1))}, byteorder=b"big")
    with pytest.raises(ValueError, match="big-endian"):
        read_torch(path)


@SAVERS
@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ([1, 2], "it contains no named tensors; save"),
        (tensor(np.zeros(1)), "it contains no named tensors; save"),
        ({"epoch": 3, "net": {}}, "it contains no named tensors; save"),
        ({"optimizer": {0: tensor(np.zeros(1))}}, "it contains no named tensors; save"),
    ],
)
def test_what_is_no_state_dict_is_refused(
    save: Save, content: object, problem: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=f"file: {problem}"):
        read_torch(save(tmp_path / "file", content))


def test_the_state_dict_of_a_script_is_read() -> None:
    with zipfile.ZipFile(DATA / "script.pt") as archive:
        kinds = {info.compress_type for info in archive.infolist()}
    assert kinds == {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
    tensors = read_torch(DATA / "script.pt")
    expected = {
        "stem.conv.weight": np.full((2, 1, 1, 1), 1, np.float32),
        "stem.conv.bias": np.full(2, 2, np.float32),
        "stem.norm.weight": np.full(2, 3, np.float32),
        "stem.norm.bias": np.full(2, 4, np.float32),
        "stem.norm.running_mean": np.zeros(2, np.float32),
        "stem.norm.running_var": np.ones(2, np.float32),
        "stem.norm.num_batches_tracked": np.array(0),
        "stem.scale": np.array([1.5, -2.25], np.float32),
    }
    assert tensors.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(tensors[name], array)
        assert tensors[name].dtype == array.dtype


def test_code_in_a_script_does_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    call = b"cposix\nsystem\n" + text(f"touch {marker}") + b"\x85R"
    module = b"c__torch__.torch.nn.modules.conv\nConv2d\n)\x81}"
    payload = b"\x80\x02" + module + text("weight") + PLAIN + b"s"
    payload += text("__call__") + call + b"s" + text("__setstate__") + call + b"sb."
    members = {"data.pkl": payload, "data/0": np.arange(3, dtype="<f4").tobytes()}
    tensors = read_torch(save_zip(tmp_path / "file", {}, **members, **{"constants.pkl": call}))
    assert list(tensors) == ["weight"]
    assert not marker.exists()


@pytest.mark.parametrize("name", ["zip.pth", "legacy.pth"])
def test_damage_anywhere_is_a_value_error_or_harmless(name: str, tmp_path: Path) -> None:
    original = (DATA / name).read_bytes()
    path = tmp_path / name
    messages = []
    for position in range(0, len(original), 3):
        damaged = bytearray(original)
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        try:
            read_torch(path)
        except ValueError as error:
            messages.append(str(error))
    assert len(messages) > 100
    assert all(re.fullmatch(rf"{re.escape(str(path))}: .+", message) for message in messages)

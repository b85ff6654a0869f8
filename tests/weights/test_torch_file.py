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
"""

import argparse
import copyreg
import io
import os
import pickle
import re
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import jax.numpy as jnp
import numpy as np
import pytest

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
    assert list(tensors) == list(expected)
    for key, array in expected.items():
        assert tensors[key].dtype == array.dtype
        np.testing.assert_array_equal(tensors[key], array)
    assert tensors["rows"].base is tensors["columns"].base


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


@SAVERS
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"epoch": 3, "state_dict": state, "optimizer": {"lr": [0.1, None, (1,)]}},
        lambda state: {"model": state, "best": 0.5},
        lambda state: {"state_dict": {"x": tensor(np.zeros(1))}, "state_dict_ema": state},
        lambda state: {f"module.{k}": v for k, v in state.items()},
        lambda state: {f"module._orig_mod.{k}": v for k, v in state.items()},
        lambda state: {
            "model": {},
            "model_ema": {"n_averaged": tensor(np.array(3), "LongStorage")}
            | {f"module.{k}": v for k, v in state.items()},
        },
    ],
    ids=["plain", "state_dict", "model", "ema", "module", "compiled", "averaged"],
)
def test_the_state_dict_is_found(save: Save, wrap: Callable[[dict], dict], tmp_path: Path) -> None:
    state = OrderedDict({"a.weight": tensor(np.arange(3)), "b.weight": tensor(np.arange(4))})
    state._metadata = OrderedDict({"": {"version": 2}})  # As in modules of PyTorch.
    tensors = read_torch(save(tmp_path / "file", wrap(state)))
    assert {name: array.tolist() for name, array in tensors.items()} == {
        "a.weight": [0, 1, 2],
        "b.weight": [0, 1, 2, 3],
    }


def test_a_prefix_of_some_names_stays(tmp_path: Path) -> None:
    state = {"module.x": tensor(np.zeros(1)), "y": tensor(np.zeros(1))}
    assert list(read_torch(save_zip(tmp_path / "file", state))) == ["module.x", "y"]


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
def test_what_training_scripts_keep_beside_the_weights_is_dropped(
    value: bytes, tmp_path: Path
) -> None:
    members = {
        "data.pkl": beside_a_state_dict(value),
        "data/0": np.arange(3, dtype="<f4").tobytes(),
    }
    tensors = read_torch(save_zip(tmp_path / "file", {}, **members))
    assert list(tensors) == ["x"]
    np.testing.assert_array_equal(tensors["x"], [0, 1, 2])


def test_the_size_of_a_tensor_may_be_one_of_torch(tmp_path: Path) -> None:
    payload = beside_a_state_dict(b"N")
    sized = payload.replace(b"K\x03\x85K\x01", b"ctorch\nSize\nK\x03\x85\x85RK\x01")
    assert sized != payload
    members = {"data.pkl": sized, "data/0": np.arange(3, dtype="<f4").tobytes()}
    np.testing.assert_array_equal(
        read_torch(save_zip(tmp_path / "file", {}, **members))["x"], [0, 1, 2]
    )


@SAVERS
def test_the_checkpoint_of_a_training_script_is_read(save: Save, tmp_path: Path) -> None:
    args = argparse.Namespace(model="resnet18", lr=0.1, milestones=[30, 60], resume=None)
    content = {"model": {"x": tensor(np.arange(3))}, "epoch": 89, "args": args}
    np.testing.assert_array_equal(read_torch(save(tmp_path / "file", content))["x"], [0, 1, 2])
    with pytest.raises(ValueError, match="it is not a state dict: 'model' is not a tensor"):
        read_torch(save(tmp_path / "other", {"model": args}))
    with pytest.raises(ValueError, match="it holds a Namespace, not a state dict"):
        read_torch(save(tmp_path / "other", args))


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
def test_code_in_a_pickle_is_refused_and_does_not_run(
    save: Save, attack: str, tmp_path: Path
) -> None:
    marker = tmp_path / "marker"
    hostile = ATTACKS[attack](marker)
    payload = pickle.dumps(hostile, protocol=2)
    pickle.loads(payload)
    assert marker.exists(), "this attack does nothing"
    marker.rmdir() if marker.is_dir() else marker.unlink()
    name = attack.replace("builtins", "__builtin__")  # This is its name in protocol 2.
    with pytest.raises(ValueError, match=rf"file: its pickle asks for {name}, which does not"):
        read_torch(save(tmp_path / "file", hostile))
    assert not marker.exists()


@pytest.mark.parametrize(
    "payload",
    [
        # A dotted name asks for an attribute of an admitted global.
        b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.fromkeys\x93.",
        b"\x80\x02ctorch\nload\n.",
        b"\x80\x02ctorch.storage\n_load_from_bytes\n.",
        # These globals are in the same modules as admitted ones.
        b"\x80\x02cargparse\nArgumentParser\n.",
        b"\x80\x02cargparse\n_sys\n.",
        b"\x80\x02ctorch\nTensor\n.",
        b"\x80\x04\x8c\x08argparse\x8c\x12Namespace.__init__\x93.",
        b"\x80\x04\x8c\x05torch\x8c\x0cSize.__new__\x93.",
        beside_a_state_dict(NAMESPACE + b"}" + text("x") + b"cposix\nsystem\nsb"),
        beside_a_state_dict(b"cargparse\nNamespace\ncposix\nsystem\n\x85R"),
        # The opcode (i)nst asks for a global in protocol 0.
        b"(S'true'\nios\nsystem\n.",
    ],
)
def test_other_ways_to_a_global_are_refused(payload: bytes, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="its pickle asks for"):
        read_torch(save_zip(tmp_path / "file", {}, **{"data.pkl": payload}))


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
        ([1, 2], "it holds a list, not a state dict"),
        ({"epoch": 3, "x": tensor(np.zeros(1))}, "it is not a state dict: 'epoch' is not a tensor"),
        ({"epoch": 3, "net": {}}, "it is not a state dict: 'epoch', 'net' are not tensors"),
    ],
)
def test_what_is_no_state_dict_is_refused(
    save: Save, content: object, problem: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=f"file: {problem}"):
        read_torch(save(tmp_path / "file", content))


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

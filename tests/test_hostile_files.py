"""Files that were made to harm: each of these once ended in more than a refusal of one line."""

import gzip
import io
import json
import struct
import subprocess
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from etils import epath
from PIL import EpsImagePlugin, Image

from resnet_jax import create_model
from resnet_jax.commands.main import main, refuse
from resnet_jax.config import ConfigError
from resnet_jax.data.dataset import DataError
from resnet_jax.data.idx import read_idx
from resnet_jax.data.images import jpeg, optional
from resnet_jax.data.images.decode import DecodeError, TooLargeError, decode
from resnet_jax.data.images.jpeg import read_header
from resnet_jax.data.images.tfds import open_builder
from resnet_jax.inference.calibration import CALIBRATION_FILE, read_calibration
from resnet_jax.inference.hub_layouts.repository import read_description
from resnet_jax.inference.rundir import _spec, read_config
from resnet_jax.inference.spec import ModelSpec
from resnet_jax.report import find_runs
from resnet_jax.weights.formats.files import read_tensors
from tests.fuzzing import _PROCESSOR, _SPEC, _TRANSFORMERS
from tests.weights.test_torch_file import beside_a_state_dict, save_legacy, save_zip, tensor, text

DEEP = "[" * 100_000


def encoded(pixels: np.ndarray, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)


# --- Images


def test_no_program_of_an_image_is_run(noise: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*command: Any, **options: Any) -> None:
        pytest.fail(f"{command} {options} was started")

    # Pillow gives EPS files to Ghostscript if it is installed.
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", "gs")
    for name in ("check_call", "Popen", "run"):
        monkeypatch.setattr(subprocess, name, run)
    with pytest.raises(DecodeError, match="cannot identify image file"):
        decode(encoded(noise, "EPS"))


def test_an_icon_cannot_hide_an_image_that_is_too_large(noise: np.ndarray) -> None:
    icon = encoded(noise, "ICO", sizes=[(64, 64)])
    # The directory of the icon says 16x16, and the image in it has 64x64.
    with pytest.raises(DecodeError):
        decode(icon[:6] + b"\x10\x10" + icon[8:], max_pixels=1000)


def test_a_tile_cannot_be_larger_than_the_limit() -> None:
    side = 16 * 1024
    tags = {256: 16, 257: 16, 258: 8, 259: 8, 262: 1, 277: 1, 322: side, 323: side}
    data = zlib.compress(bytes(100))
    tags |= {324: 8, 325: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    tiff = (
        b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries
        + bytes(4)
    )  # fmt: skip
    with pytest.raises(TooLargeError, match=r"^16,384 x 16,384 pixels are more than the limit"):
        decode(tiff, max_pixels=1000)


@pytest.mark.parametrize("with_simplejpeg", [True, False])
def test_a_jpeg_cannot_hide_its_size_from_the_limit(
    noise: np.ndarray, with_simplejpeg: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = optional.simplejpeg()
    if not with_simplejpeg:
        monkeypatch.setattr(jpeg, "simplejpeg", lambda: None)
    large = encoded(noise, "JPEG")
    small = (
        b"\xff\xc0\x00\x0b\x08\x00\x08\x00\x08\x01\x01\x11\x00" + b"\xff\xda\x00\x08\x01" + bytes(9)
    )
    # Decoders skip the marker FF01 alone. Read with a length, it leads to the small frame, which is
    # in a comment for decoders.
    first = b"\xff\xfe\xff\xff" + bytes(65530) + b"\xff\xe0\x00"
    second = b"\xff\xfe" + struct.pack(">H", 2 + 500) + (bytes(250) + small).ljust(500, b"\0")
    hostile = b"\xff\xd8\xff\x01" + first + second + large[2:]
    header = read_header(hostile)
    assert header is not None
    assert (header.height, header.width) == (8, 8)
    assert library.decode_jpeg(hostile).shape == (64, 64, 3)
    with pytest.raises(DecodeError, match="no whole image"):
        decode(hostile, max_pixels=100)


# --- Weights


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": [], "shape": [2], "data_offsets": [0, 8]},
        {"dtype": {}, "shape": [2], "data_offsets": [0, 8]},
        {"dtype": "\n", "shape": [2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [0, 2**70], "data_offsets": [0, 0]},
        {"dtype": "F32", "shape": [0, 2**62, 2**62], "data_offsets": [0, 0]},
        {"dtype": "F32", "shape": [1] * 65, "data_offsets": [0, 4]},
        # The product of these numbers takes hours.
        {"dtype": "F32", "shape": [9**20] * 400_000, "data_offsets": [0, 8]},
    ],
)
def test_a_header_of_safetensors_with_impossible_values(
    entry: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "weights"
    header = json.dumps({"x": entry}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(entry["data_offsets"][1]))
    with pytest.raises(ValueError, match=r"weights: truncated or damaged \([^\n]*\); fetch it"):
        read_tensors(path)


@pytest.mark.parametrize("name", ["model.safetensors.index.json", "a\n", "\x1b[2J", "../x"])
def test_an_index_that_names_itself_or_no_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": {"x": name}}))
    with pytest.raises(ValueError, match="must name files beside it that are no indices"):
        read_tensors(path)


def test_an_archive_that_unpacks_to_a_thousand_times_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resnet_jax.weights.formats.files._ALWAYS_UNPACKED", 100_000)
    path = tmp_path / "weights.npz"
    np.savez_compressed(path, x=np.zeros(100_000))
    assert path.stat().st_size < 8000
    with pytest.raises(
        ValueError, match="the archive unpacks to 800,128 bytes, more than 100 times"
    ):
        read_tensors(path)
    np.savez(path, x=np.zeros(100_000))
    assert read_tensors(path)["x"].shape == (100_000,)


# The tuple (((...),),) as the key of a dictionary, whose hash Python computes by recursion.
NESTED = b"}" + b")" + b"\x85" * 500_000 + b"Ns"
# The same with a different object at each level, and its parts in the memo.
MEMOIZED = b"}" + b")q\0" + b"".join(b"0h\0" + b"K\1\x86q\0" for _ in range(100_000)) + b"Ns"


@pytest.mark.parametrize("value", [NESTED, MEMOIZED])
def test_a_pickle_cannot_overflow_the_stack(value: bytes, tmp_path: Path) -> None:
    pickled = beside_a_state_dict(value)
    path = save_zip(tmp_path / "zip", {}, **{"data.pkl": pickled, "data/0": bytes(12)})
    message = "truncated or damaged .*nests objects more than 1,000 levels deep"
    with pytest.raises(ValueError, match=message):
        read_tensors(path)
    path = save_legacy(tmp_path / "legacy", {"x": tensor(np.zeros(3))})
    intact = path.read_bytes()
    # The pickle of the weights comes after those of the magic number, the version and the system.
    at = intact.index(b"\x80\x02", intact.index(b"type_sizes"))
    path.write_bytes(intact[:at] + pickled + intact[intact.index(b".", at) + 1 :])
    with pytest.raises(ValueError, match=message):
        read_tensors(path)


def test_many_tensors_in_a_pickle_are_not_deep(tmp_path: Path) -> None:
    state = {f"layer{i}.weight": tensor(np.full(1, i)) for i in range(700)}
    for save in (save_zip, save_legacy):
        tensors = read_tensors(save(tmp_path / save.__name__, {"state_dict": state}))
        assert tensors["state_dict.layer699.weight"] == [699]
    # One opcode for each item, as in protocol 0.
    items = b"".join(text(f"x{i}") + b"K\1s" for i in range(3000))
    members = {"data.pkl": beside_a_state_dict(b"}" + items), "data/0": bytes(12)}
    assert list(read_tensors(save_zip(tmp_path / "items", {}, **members))) == ["model.x"]


# --- Data


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (bytes([0, 0, 8, 200]) + bytes(800), "is not an IDX file"),
        (bytes([0, 0, 8, 3]) + b"\0\0\0\0" + b"\xff" * 8, "has impossible dimensions"),
        (bytes([0, 0, 8, 4]) + b"\xff" * 12 + b"\0\0\0\0", "has impossible dimensions"),
        (bytes([0, 0, 8, 2]) + b"\xff" * 8, "is truncated or damaged"),
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_an_idx_file_with_impossible_sizes(
    header: bytes, message: str, compressed: bool, tmp_path: Path
) -> None:
    path = tmp_path / "images"
    path.write_bytes(gzip.compress(header) if compressed else header)
    with pytest.raises(DataError, match=message):
        read_idx(path)


def test_an_idx_file_is_unpacked_only_as_far_as_its_header_says(tmp_path: Path) -> None:
    path = tmp_path / "images"
    content = bytes([0, 0, 8, 1]) + struct.pack(">I", 4) + bytes(1000)
    path.write_bytes(gzip.compress(content))
    with pytest.raises(DataError, match=r"12 bytes were expected for .*, but there are 13 or more"):
        read_idx(path)


def test_features_of_other_packages_are_not_imported(tmp_path: Path) -> None:
    (tmp_path / "dataset_info.json").write_text("{}")
    for name in ("pythonClassName", "python_class_name", "type"):
        features = {"featuresDict": {"features": {"image": {name: "antigravity.Image"}}}}
        (tmp_path / "features.json").write_text(json.dumps(features))
        with pytest.raises(
            DataError, match=r"'antigravity.Image' is not one of tensorflow_datasets"
        ):
            open_builder(epath.Path(tmp_path), None)


# --- Descriptions


def test_json_that_is_nested_too_deeply(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    file = tmp_path / "config.json"
    file.write_text(DEEP)
    with pytest.raises(ConfigError, match=r"config.json is damaged"):
        read_config(tmp_path)
    assert "damaged or half-written" in find_runs(tmp_path).others[tmp_path.name]
    with pytest.raises(ValueError, match="its configuration cannot be read"):
        read_description("hf://a/b", file, None)
    (tmp_path / "model.json").write_text(DEEP)
    with pytest.raises(ValueError, match=r"model.json is damaged"):
        _spec(tmp_path, tmp_path / "checkpoints" / "1", {})
    (tmp_path / CALIBRATION_FILE).write_text(DEEP)
    with pytest.raises(ValueError, match=r"calibration.json: .*; remove it"):
        read_calibration(tmp_path, {"params": {"head": {}}})


@pytest.mark.parametrize(
    "changes",
    [
        {"crop_size": 0},
        {"crop_size": 10**30},
        {"size": {"shortest_edge": float("inf")}},
        {"rescale_factor": 0},
        {"resample": 99},
        {"image_std": ["\n"]},
    ],
)
def test_an_impossible_preprocessing(changes: dict[str, Any], tmp_path: Path) -> None:
    config, processor = tmp_path / "config.json", tmp_path / "preprocessor_config.json"
    config.write_text(json.dumps(_TRANSFORMERS))
    processor.write_text(json.dumps(_PROCESSOR | changes))
    with pytest.raises(ValueError, match=r"^hf://a/b: [^\n]+$"):
        read_description("hf://a/b", config, processor)


@pytest.mark.parametrize(
    "changes",
    [
        {"fields": 3},
        {"class_names": 5},
        {"class_names": [1, 2, 3]},
        {"preprocessing": []},
        {"preprocessing": {"image_size": "large"}},
        {"name": None},
    ],
)
def test_a_model_of_wrong_types(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        ModelSpec.from_json(_SPEC.to_json() | changes)


def test_a_network_of_a_billion_blocks() -> None:
    with pytest.raises(ValueError, match="at most 10,000 blocks"):
        create_model("resnet18", stage_sizes=(1, 10**9, 1, 1))


def test_no_file_writes_to_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"schema_version": 3, "model": {"\x1b[2J\n": 1}, "data": {}}))
    with pytest.raises(SystemExit) as ended:
        main(["train", "--config", str(file)])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.isprintable()
    with pytest.raises(SystemExit):
        refuse("a\nb\x1b\ud800")
    assert capsys.readouterr().err == "error: a\\nb\\x1b\\ud800\n"

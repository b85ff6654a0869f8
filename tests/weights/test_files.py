"""Weight files of every format are recognized by their content, and other files are refused."""

import bz2
import gzip
import json
import lzma
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors

from resnet_jax.weights.formats.files import read_tensors

DATA = Path(__file__).parent / "data"
TENSORS = {
    "weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "half": np.array([1.5, -2.25], np.float16),
    "count": np.array(7),
}


def write_safetensors(path: Path) -> None:
    safetensors.save_file(TENSORS, path)


def write_npz(path: Path) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, **TENSORS)


WRITERS = pytest.mark.parametrize("write", [write_safetensors, write_npz])
Write = Callable[[Path], None]


@WRITERS
def test_formats_are_told_by_content(write: Write, tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    write(path)
    tensors = read_tensors(path)
    assert tensors.keys() == TENSORS.keys()
    assert {name: array.dtype for name, array in tensors.items()} == {
        "weight": np.float32,
        "half": np.float32,
        "count": np.int64,
    }
    for name, array in TENSORS.items():
        np.testing.assert_array_equal(tensors[name], array)


@pytest.mark.parametrize("name", ["zip.pth", "legacy.pth"])
def test_files_of_pytorch_are_told_by_content(name: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.npz"
    path.write_bytes((DATA / name).read_bytes())
    tensors = read_tensors(path)
    assert len(tensors) == 5
    np.testing.assert_array_equal(tensors["state_dict.module.columns"], [[6, 9], [7, 10], [8, 11]])


def test_bfloat16_of_safetensors_comes_as_float32(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    safetensors.save_file({"x": np.array([[1.5], [-(2.0**100)]], jnp.bfloat16)}, path)
    assert b'"BF16"' in path.read_bytes()
    x = read_tensors(path)["x"]
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x, np.array([[1.5], [-(2.0**100)]], np.float32))


def test_safetensors_of_other_types_are_named(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    text = json.dumps({"x": F32 | {"dtype": "F4"}})
    path.write_bytes(len(text).to_bytes(8, "little") + text.encode() + bytes(8))
    with pytest.raises(
        ValueError,
        match=r"weights\.safetensors: .x. has type F4, which is not supported; convert it",
    ):
        read_tensors(path)


def test_reading_safetensors_needs_no_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "weights.safetensors"
    write_safetensors(path)
    monkeypatch.setitem(sys.modules, "safetensors", None)
    assert read_tensors(path).keys() == TENSORS.keys()


F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("header", "data"),
    [
        ({"x": 3}, 0),
        ({"x": F32 | {"shape": 2}}, 8),
        ({"x": F32 | {"shape": [3]}}, 8),
        ({"x": F32 | {"shape": [-1, -2]}}, 8),
        ({"x": F32 | {"shape": [2.0]}}, 8),
        ({"x": F32 | {"data_offsets": [0, 4, 8]}}, 8),
        ({"x": F32 | {"data_offsets": [4, 12]}}, 12),
        ({"x": F32, "y": F32}, 16),
        ({"x": F32}, 4),
        ({"x": F32}, 12),
        ({"x": {"dtype": "F32", "shape": [2]}}, 8),
    ],
)
def test_headers_of_safetensors_that_do_not_fit_the_data_are_refused(
    header: object, data: int, tmp_path: Path
) -> None:
    path = tmp_path / "weights"
    text = json.dumps(header)
    path.write_bytes(len(text).to_bytes(8, "little") + text.encode() + bytes(data))
    with pytest.raises(ValueError, match=r"weights: truncated or damaged \(.*\); fetch it again"):
        read_tensors(path)


def test_tensors_of_safetensors_come_from_their_offsets(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    header = json.dumps(
        {
            "__metadata__": {"format": "pt"},
            "last": F32 | {"data_offsets": [8, 16]},
            "empty": F32 | {"shape": [0, 3], "data_offsets": [8, 8]},
            "first": F32,
        }
    )
    data = np.arange(4, dtype=np.float32).tobytes()
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + data)
    tensors = read_tensors(path)
    np.testing.assert_array_equal(tensors["first"], [0, 1])
    np.testing.assert_array_equal(tensors["last"], [2, 3])
    assert tensors["empty"].shape == (0, 3)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"absent\.pth: there is no such file"):
        read_tensors(tmp_path / "absent.pth")
    with pytest.raises(ValueError, match="there is no such file"):
        read_tensors(tmp_path)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "the file is empty"),
        (b"<!DOCTYPE html><html>Not found</html>", "it is an HTML page, not weights"),
        (b"\xef\xbb\xbf\n <html lang='caf\xc3\xa9'>" + bytes([0xC3]), "it is an HTML page"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied", "it is XML, such as an error .*Denied"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:"
            + b"0" * 64
            + b"\nsize 102502400\n",
            "it is a Git LFS pointer to a file of 102502400 bytes, not the file itself",
        ),
        (b"../.git/annex/objects/Xq/0k/SHA256E-s9--0.pth", "it is a git-annex pointer"),
        (b'{"error": "Repository not found"}', "it is JSON, .*Repository not found"),
        (b"Entry not found", "it is text, such as .*: 'Entry not found'"),
        (b"12345678{ is no header of safetensors", "it is text"),
        (b"12345678\xff" * 9, "unknown format"),
        (gzip.compress(b"x", mtime=0), "it is compressed by gzip"),
        (bz2.compress(b"x"), "it is compressed by bzip2"),
        (lzma.compress(b"x"), "it is compressed by xz"),
        (b"\x28\xb5\x2f\xfd\x00", "it is compressed by Zstandard"),
        (b"resnet.pth".ljust(257, b"\x00") + b"ustar\x00", "it is a tar archive"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "it is an HDF5 file"),
        (b"\x93NUMPY\x01\x00", "it is a single array of NumPy"),
        (b"\x80\x04N.", "it is a pickle that torch.save did not write"),
        (bytes(1000), "it begins with zeros, as an unfinished download does"),
        (b"PK\x03\x04" + bytes(100), "the archive is truncated or damaged"),
    ],
)
def test_what_is_no_weight_file_is_refused(content: bytes, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"weights: {problem}.*; [a-z]"):
        read_tensors(path)


def test_other_archives_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "")
    with pytest.raises(ValueError, match=r"the archive is neither of torch\.save nor an \.npz"):
        read_tensors(path)


def test_an_archive_around_the_weights_is_named(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "")
        archive.writestr("best/resnet18.pth", "")
    with pytest.raises(ValueError, match=r"unpack it and give 'best/resnet18\.pth'$"):
        read_tensors(path)


def test_files_without_tensors_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    safetensors.save_file({}, path)
    with pytest.raises(ValueError, match="the file contains no tensors"):
        read_tensors(path)


def test_pickles_in_npz_are_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "weights.npz"
    np.savez(path, x=np.array([{}], object))
    with pytest.raises(ValueError, match="it contains other objects than plain arrays"):
        read_tensors(path)


@pytest.mark.parametrize("source", ["zip.pth", "legacy.pth", write_safetensors, write_npz])
def test_every_truncation_is_noticed(source: str | Write, tmp_path: Path) -> None:
    path = tmp_path / "weights"
    if isinstance(source, str):
        path.write_bytes((DATA / source).read_bytes())
    else:
        source(path)
    content = path.read_bytes()
    for length in {*range(0, len(content), 7), len(content) - 1}:
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"weights: .*; \w+"):
            read_tensors(path)

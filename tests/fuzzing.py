"""Hostile and damaged files for every loader, and what a loader may do with them.

A loader may return what it read, or raise one of its documented errors with a message of one line
that a terminal can show.  Files come from a grammar of the format, in which most numbers are right
and some are not, or from an intact file of which some bytes were changed.
"""

import binascii
import dataclasses
import functools
import gzip
import io
import json
import struct
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from google_crc32c import value as crc32c
from hypothesis import strategies as st
from PIL import Image

from resnet_jax.config import ConfigError, load_experiment
from resnet_jax.data.dataset import DataError
from resnet_jax.data.idx import read_idx
from resnet_jax.data.images.decode import decode
from resnet_jax.data.images.source import UnreadableError
from resnet_jax.data.images.tfrecord import TFRecords
from resnet_jax.data.preprocessing import Preprocessing
from resnet_jax.inference.calibration import Calibration, read_calibration
from resnet_jax.inference.hub_layouts.ours import our_fields
from resnet_jax.inference.hub_layouts.repository import read_description
from resnet_jax.inference.rundir import read_config
from resnet_jax.inference.spec import ModelSpec
from resnet_jax.weights.formats.checkpoints import read_msgpack
from resnet_jax.weights.formats.files import read_tensors

DATA = Path(__file__).parent / "weights" / "data"
MAX_PIXELS = 1_000_000
"""Largest number of pixels of an image here."""
MAX_SECONDS = 10.0
"""Longest time that a loader may take for a file of a few kilobytes."""


@dataclasses.dataclass(frozen=True)
class Loader:
    """Something that reads files.

    Attributes:
        read: Reads a file. The result does not matter.
        files: Generates the content of files.
        errors: What it may raise.
        name: Name of the file, for loaders that look at it.
    """

    read: Callable[[Path], Any]
    files: st.SearchStrategy[bytes]
    errors: tuple[type[Exception], ...] = (ValueError,)
    name: str = "file"


class BrokenError(AssertionError):
    """Raised if a loader does something else with a file than to read or refuse it."""


def check(loader: Loader, content: bytes, directory: Path) -> bool:
    """Give a file to a loader, and return whether it was refused.

    Raises:
        BrokenError: The loader takes too long, or raises another error than it may.
    """
    path = directory / loader.name
    path.write_bytes(content)
    started = time.perf_counter()
    try:
        loader.read(path)
        refused = False
    except loader.errors as error:
        refused = True
        message = str(error)
        if not message.isprintable():
            raise BrokenError(f"the message is not one line of text: {message!r}") from error
    except (Exception, RecursionError, MemoryError) as error:
        raise BrokenError(f"{type(error).__name__}: {error}") from error
    if (seconds := time.perf_counter() - started) > MAX_SECONDS:
        raise BrokenError(f"{seconds:.1f} s for {len(content)} bytes")
    return refused


# Numbers at which code fails.
_NUMBERS = st.one_of(
    st.integers(-2, 9),
    st.sampled_from([16, 64, 255, 256, 1000, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1]),
    st.sampled_from([2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**70, 10**30, -(2**63)]),
)
_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    _NUMBERS,
    st.sampled_from([0.5, -0.0, 1e-320, 1e308, float("inf"), float("-inf"), float("nan")]),
    st.text(max_size=6),
    st.sampled_from(["", "a\nb", "\ud800", "relu", "float32", "resnet50", "../x", "x" * 300]),
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=6), inner, max_size=4)
    ),
    max_leaves=8,
)
_DEEP = st.sampled_from(
    [b"[" * 100_000, b'{"a":' * 100_000, b"9" * 5000, b"\xff\xfe", b"", b"null"]
)


@st.composite
def damaged(draw: st.DrawFn, intact: st.SearchStrategy[bytes]) -> bytes:
    """Generate a file of which some bytes were changed, inserted, removed or repeated."""
    content = bytearray(draw(intact))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(content)))
        kind = draw(
            st.sampled_from(["change", "bit", "insert", "remove", "cut", "repeat", "number"])
        )
        if kind == "insert":
            content[at:at] = draw(st.binary(min_size=1, max_size=9))
        elif kind == "remove":
            del content[at : at + draw(st.integers(1, 40))]
        elif kind == "cut":
            del content[at:]
        elif kind == "repeat":
            end = at + draw(st.integers(1, 40))
            content[at:at] = content[at:end] * draw(st.integers(1, 3))
        elif kind == "number":
            size = draw(st.sampled_from([1, 2, 4, 8]))
            number = draw(_NUMBERS) % 256**size
            order = draw(st.sampled_from(["little", "big"]))
            content[at : at + size] = number.to_bytes(size, order)
        elif at < len(content):
            content[at] = (
                draw(st.integers(0, 255)) if kind == "change" else content[at] ^ 1 << (at % 8)
            )
    return bytes(content)


@st.composite
def edited_json(draw: st.DrawFn, intact: st.SearchStrategy[Any]) -> bytes:
    """Generate a JSON document with other values, keys or types in some places."""
    tree = json.loads(json.dumps(draw(intact)))
    for _ in range(draw(st.integers(1, 3))):
        place, key = _somewhere(draw, tree)
        if place is None:
            break
        action = draw(st.sampled_from(["replace", "replace", "remove", "add"]))
        if action == "replace":
            place[key] = draw(_VALUES)
        elif action == "remove":
            del place[key]
        elif isinstance(place, dict):
            place[draw(st.text(max_size=6))] = draw(_VALUES)
        else:
            place.append(draw(_VALUES))
    return json.dumps(tree).encode()


def _somewhere(draw: st.DrawFn, tree: Any) -> tuple[Any, Any]:
    """Return a container within a tree and one of its keys."""
    places = []

    def visit(value: Any) -> None:
        keys = list(value) if isinstance(value, dict) else range(len(value))
        for key in keys:
            places.append((value, key))
            if isinstance(value[key], dict | list):
                visit(value[key])

    visit(tree)
    return draw(st.sampled_from(places)) if places else (None, None)


def _json_files(*documents: Any) -> st.SearchStrategy[bytes]:
    intact = st.sampled_from(documents)
    return st.one_of(
        edited_json(intact),
        edited_json(intact),
        damaged(intact.map(lambda document: json.dumps(document).encode())),
        _VALUES.map(lambda value: json.dumps(value).encode()),
        _DEEP,
    )


# --- Weights


@st.composite
def _safetensors(draw: st.DrawFn) -> bytes:
    names = ["F32", "F16", "BF16", "I64", "BOOL", "U8", "F8_E5M2", "C64"]
    sizes = dict(zip(names, (4, 2, 2, 8, 1, 1, 1, 8), strict=True))
    header: dict[str, Any] = {}
    position = 0
    for _ in range(draw(st.integers(0, 4))):
        dtype = draw(st.sampled_from(names))
        shape = draw(st.lists(st.integers(0, 5), max_size=4))
        size = int(np.prod(shape, dtype=np.int64)) * sizes[dtype]
        entry = {"dtype": dtype, "shape": shape, "data_offsets": [position, position + size]}
        header[draw(st.text(max_size=8))] = entry
        position += size
    text = (
        draw(edited_json(st.just(header))) if draw(st.booleans()) else json.dumps(header).encode()
    )
    length = draw(_NUMBERS) % 2**64 if draw(st.integers(0, 9)) == 0 else len(text)
    return length.to_bytes(8, "little") + text + bytes(min(position, 4096))


def _text(value: str) -> bytes:
    encoded = value.encode("utf-8", "surrogatepass")
    return b"X" + len(encoded).to_bytes(4, "little") + encoded


_GLOBALS = [
    "collections\nOrderedDict",
    "torch\nFloatStorage",
    "torch\nSize",
    "torch\nTensor",
    "torch._utils\n_rebuild_tensor_v2",
    "torch._utils\n_rebuild_tensor_v3",
    "torch._utils\n_rebuild_parameter",
    "torch._utils\n_rebuild_qtensor",
    "torch._tensor\n_rebuild_from_type_v2",
    "torch.nn.parameter\nParameter",
    "__torch__\nModule",
    "os\nsystem",
    "builtins\neval",
    "builtins\ngetattr",
    "numpy.core.multiarray\n_reconstruct",
]
# Pieces of a pickle, each a few opcodes. In any order they make a program that often runs.
_PIECES = st.one_of(
    st.sampled_from(_GLOBALS).map(lambda name: b"c" + name.encode() + b"\n"),
    st.sampled_from(["storage", "0", "cpu", "x", "module.weight", "", "\ud800"]).map(_text),
    st.integers(0, 255).map(lambda number: b"K" + bytes([number])),
    _NUMBERS.map(lambda number: b"\x8a\x10" + (number % 2**126).to_bytes(16, "little")),
    st.integers(0, 5).map(lambda index: b"q" + bytes([index])),
    st.integers(0, 5).map(lambda index: b"h" + bytes([index])),
    st.sampled_from(
        [
            *(b"(", b")", b"}", b"]", b"N", b"\x88", b"t", b"\x85", b"\x86", b"\x87", b"R", b"Q"),
            *(
                b"s",
                b"u",
                b"a",
                b"e",
                b"d",
                b"l",
                b"0",
                b"1",
                b"2",
                b"\x81",
                b"\x90",
                b"\x8f",
                b"b",
            ),
            *(b"\x92", b"\x93", b"\x94", b"\x91", b"i", b"o", b"G" + bytes(8)),
            *(b"B\4\0\0\0abcd", b"L9L\n"),
        ]
    ),
    # A storage, a tensor and a dictionary item, so that programs get somewhere.
    st.just(
        b"(" + _text("storage") + b"ctorch\nFloatStorage\n" + _text("0") + _text("cpu") + b"K\3tQ"
    ),
    st.just(b"ctorch._utils\n_rebuild_tensor_v2\n"),
    st.just(b"K\0K\3\x85K\1\x85\x89}tR"),
    st.just(_text("x")),
)


@st.composite
def _pickled(draw: st.DrawFn) -> bytes:
    program = b"\x80\x02}" + b"".join(draw(st.lists(_PIECES, max_size=24))) + b"."
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        if draw(st.booleans()):
            archive.writestr("archive/data/0", bytes(draw(st.sampled_from([12, 0, 3, 4096]))))
    return file.getvalue()


def _legacy(program: bytes) -> bytes:
    """Return a file of PyTorch before 1.6 whose second pickle is a program."""
    import pickle

    system = {"protocol_version": 1001, "little_endian": True}
    heads = [pickle.dumps(head, 2) for head in (0x1950A86A20F9469CFC6C, 1001, system)]
    return (
        b"".join(heads) + program + pickle.dumps(["0"], 2) + (3).to_bytes(8, "little") + bytes(12)
    )


_LEGACY = st.lists(_PIECES, max_size=24).map(
    lambda pieces: _legacy(b"\x80\x02}" + b"".join(pieces) + b".")
)
_TORCH_FILES = st.sampled_from(["zip.pth", "legacy.pth", "script.pt"]).map(
    lambda name: (DATA / name).read_bytes()
)


@functools.cache
def _npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, weight=np.arange(6.0).reshape(2, 3), count=np.array(7))
    return file.getvalue()


@st.composite
def _npy_in_zip(draw: st.DrawFn) -> bytes:
    header = {
        "descr": draw(
            st.sampled_from(["<f4", "<f8", "|O", "|V9", "<U4", "<i8", "|S0", "x", ["a"]])
        ),
        "fortran_order": draw(st.one_of(st.booleans(), _SCALARS)),
        "shape": tuple(draw(st.lists(_NUMBERS, max_size=4))),
    }
    text = repr(header).encode("utf-8", "backslashreplace").ljust(118) + b"\n"
    npy = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(24)
    file = io.BytesIO()
    compression = draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("x.npy", npy)
    return file.getvalue()


@functools.cache
def _msgpack() -> bytes:
    from flax.serialization import msgpack_serialize

    return msgpack_serialize(
        {"step": 3, "params": {"head": {"kernel": np.ones((2, 3), np.float32), "bias": np.ones(3)}}}
    )


# --- Data


@st.composite
def _tfrecord(draw: st.DrawFn) -> bytes:
    parts = []
    for _ in range(draw(st.integers(0, 4))):
        data = draw(st.binary(max_size=20))
        number = draw(st.one_of(st.just(len(data)), st.just(len(data)), _NUMBERS)) % 2**64
        length = struct.pack("<Q", number)
        parts += [length, _masked(length), data, _masked(data)]
    return b"".join(parts)


def _masked(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _read_tfrecords(path: Path) -> None:
    cache = path.parent / "index"
    for file in cache.glob("*"):
        file.unlink()
    for strict in (True, False):
        records = TFRecords([(path, 0, 2)], cache, strict=strict)
        for index in range(len(records)):
            records[index]


@st.composite
def _idx(draw: st.DrawFn) -> bytes:
    code = draw(st.sampled_from([0x08, 0x08, 0x09, 0x0B, 0x0C, 0x0D, 0x0E, 0x0A, 0]))
    if draw(st.booleans()):
        shape = draw(st.lists(st.integers(0, 4), min_size=1, max_size=3))
    else:
        shape = [number % 2**32 for number in draw(st.lists(_NUMBERS, max_size=80))]
    size = int(np.prod(shape, dtype=object)) if shape else 1
    data = bytes(min(size, 4096) * {0x0B: 2, 0x0C: 4, 0x0D: 4, 0x0E: 8}.get(code, 1))
    content = bytes([0, 0, code, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + data
    return gzip.compress(content, mtime=0) if draw(st.booleans()) else content


# --- Images


@functools.cache
def _images() -> tuple[bytes, ...]:
    noise = np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)
    found = []
    for kind, mode, options in (
        ("JPEG", "RGB", {}),
        ("JPEG", "L", {"progressive": True}),
        ("JPEG", "CMYK", {}),
        ("PNG", "RGB", {}),
        ("PNG", "P", {}),
        ("GIF", "P", {}),
        ("BMP", "RGB", {}),
        ("TIFF", "RGB", {"compression": "tiff_deflate"}),
        ("TIFF", "RGB", {}),
        ("WEBP", "RGB", {"lossless": True}),
        ("JPEG2000", "RGB", {}),
        ("PPM", "RGB", {}),
        ("ICO", "RGB", {}),
        ("EPS", "RGB", {}),
    ):
        buffer = io.BytesIO()
        Image.fromarray(noise).convert(mode).save(buffer, kind, **options)
        found.append(buffer.getvalue())
    return tuple(found)


@st.composite
def _png(draw: st.DrawFn) -> bytes:
    width, height = (draw(_NUMBERS) % 2**32 for _ in range(2))
    depth, color, interlace = (
        draw(st.sampled_from(row)) for row in ((1, 8, 16), (0, 2, 3, 6), (0, 1))
    )
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlace))]
    for _ in range(draw(st.integers(0, 4))):
        name = draw(
            st.sampled_from([b"PLTE", b"tRNS", b"zTXt", b"iCCP", b"acTL", b"fcTL", b"eXIf"])
        )
        packed = zlib.compress(draw(st.binary(max_size=20)))
        chunks.append((name, draw(st.one_of(st.binary(max_size=30), st.just(b"a\0\0" + packed)))))
    chunks += [
        (b"IDAT", zlib.compress(bytes(draw(st.sampled_from([0, 100, 100_000]))))),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", binascii.crc32(name + data))
        for name, data in chunks
    )


@st.composite
def _jpeg(draw: st.DrawFn) -> bytes:
    """Generate segments in any order. Those of an intact file make that it is often decoded."""
    intact = _images()[draw(st.integers(0, 2))]
    segments = _segments(intact)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(segments) - 1))
        kind = draw(st.sampled_from(["marker", "size", "segment", "swap"]))
        if kind == "marker":
            segments.insert(at, b"\xff" + bytes([draw(st.integers(0, 255))]))
        elif kind == "size":
            height, width = (draw(_NUMBERS) % 2**16 for _ in range(2))
            code = draw(st.sampled_from([0xC0, 0xC1, 0xC2, 0xC3, 0xC9]))
            colors = draw(st.sampled_from([1, 3, 4]))
            body = (
                struct.pack(">BHHB", 8, height, width, colors)
                + b"\1\x11\0\2\x11\1\3\x11\1"[: 3 * colors]
            )
            segments.insert(at, b"\xff" + bytes([code]) + struct.pack(">H", len(body) + 2) + body)
        elif kind == "segment":
            body = draw(st.binary(max_size=30))
            length = draw(st.one_of(st.just(len(body) + 2), _NUMBERS)) % 2**16
            code = draw(st.sampled_from([0xC4, 0xDB, 0xDD, 0xDA, 0xE1, 0xEE, 0xFE]))
            segments.insert(at, b"\xff" + bytes([code]) + struct.pack(">H", length) + body)
        else:
            other = draw(st.integers(0, len(segments) - 1))
            segments[at], segments[other] = segments[other], segments[at]
    return b"\xff\xd8" + b"".join(segments)


def _segments(data: bytes) -> list[bytes]:
    """Return the segments of a JPEG file after its first marker; the last one has the pixels."""
    found, at = [], 2
    while data[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        found.append(data[at:end])
        at = end
    return [*found, data[at:]]


@st.composite
def _tiff(draw: st.DrawFn) -> bytes:
    tags = {
        256: 16,
        257: 16,
        258: 8,
        259: draw(st.sampled_from([1, 5, 7, 8, 32773])),
        262: 1,
        277: 1,
    }
    tags |= (
        {322: 16, 323: 16, 324: 8, 325: 64} if draw(st.booleans()) else {273: 8, 278: 16, 279: 256}
    )
    for _ in range(draw(st.integers(1, 3))):
        tags[draw(st.sampled_from([*tags, 274, 266, 284, 317, 339, 34665]))] = (
            draw(_NUMBERS) % 2**32
        )
    entries = b"".join(
        struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items())
    )
    data = zlib.compress(bytes(256)).ljust(256, b"\0")
    return (
        b"II*\0"
        + struct.pack("<I", 8 + len(data))
        + data
        + struct.pack("<H", len(tags))
        + entries
        + bytes(4)
    )


@st.composite
def _sized(draw: st.DrawFn) -> bytes:
    """Generate beginnings of files that announce a size: GIF, BMP, WebP and PPM."""
    width, height = (draw(_NUMBERS) for _ in range(2))
    rest = draw(st.binary(max_size=60))
    small = struct.pack("<HH", width % 2**16, height % 2**16)
    large = struct.pack("<ii", width % 2**31, (height % 2**32) - 2**31)
    webp = b"VP8X\n\0\0\0\0\0\0\0" + (width % 2**24).to_bytes(3, "little") * 2 + rest
    return draw(
        st.sampled_from(
            [
                b"GIF89a" + small + b"\x80\0\0" + bytes(6) + b"," + bytes(4) + small + b"\0" + rest,
                b"BM"
                + bytes(8)
                + b"\x36\0\0\0\x28\0\0\0"
                + large
                + b"\1\0\x18\0"
                + bytes(24)
                + rest,
                b"RIFF" + struct.pack("<I", len(webp) + 4) + b"WEBP" + webp,
                f"P6 {width} {height} 255\n".encode() + rest,
            ]
        )
    )


def _read_image(path: Path) -> None:
    content = path.read_bytes()
    pixels = decode(content, max_pixels=MAX_PIXELS)
    if pixels.shape[0] * pixels.shape[1] > MAX_PIXELS:
        raise BrokenError(f"{pixels.shape} is more than the limit")
    decode(content, max_pixels=MAX_PIXELS, shrink=2, rows=4, rough=True)


# --- Descriptions

_SPEC = ModelSpec(
    name="resnet18",
    fields={"dtype": "float32", "in_channels": 3, "stage_sizes": [1, 1, 1, 1], "width": 8},
    num_classes=3,
    class_names=("cat", "dog", "fox"),
    preprocessing=Preprocessing(32, 0.875, "pil_bilinear", (0.5,), (0.25,), 3),
    library_version="0.1.0",
)
_TIMM = {
    "architecture": "resnet18",
    "num_classes": 3,
    "label_names": ["cat", "dog", "fox"],
    "model_args": {"in_chans": 3},
    "pretrained_cfg": {
        "input_size": [3, 32, 32],
        "interpolation": "bilinear",
        "crop_pct": 0.875,
        "crop_mode": "center",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
    },
}
_TRANSFORMERS = {
    "model_type": "resnet",
    "layer_type": "basic",
    "embedding_size": 8,
    "depths": [1, 1, 1, 1],
    "hidden_sizes": [8, 16, 32, 64],
    "id2label": {"0": "cat", "1": "dog"},
}
_PROCESSOR = {"size": {"shortest_edge": 32}, "crop_size": 32, "do_center_crop": True, "resample": 3}


def _read_spec(path: Path) -> None:
    ModelSpec.from_json(json.loads(path.read_text("utf-8"))).create()


def _read_model_file(path: Path) -> None:
    """Read ``model.json`` as the loader of runs does."""
    from resnet_jax.inference.rundir import _spec

    try:
        _spec(path.parent, path.parent / "checkpoints" / "1", {}).create()
    except TypeError as error:  # `Classifier.load` refuses these networks.
        raise ValueError(str(error)) from None


def _read_hub_config(path: Path) -> None:
    read_description("hf://user/name", path, None)


def _read_processor(path: Path) -> None:
    config = path.parent / "config_of_transformers.json"
    config.write_text(json.dumps(_TRANSFORMERS))
    read_description("hf://user/name", config, path)


def _read_run_config(path: Path) -> None:
    (path.parent / "checkpoints").mkdir(exist_ok=True)
    read_config(path.parent)


def _read_calibration(path: Path) -> None:
    (path.parent / "checkpoints").mkdir(exist_ok=True)
    (path.parent / "config.json").touch()
    with warnings.catch_warnings():
        # One of other weights is not used.
        warnings.simplefilter("ignore")
        read_calibration(path.parent, {"params": {"head": {"bias": np.zeros(3, np.float32)}}})


_DATA_ERRORS = (DataError, UnreadableError)

LOADERS: dict[str, Loader] = {
    "safetensors": Loader(read_tensors, st.one_of(_safetensors(), damaged(_safetensors()))),
    "torch pickle": Loader(
        read_tensors, st.one_of(_pickled(), _LEGACY, damaged(_TORCH_FILES), damaged(_pickled()))
    ),
    "npz": Loader(read_tensors, st.one_of(_npy_in_zip(), damaged(st.builds(_npz)))),
    "index of shards": Loader(
        read_tensors,
        _json_files({"weight_map": {"x": "a.safetensors", "y": "model.safetensors.index.json"}}),
        name="model.safetensors.index.json",
    ),
    "msgpack": Loader(read_msgpack, damaged(st.builds(_msgpack))),
    "TFRecord": Loader(
        _read_tfrecords, st.one_of(_tfrecord(), damaged(_tfrecord())), errors=_DATA_ERRORS
    ),
    "IDX": Loader(read_idx, st.one_of(_idx(), damaged(_idx())), errors=_DATA_ERRORS),
    "PNG": Loader(_read_image, st.one_of(_png(), damaged(_png()))),
    "JPEG": Loader(_read_image, st.one_of(_jpeg(), damaged(_jpeg()))),
    "TIFF": Loader(_read_image, st.one_of(_tiff(), damaged(_tiff()))),
    "other images": Loader(
        _read_image, st.one_of(_sized(), damaged(st.builds(_images).flatmap(st.sampled_from)))
    ),
    "config.json of a run": Loader(
        _read_run_config,
        _json_files(
            load_experiment("digits-resnet20").config.to_json(),
            load_experiment("imagenet-resnet50").config.to_json(),
        ),
        errors=(ConfigError,),
        name="config.json",
    ),
    "model.json": Loader(_read_model_file, _json_files(_SPEC.to_json()), name="model.json"),
    "config.json of a repository": Loader(
        _read_hub_config,
        _json_files(_TIMM, _TRANSFORMERS, {**_TIMM, **our_fields(_SPEC, Calibration())}),
    ),
    "preprocessor_config.json": Loader(_read_processor, _json_files(_PROCESSOR)),
    "calibration.json": Loader(
        _read_calibration, _json_files(Calibration(2.0).to_json()), name="calibration.json"
    ),
}
"""Everything that reads files, by the name of the format."""

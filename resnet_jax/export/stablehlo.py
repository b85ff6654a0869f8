"""StableHLO: a network and its weights in one file, which JAX runs without Flax or this library.

The file is an ``.npz`` archive of NumPy arrays: the weights, each under its path such as
``params/stem/conv/kernel``; ``program``, the bytes of `jax.export`; and ``metadata``, JSON in
UTF-8. The weights are arguments of the program, so that they can be read without it. Every process
that has JAX has NumPy, which reads the file without pickle, and the archive has a checksum of each
array. safetensors would need one more package and has no checksums.

Reading the file executes nothing. Calling the program executes what it contains, which is why
`load` refuses programs with custom calls other than the ones that `write_stablehlo` can produce.

This module imports neither Flax nor the rest of this library.
"""

import dataclasses
import functools
import json
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.export
import numpy as np

from resnet_jax.export.files import replacing

if TYPE_CHECKING:
    from resnet_jax.export.program import Program

PLATFORMS = ("cpu", "cuda", "tpu")
"""Platforms that an export is made for by default."""

_KNOWN = (*PLATFORMS, "rocm")
_PROGRAM, _METADATA = "program", "metadata"
# Checks of symbolic sizes. Other targets could call any function that is registered in jaxlib.
_CUSTOM_CALLS = {"shape_assertion"}
_REMEDY = "export the network again with `resnet-jax export RUN --format stablehlo --output FILE`"

Dimension = int | Literal["dynamic"]
"""A number, or any number at each call."""


class ExportError(ValueError):
    """Raised for a file that is not a usable export. The message names the file and the remedy."""


def write_stablehlo(
    program: "Program",
    path: Path,
    *,
    metadata: dict[str, Any],
    batch: Dimension = "dynamic",
    any_size: bool = False,
    platforms: Sequence[str] = PLATFORMS,
) -> dict[str, Any]:
    """Write a program and its variables to a file, completely or not at all.

    Args:
        program: The program, built with ``by_platform=True``, so that each platform gets its own
            formulation, whichever machine traces it.
        path: The file, by convention ``*.stablehlo``. A file that exists is replaced.
        metadata: What `resnet_jax.export.program.describe` returns.
        batch: Number of images.
        any_size: Whether each call may have images of another height and width. Every platform then
            gets XLA's own convolutions and pooling, because those for CPUs depend on the size.
        platforms: Platforms on which the file can be used, of cpu, cuda, rocm and tpu.

    Returns:
        The metadata of the file: what was given, and in ``program`` the format, the shape of the
        images, the platforms, whether BatchNorm is folded, and the type of the kernels.

    Raises:
        ValueError: A platform is unknown, or the network cannot be traced for images of any size.
        ImportError: flatbuffers is not installed.
    """
    import flatbuffers  # noqa: F401  JAX needs it to serialize, and does not install it.
    from flax.traverse_util import flatten_dict, unflatten_dict

    from resnet_jax.export.program import abstract_images

    if unknown := [name for name in platforms if name not in _KNOWN]:
        raise ValueError(f"unknown platform {unknown[0]!r}: choose from {', '.join(_KNOWN)}")
    images = abstract_images(program, batch=batch, any_size=any_size)
    weights: dict[str, Any] = flatten_dict(program.variables, sep="/")
    abstract = {
        name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in weights.items()
    }

    def run(weights: dict[str, jax.Array], images: jax.Array) -> jax.Array:
        return program.function(unflatten_dict(weights, sep="/"), images)

    try:
        exported = jax.export.export(jax.jit(run), platforms=tuple(platforms))(abstract, images)
    except (TypeError, ValueError) as error:
        # JAX's errors on symbolic sizes are of both kinds, and so are ours.
        if not any_size:
            raise
        raise ValueError(
            "this network cannot be exported for images of any size "
            f"({_first_line(error)}); export it for one size"
        ) from error
    content = metadata | {
        "program": {
            "format": "stablehlo",
            "image_shape": [
                size if isinstance(size, int) else "dynamic" for size in images.shape[1:]
            ],
            "batch": batch,
            "platforms": list(platforms),
            "folded": program.folded,
            "kernels": "int8" if any(a.dtype == np.int8 for a in weights.values()) else "float32",
        }
    }
    arrays: dict[str, Any] = {
        _METADATA: np.frombuffer(json.dumps(content).encode(), np.uint8),
        _PROGRAM: np.frombuffer(bytes(exported.serialize()), np.uint8),
        **weights,
    }
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)
    return content


@dataclasses.dataclass(frozen=True, eq=False)
class StableHLO:
    """An export that has been loaded. Call it with images.

    Attributes:
        path: The file.
        metadata: What travels with it, see `write_stablehlo`.
        exported: The program of `jax.export`.
        weights: Its weights, by path, on the default device.
    """

    path: Path
    metadata: dict[str, Any]
    exported: jax.export.Exported
    weights: dict[str, jax.Array]

    @property
    def class_names(self) -> tuple[str, ...]:
        """K names, in the order of the outputs."""
        return tuple(self.metadata["class_names"])

    @functools.cached_property
    def _call(self) -> Any:
        return jax.jit(self.exported.call)

    def __call__(self, images: np.ndarray | jax.Array) -> jax.Array:
        """Return the probabilities or logits, float32[B, K].

        The first call for each shape compiles the program.

        Args:
            images: uint8 or float32[B, H, W, C], as the metadata say.

        Raises:
            ValueError: The images have another shape or type, or the program was exported for
                other platforms.
        """
        expected = self.exported.in_avals[-1]
        if images.dtype != expected.dtype or not _fits(images.shape, expected.shape):
            raise ValueError(
                f"{self.path} takes {expected.dtype}{_shown(expected.shape)}, but the images are "
                f"{images.dtype}{_shown(images.shape)}"
            )
        platform = jax.export.default_export_platform()
        if platform not in self.exported.platforms:
            raise ValueError(
                f"{self.path} was exported for {', '.join(self.exported.platforms)}, and this "
                f"machine has {platform}; export it again with --platforms {platform}"
            )
        return self._call(self.weights, images)


def load(path: str | Path) -> StableHLO:
    """Load an export. Nothing in the file is executed before the result is called.

    Args:
        path: A file that `write_stablehlo` wrote.

    Raises:
        FileNotFoundError: There is no such file.
        ExportError: The file is damaged, no such export, too old for this version of JAX, or
            contains calls that no export of this library has.
        ImportError: flatbuffers is not installed.
    """
    import flatbuffers  # noqa: F401  JAX needs it, and does not install it.

    path = Path(path).expanduser()
    metadata, arrays = _read(path)
    program = arrays.pop(_PROGRAM)
    try:
        exported = jax.export.deserialize(bytearray(program.tobytes()))
        module = exported.mlir_module()
    except Exception as error:  # flatbuffers and MLIR raise many kinds of errors.
        versions, date = metadata.get("versions", {}), str(metadata.get("date"))[:10]
        raise ExportError(
            f"{path} was exported on {date} with jax {versions.get('jax')}, and jax "
            f"{jax.__version__} cannot read it ({_first_line(error)}); JAX reads exports for six "
            f"months; {_REMEDY}"
        ) from error
    # Both of MLIR's notations of an operation.
    calls = re.findall(r"custom_call\s*@\s*\"?([\w.$-]+)|call_target_name\s*=\s*\"(.*?)\"", module)
    if foreign := {name for pair in calls for name in pair if name} - _CUSTOM_CALLS:
        raise ExportError(
            f"{path} calls {', '.join(sorted(foreign))} outside of StableHLO, which no export of "
            f"resnet_jax does, and is not loaded; {_REMEDY}"
        )
    return StableHLO(path, metadata, exported, jax.device_put(arrays))


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Return the metadata of an export without reading its weights.

    Raises:
        FileNotFoundError: There is no such file.
        ExportError: The file is damaged or no such export.
    """
    return _read(Path(path).expanduser(), only_metadata=True)[0]


def _read(
    path: Path, *, only_metadata: bool = False
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file; check the path")
    try:
        with zipfile.ZipFile(path) as archive:
            members = {member.filename: member for member in archive.infolist()}
            if not {f"{_METADATA}.npy", f"{_PROGRAM}.npy"} <= members.keys():
                raise ExportError(f"{path} is no StableHLO export of resnet_jax; {_REMEDY}")
            wanted = [members[f"{_METADATA}.npy"]] if only_metadata else list(members.values())
            arrays = {
                member.filename.removesuffix(".npy"): _read_array(archive, member)
                for member in wanted
            }
        metadata = json.loads(arrays.pop(_METADATA).tobytes())
        if not isinstance(metadata, dict):
            raise ValueError("its metadata are no object")
    except ExportError:
        raise
    except (EOFError, KeyError, NotImplementedError, OSError, RecursionError) as error:
        raise _damaged(path, error) from error
    except (SyntaxError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise _damaged(path, error) from error
    return metadata, arrays


def _read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """Return an array, after checking that the file has as many bytes as its header announces.

    NumPy would first allocate what the header announces.

    Raises:
        ValueError: The sizes differ, the member is compressed, or the array has Python objects.
    """
    if member.compress_type != zipfile.ZIP_STORED or member.file_size > member.compress_size:
        raise ValueError(f"{member.filename} is compressed")
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version != (1, 0):
            raise ValueError(f"{member.filename} has an unknown format")
        shape, transposed, dtype = np.lib.format.read_array_header_1_0(file)
        count = int(np.prod(shape, dtype=object)) if shape else 1
        content = file.read()
    if dtype.hasobject or count * dtype.itemsize != len(content):
        raise ValueError(f"{member.filename} is not what its header announces")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if transposed else "C")


def _damaged(path: Path, error: Exception) -> ExportError:
    cause = _first_line(error)
    return ExportError(f"{path} is damaged, or no StableHLO export ({cause}); {_REMEDY}")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:160]


def _fits(shape: Sequence[int], expected: Sequence[Any]) -> bool:
    return len(shape) == len(expected) and all(
        jax.export.is_symbolic_dim(wanted) or size == wanted
        for size, wanted in zip(shape, expected, strict=True)
    )


def _shown(shape: Sequence[Any]) -> str:
    return f"[{', '.join(map(str, shape))}]"

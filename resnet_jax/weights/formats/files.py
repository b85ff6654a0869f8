"""Detection of the format of a weight file."""

import zipfile
from pathlib import Path

import numpy as np

from resnet_jax.weights.formats.diagnosis import HEAD, diagnosis
from resnet_jax.weights.formats.dtypes import widened
from resnet_jax.weights.formats.int8 import dequantized_tensors
from resnet_jax.weights.formats.safetensors import is_safetensors, read_safetensors
from resnet_jax.weights.formats.shards import is_index, read_index
from resnet_jax.weights.formats.torch_file import LEGACY_MAGIC, is_torch_zip, read_torch

# Weights hardly compress, but a small archive of zeros unpacks to a thousand times its size. Up to
# a quarter of a gigabyte is read in any case.
_MOST_EXPANDED, _ALWAYS_UNPACKED = 100, 2**28


def read_tensors(path: str | Path) -> dict[str, np.ndarray]:
    """Read all tensors of a weight file, whose format is detected from its first bytes.

    Args:
        path: A ``.safetensors`` file; a ``.pth``, ``.pt`` or ``.bin`` file of ``torch.save`` (see
            `read_torch`); an ``.npz`` file; or an ``.index.json`` of several files beside it.  Only
            this last suffix matters.

    Returns:
        The names in the file, mapped to arrays.  float16 and bfloat16 become float32, and so does
        int8 with scales, see `resnet_jax.weights.formats.int8`; other dtypes are unchanged.

    Raises:
        ValueError: The file does not exist, is empty, truncated or damaged, or has another format.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file; check the path")
    if is_index(path.name):
        return _read_shards(path)
    with path.open("rb") as file:
        head = file.read(HEAD)
    if not head:
        raise ValueError(f"{path}: the file is empty; fetch it again")
    if head.startswith(b"PK\x03\x04"):
        tensors = _read_archive(path)
    elif head.startswith(b"\x80") and LEGACY_MAGIC in head[:32]:
        tensors = read_torch(path)
    elif is_safetensors(head):
        tensors = _read_safetensors(path)
    else:
        raise ValueError(f"{path}: {diagnosis(head)}")
    if not tensors:
        raise ValueError(f"{path}: the file contains no tensors; save model.state_dict()")
    return tensors


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        return dequantized_tensors(read_safetensors(path))
    except ValueError as error:
        message = str(error)
        raise ValueError(message if str(path) in message else f"{path}: {message}") from error


def _read_shards(path: Path) -> dict[str, np.ndarray]:
    files = read_index(path)
    tensors: dict[str, np.ndarray] = {}
    for file in dict.fromkeys(files.values()):
        tensors |= read_tensors(path.parent / file)
    if absent := [name for name in files if name not in tensors]:
        raise ValueError(
            f"{path.parent / files[absent[0]]}: it lacks {absent[0]!r}, which {path.name} "
            "announces; fetch both again"
        )
    return tensors


def _read_archive(path: Path) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
            size = sum(info.file_size for info in archive.infolist())
    except Exception as error:  # Raised by zipfile, or by decoding the names of the members.
        raise ValueError(f"{path}: the archive is truncated or damaged; fetch it again") from error
    if is_torch_zip(members):
        return read_torch(path)
    if not all(member.endswith(".npy") for member in members):
        inside = [
            name for name in members if name.endswith((".safetensors", ".pth", ".pt", ".bin"))
        ]
        raise ValueError(
            f"{path}: the archive is neither of torch.save nor an .npz; "
            + (f"unpack it and give {inside[0]!r}" if inside else "save model.state_dict()")
        )
    if size > max(_ALWAYS_UNPACKED, _MOST_EXPANDED * path.stat().st_size):
        raise ValueError(
            f"{path}: the archive unpacks to {size:,} bytes, more than {_MOST_EXPANDED} times its "
            "size, and could fill the memory; write it with np.savez, without compression"
        )
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: widened(array) for name, array in arrays.items()}
    except Exception as error:  # Raised by zipfile, zlib or NumPy, whichever notices first.
        cause = " ".join(f"{type(error).__name__}: {error}".split())[:80]
        raise ValueError(
            f"{path}: damaged, or it contains other objects than plain arrays ({cause}); write it "
            "again"
        ) from error

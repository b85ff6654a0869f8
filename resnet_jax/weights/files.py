"""Weight files of every format that residual networks are published in."""

import zipfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from resnet_jax.weights.torch_pickle import LEGACY_MAGIC, is_torch_zip, read_torch, widened

_SAFETENSORS_DTYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(jnp.bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}

# Bytes; the format allows no longer one.
_SAFETENSORS_HEADER = 100_000_000


def read_tensors(path: str | Path) -> dict[str, np.ndarray]:
    """Reads the tensors in a weight file, whose format its first bytes tell.

    Args:
        path: ``.safetensors``; ``.pth``, ``.pt`` or ``.bin`` of `torch.save`, see `read_torch`; or
            ``.npz``.

    Returns:
        Names, as in the file, to arrays; float16 and bfloat16 come as float32, every other dtype
        as it is.

    Raises:
        ValueError: there is no such file, or it is empty, truncated, damaged or of another format.
        ImportError: it is a ``.safetensors`` file and safetensors is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file; check the path")
    size = path.stat().st_size
    if size == 0:
        raise ValueError(f"{path}: the file is empty; fetch it again")
    with path.open("rb") as file:
        head = file.read(32)
    if head.startswith(b"PK\x03\x04"):
        tensors = _read_archive(path)
    elif head.startswith(b"\x80") and LEGACY_MAGIC in head:
        tensors = read_torch(path)
    elif head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _SAFETENSORS_HEADER:
        tensors = _read_safetensors(path)
    else:
        raise ValueError(
            f"{path}: unknown format; give a .safetensors file, a file of torch.save, or a .npz"
        )
    if not tensors:
        raise ValueError(f"{path}: there are no tensors in it; save model.state_dict()")
    return tensors


def _read_archive(path: Path) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
    except Exception as error:  # Of zipfile, or of the text that names its members.
        raise ValueError(f"{path}: the archive is truncated or damaged; fetch it again") from error
    if is_torch_zip(members):
        return read_torch(path)
    if not all(member.endswith(".npy") for member in members):
        raise ValueError(
            f"{path}: the archive is neither of torch.save nor a .npz; save model.state_dict()"
        )
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: widened(array) for name, array in arrays.items()}
    except Exception as error:  # Of zipfile, zlib or NumPy, whichever stumbles first.
        cause = " ".join(f"{type(error).__name__}: {error}".split())[:80]
        raise ValueError(
            f"{path}: damaged, or not made of plain arrays ({cause}); write it again"
        ) from error


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        import safetensors
    except ImportError:
        raise ImportError(
            f"{path} needs the package safetensors: pip install 'resnet_jax[weights]'"
        ) from None
    try:
        # Not `safetensors.numpy.load`, which knows no bfloat16.
        entries = safetensors.deserialize(path.read_bytes())
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path}: truncated or damaged ({error}); fetch it again") from error
    tensors = {}
    for name, entry in entries:
        if entry["dtype"] not in _SAFETENSORS_DTYPES:
            raise ValueError(
                f"{path}: {name!r} has type {entry['dtype']}; convert it to float32 first"
            )
        flat = np.frombuffer(entry["data"], _SAFETENSORS_DTYPES[entry["dtype"]])
        tensors[name] = widened(flat.reshape(entry["shape"]))
    return tensors

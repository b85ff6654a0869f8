"""Weight files of every format that residual networks are published in."""

import zipfile
from pathlib import Path

import numpy as np

from resnet_jax.weights.formats.safetensors import is_safetensors, read_safetensors
from resnet_jax.weights.formats.torch_pickle import LEGACY_MAGIC, is_torch_zip, read_torch, widened


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
    elif is_safetensors(head):
        tensors = read_safetensors(path)
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

"""Explanations of files that are not weights: what they are, and what to do about them."""

import codecs
import re

HEAD = 512
"""Number of bytes at the beginning of a file that `diagnosis` looks at."""

_LFS_POINTER = re.compile(rb"version https://git-lfs\.github\.com/spec/.*?size (?P<size>\d+)", re.S)
_SIGNATURES = (
    (0, b"\x1f\x8b", "it is compressed by gzip; unpack it with gunzip, and give the result"),
    (0, b"BZh", "it is compressed by bzip2; unpack it with bunzip2, and give the result"),
    (0, b"\xfd7zXZ\x00", "it is compressed by xz; unpack it with unxz, and give the result"),
    (0, b"\x28\xb5\x2f\xfd", "it is compressed by Zstandard; unpack it with unzstd"),
    (0, b"7z\xbc\xaf\x27\x1c", "it is a 7z archive; unpack it, and give the weight file in it"),
    (0, b"Rar!\x1a\x07", "it is a RAR archive; unpack it, and give the weight file in it"),
    (257, b"ustar", "it is a tar archive; unpack it with tar -xf, and give the weight file in it"),
    (0, b"\x89HDF\r\n", "it is an HDF5 file, as of Keras; save names and arrays with np.savez"),
    (0, b"\x93NUMPY", "it is a single array of NumPy; save names and arrays with np.savez"),
    (0, b"\x80", "it is a pickle that torch.save did not write; save its arrays with np.savez"),
)
_ACCEPTED = "give a .safetensors file, a file of torch.save, or an .npz file"


def diagnosis(head: bytes) -> str:
    """Return what a file is that has none of the formats of weights, and what to do.

    Args:
        head: The first `HEAD` bytes of the file, or all of it if it is shorter.
    """
    for start, signature, explanation in _SIGNATURES:
        if head[start:].startswith(signature):
            return explanation
    if not head.strip(b"\x00"):
        return "it begins with zeros, as an unfinished download does; fetch it again"
    if pointer := _LFS_POINTER.match(head):
        return (
            f"it is a Git LFS pointer to a file of {int(pointer['size'])} bytes, not the file "
            "itself; run 'git lfs pull' in the clone, or download the file"
        )
    text = _text(head)
    if text is None:
        return f"unknown format; {_ACCEPTED}"
    lower = text.lower()
    if lower.startswith(("<?xml", "<error")):
        return f"it is XML, such as an error message of a server: {_quoted(text)}; fetch it again"
    if lower.startswith("<"):
        return (
            "it is an HTML page, not weights; download the file itself, whose address often has "
            "'resolve' or 'raw' instead of 'blob', and sign in if the page asks for it"
        )
    if "/annex/objects/" in text:
        return "it is a git-annex pointer, not the file itself; run 'git annex get' in the clone"
    kind = "JSON" if text.startswith(("{", "[")) else "text"
    return (
        f"it is {kind}, such as a configuration or the error message of a server: {_quoted(text)}; "
        f"fetch it again, or {_ACCEPTED}"
    )


def _text(head: bytes) -> str | None:
    """Return the text that the bytes are, or None if they are something else."""
    try:
        # An incremental decoder accepts that the last character is cut.
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head).strip()
    except UnicodeDecodeError:
        return None
    return text if text and all(c.isprintable() or c.isspace() for c in text) else None


def _quoted(text: str) -> str:
    line = " ".join(text.split())
    return repr(line if len(line) <= 60 else f"{line[:57]}...")

"""Images and settings for which `preprocessing_values.npz` has the values of timm and torchvision.

`tests/data/regenerate_preprocessing.py` writes the file.
"""

import io
from typing import Any

import numpy as np
from PIL import Image

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# Heights and widths: common, square, odd, tiny, very tall and very wide.
SIZES = ((75, 100), (101, 67), (64, 64), (17, 31), (1, 1), (2, 3), (230, 20), (11, 150))

# Values for fields of timm's pretrained_cfg.
TIMM: tuple[dict[str, Any], ...] = tuple(
    {"input_size": (3, *size), "interpolation": interpolation, "crop_pct": crop, "crop_mode": mode}
    for size, interpolation, crop, mode in (
        ((16, 16), "bilinear", 0.875, "center"),
        ((16, 16), "bicubic", 0.95, "center"),
        ((15, 15), "bicubic", 1.0, "center"),
        ((12, 20), "bicubic", 0.9, "center"),
        ((16, 16), "bicubic", 0.875, "squash"),
        ((20, 12), "bilinear", 1.0, "squash"),
        ((16, 16), "bicubic", 0.95, "border"),
        ((15, 21), "bilinear", 0.875, "border"),
        ((16, 16), "lanczos", 0.9, "center"),
    )
)

# Arguments of torchvision's ImageClassification: the size of the crop and of the resized image.
TORCHVISION = ((14, 16, "bilinear"), (14, 15, "bilinear"), (16, 16, "bicubic"))

# Image files: Pillow's mode and the format.
FILES = (("L", "PNG"), ("RGBA", "PNG"), ("P", "PNG"), ("LA", "PNG"), ("1", "PNG"), ("CMYK", "TIFF"))


def pixels(height: int, width: int) -> np.ndarray:
    """Return a smooth image with edges, uint8[height, width, 3]."""
    y, x = np.mgrid[:height, :width] / 9
    waves = [np.sin(y * k + x * (3 - k)) + (np.floor(x + k) % 2) for k in (1, 2, 3)]
    return np.uint8(np.clip(np.stack(waves, axis=-1) * 80 + 90, 0, 255).round())


def image_file(mode: str, kind: str) -> bytes:
    """Return an image file of a mode of Pillow."""
    rgb = pixels(40, 50)
    if mode == "RGBA":
        image = Image.fromarray(np.dstack([rgb, rgb[..., 0]]))
    else:
        image = Image.fromarray(rgb).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()

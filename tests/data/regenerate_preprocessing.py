"""Rewrite `preprocessing_values.npz`: gray levels that timm and torchvision give to a network.

    python tests/data/regenerate_preprocessing.py

It needs timm and torchvision, in an environment of their own; `tests/golden/regenerate.py` says how
to make one.  The file was written with timm 1.0.31 and Pillow 13.
"""

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config
from torchvision.transforms import InterpolationMode
from torchvision.transforms._presets import ImageClassification

from tests.data.preprocessing_cases import (
    FILES,
    MEAN,
    SIZES,
    STD,
    TIMM,
    TORCHVISION,
    image_file,
    pixels,
)


def levels(tensor: torch.Tensor) -> np.ndarray:
    """Return the gray levels of a normalized image [C, H, W] as uint8[H, W, C]."""
    values = (tensor.numpy().astype(np.float64).transpose(1, 2, 0) * STD + MEAN) * 255
    rounded = values.round()
    np.testing.assert_allclose(values, rounded, atol=1e-3)
    return rounded.astype(np.uint8)


def main() -> None:
    """Write the values of every case."""
    images = [Image.fromarray(pixels(*size)) for size in SIZES]
    values = {}
    for i, facts in enumerate(TIMM):
        config = resolve_data_config(pretrained_cfg=facts | {"mean": MEAN, "std": STD})
        transform = create_transform(**config)
        for size, image in zip(SIZES, images, strict=True):
            values[f"timm/{i}/{size}"] = levels(transform(image))
    for i, (crop, resize, interpolation) in enumerate(TORCHVISION):
        mode = InterpolationMode(interpolation)
        preset = ImageClassification(crop_size=crop, resize_size=resize, interpolation=mode)
        for size, image in zip(SIZES, images, strict=True):
            values[f"torchvision/{i}/{size}"] = levels(preset(image))
    transform = create_transform(**resolve_data_config(pretrained_cfg=TIMM[1]))
    for mode, kind in FILES:
        # timm's ImageDataset opens a file in the same way.
        image = Image.open(io.BytesIO(image_file(mode, kind))).convert("RGB")
        values[f"file/{mode}"] = levels(transform(image))
    np.savez_compressed(Path(__file__).with_name("preprocessing_values.npz"), **values)


if __name__ == "__main__":
    main()

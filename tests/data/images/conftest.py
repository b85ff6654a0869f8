"""Real image files, made from photographs that scikit-learn ships."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images


@pytest.fixture(scope="session")
def photos() -> list[np.ndarray]:
    """Two photographs, uint8[427, 640, 3]."""
    return [np.asarray(image) for image in load_sample_images().images]


def jpeg(pixels: np.ndarray, **options: object) -> bytes:
    """Return an image as the bytes of a JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90, **options)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def folder(photos: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """23 training and 11 validation images of three classes, at several depths."""
    root = tmp_path_factory.mktemp("folder")
    rng = np.random.default_rng(0)
    for split, count in (("train", 23), ("val", 11)):
        for i in range(count):
            photo = photos[i % 2]
            top, left = rng.integers(0, 200, 2)
            height, width = rng.integers(60, 120, 2)
            part = photo[top : top + height, left : left + width]
            directory = root / split / ("cat", "dog", "eel")[i % 3] / ("deep" if i % 4 == 0 else "")
            directory.mkdir(parents=True, exist_ok=True)
            (directory / f"{i}.jpg").write_bytes(jpeg(part))
    return root

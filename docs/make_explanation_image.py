"""Make docs/images/explanation.jpg: heat of four classes on one picture.

    python docs/make_explanation_image.py

A ResNet-18 is trained for a few minutes on crops of four photographs of scikit-image, one class for
each. It then explains a picture of all four, so that it is known where the heat of a class belongs.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from skimage import data

from resnet_jax import Classifier
from resnet_jax.inference.explain import METHODS

PHOTOS = {
    "cat": data.chelsea,
    "coffee": data.coffee,
    "astronaut": data.astronaut,
    "rocket": data.rocket,
}
_SIDE = 256


def write_crops(directory: Path, *, train: int, val: int) -> None:
    """Write random square crops of each photograph, in one folder for each class."""
    rng = np.random.default_rng(0)
    for name, load in PHOTOS.items():
        photo = Image.fromarray(load())
        for split, count in (("train", train), ("val", val)):
            folder = directory / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                side = round(min(photo.size) * rng.uniform(0.4, 1))
                left, top = (round(rng.uniform(0, length - side)) for length in photo.size)
                crop = photo.crop((left, top, left + side, top + side))
                crop.resize((_SIDE, _SIDE)).save(folder / f"{i}.jpg", quality=95)


def collage() -> np.ndarray:
    """Return the middle of each photograph, in a square of two by two: uint8[H, W, 3]."""
    quarters = []
    for load in PHOTOS.values():
        photo = Image.fromarray(load())
        side = min(photo.size)
        left, top = ((length - side) // 2 for length in photo.size)
        crop = photo.crop((left, top, left + side, top + side))
        quarters.append(np.asarray(crop.resize((_SIDE, _SIDE))))
    return np.vstack([np.hstack(quarters[:2]), np.hstack(quarters[2:])])


def train(directory: Path) -> Classifier:
    """Train the network, and return it for pictures of twice the size."""
    write_crops(directory / "photos", train=80, val=16)
    options: dict[str, Any] = {
        "data.path": directory / "photos",
        "data.images.image-size": 112,
        "data.images.crop-scale": "0.4 1.0",
        "model.name": "resnet18",
        "optimizer.learning-rate": 0.02,
        "batch-size": 32,
        "epochs": 10,
        "workdir": directory / "run",
    }
    words = [word for name, value in options.items() for word in (f"--{name}", *str(value).split())]
    command = [sys.executable, "-m", "resnet_jax", "train", "folder-resnet50", *words]
    subprocess.run(command, check=True)
    return Classifier.from_pretrained(directory / "run", image_size=224)


def main() -> None:
    """Train, explain, print how much of the heat is where it belongs, and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(__file__).parent / "images" / "explanation.jpg",
        help="picture to write (default: %(default)s)",
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        classifier = train(Path(directory))
    picture = collage()
    figure, axes = plt.subplots(len(METHODS), len(PHOTOS), figsize=(10, 7.8))
    for method, row in zip(METHODS, axes, strict=True):
        for i, (name, axis) in enumerate(zip(PHOTOS, row, strict=True)):
            (explanation,) = classifier.explain(picture, name, method=method)
            heat = explanation.heat.reshape(2, 112, 2, 112).sum((1, 3))
            print(f"{method}, {name}: {100 * heat.flat[i] / heat.sum():.0f} % in its photograph")
            axis.imshow(explanation.overlay())
            axis.set(xticks=[], yticks=[])
            axis.set_xlabel(name)
        row[0].set_ylabel(method)
    figure.tight_layout()
    figure.savefig(arguments.output, dpi=110, pil_kwargs={"quality": 85})


if __name__ == "__main__":
    main()

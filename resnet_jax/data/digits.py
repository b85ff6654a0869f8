"""The handwritten digits of scikit-learn."""

from functools import partial
from importlib.util import find_spec
from pathlib import Path

import jax
import numpy as np

from resnet_jax.config import DigitsConfig
from resnet_jax.data.array_split import ArraySplit
from resnet_jax.data.augment import normalize, random_affine_resize
from resnet_jax.data.dataset import Dataset
from resnet_jax.data.preprocessing import Preprocessing
from resnet_jax.data.stratification import stratified_split

# Number of images in each of the splits that are held out.
_HELD_OUT = 360


def open_digits(config: DigitsConfig) -> Dataset:
    """Return 1,797 real images of 8x8 pixels, split by class into 1,437 and 360.

    The split is the same on every machine and for every ``TrainConfig.seed``, because it has a
    fixed seed of its own.  Mean and standard deviation are those of the training images.
    """
    images, labels = _read_digits()
    train, evaluation = stratified_split(labels, _HELD_OUT, seed=0)
    if config.evaluate_on == "validation":
        train, evaluation = (
            train[part] for part in stratified_split(labels[train], _HELD_OUT, seed=0)
        )
    mean, std = float(images[train].mean()) / 255, float(images[train].std()) / 255
    scale = partial(normalize, mean=mean, std=std)

    def augment(key: jax.Array, batch: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        moved = random_affine_resize(
            key,
            batch,
            config.image_size,
            max_rotation=config.max_rotation,
            max_scaling=config.max_scaling,
            max_shift=config.max_shift,
        )
        return scale(moved), labels

    return Dataset(
        name="scikit-learn digits",
        train=ArraySplit(images[train], labels[train]),
        evaluation=ArraySplit(images[evaluation], labels[evaluation]),
        evaluation_split=config.evaluate_on,
        class_names=tuple(map(str, range(10))),
        augment=augment,
        preprocessing=Preprocessing(
            image_size=images.shape[1],
            crop_fraction=1.0,
            interpolation="pil_bilinear",
            mean=(mean,),
            std=(std,),
            channels=1,
            upsample_size=config.image_size,
        ),
    )


def _read_digits() -> tuple[np.ndarray, np.ndarray]:
    """Return the images, uint8[1797, 8, 8, 1], and their labels, int32[1797].

    The file that `sklearn.datasets.load_digits` reads is read here without importing scikit-learn,
    see `resnet_jax.data.stratification`. Each row has the 64 gray levels, 0 to 16, and the label.

    Raises:
        ModuleNotFoundError: scikit-learn is not installed.
    """
    found = find_spec("sklearn")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("No module named 'sklearn'", name="sklearn")
    file = Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz"
    rows = np.loadtxt(file, delimiter=",")
    images = np.round(rows[:, :-1] * (255 / 16)).astype(np.uint8)
    return images.reshape(-1, 8, 8, 1), rows[:, -1].astype(np.int32)

"""The handwritten digits of scikit-learn."""

from functools import partial
from typing import Any

import jax
import numpy as np

from resnet_jax.config import DigitsConfig
from resnet_jax.data.array_split import ArraySplit
from resnet_jax.data.augment import normalize, random_affine_resize
from resnet_jax.data.dataset import Dataset
from resnet_jax.data.preprocessing import Preprocessing


def open_digits(config: DigitsConfig) -> Dataset:
    """Return 1,797 real images of 8x8 pixels, split by class into 1,437 and 360.

    The split is the same on every machine and for every ``TrainConfig.seed``, because it has a
    fixed seed of its own.  Mean and standard deviation are those of the training images.
    """
    # scikit-learn takes a second to import, and most importers of the library do not need it.
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits: Any = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = digits.target.astype(np.int32)

    def hold_out(indices: np.ndarray) -> list[np.ndarray]:
        return train_test_split(indices, test_size=360, stratify=labels[indices], random_state=0)

    train, evaluation = hold_out(np.arange(len(labels)))
    if config.evaluate_on == "validation":
        train, evaluation = hold_out(train)
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
        class_names=tuple(str(name) for name in digits.target_names),
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

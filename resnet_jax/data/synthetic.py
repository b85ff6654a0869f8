"""Random images and labels, to measure speed without a data set."""

from functools import partial

import jax
import numpy as np

from resnet_jax.config import SyntheticConfig
from resnet_jax.data.array_split import ArraySplit
from resnet_jax.data.augment import normalize
from resnet_jax.data.dataset import Dataset
from resnet_jax.data.preprocessing import Preprocessing

# Mean and standard deviation of uniform levels from 0 to 255, on a scale from 0 to 1.
_MEAN, _STD = 127.5 / 255, 73.9 / 255


def open_synthetic(config: SyntheticConfig) -> Dataset:
    """Return images of uniform noise with random labels, the same for the same configuration."""
    rng = np.random.default_rng(0)

    def split(num_examples: int) -> ArraySplit:
        shape = (num_examples, config.image_size, config.image_size, 3)
        return ArraySplit(
            rng.integers(0, 256, shape, np.uint8),
            rng.integers(0, config.num_classes, num_examples, np.int32),
        )

    scale = partial(normalize, mean=_MEAN, std=_STD)

    def augment(key: jax.Array, batch: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        del key
        return scale(batch), labels

    return Dataset(
        name="synthetic",
        train=split(config.train_examples),
        evaluation=split(config.test_examples),
        evaluation_split="test",
        class_names=tuple(str(i) for i in range(config.num_classes)),
        augment=augment,
        preprocessing=Preprocessing(
            image_size=config.image_size,
            crop_fraction=1.0,
            interpolation="pil_bilinear",
            mean=(_MEAN,),
            std=(_STD,),
            channels=3,
        ),
    )

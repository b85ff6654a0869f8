"""Data sets of images in files, as training sees them."""

from functools import partial
from pathlib import Path

import jax

from resnet_jax.config import FolderConfig, TfdsConfig
from resnet_jax.data.augment import augment_batch, normalize_batch
from resnet_jax.data.dataset import Dataset
from resnet_jax.data.images.folder import open_folder, open_manifest
from resnet_jax.data.images.loading import ImageSplit
from resnet_jax.data.images.source import ImageSource
from resnet_jax.data.images.tfds import TfdsSplit


def open_images(config: FolderConfig | TfdsConfig) -> Dataset:
    """The data set that a configuration describes.

    Raises:
        DataError: there are no such images.
    """
    train, evaluation, kind = open_sources(config)
    images = config.images

    def augment(key: jax.Array, batch: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        return augment_batch(batch, labels, images.augment, key, num_classes=len(train.class_names))

    return Dataset(
        name=config.path if isinstance(config, FolderConfig) else config.name or config.directory,
        train=ImageSplit(train, images),
        evaluation=ImageSplit(evaluation, images),
        evaluation_split="test" if kind == "test" else "validation",
        class_names=train.class_names,
        augment=augment,
        prepare=partial(normalize_batch, config=images.augment),
    )


def open_sources(config: FolderConfig | TfdsConfig) -> tuple[ImageSource, ImageSource, str]:
    """The splits to train and to evaluate on, and ``"validation"`` or ``"test"``.

    Raises:
        DataError: there are no such images.
    """
    if isinstance(config, TfdsConfig):
        split = partial(
            TfdsSplit,
            Path(config.directory).expanduser(),
            name=config.name,
            image_key=config.image_key,
            label_key=config.label_key,
        )
        kind = "test" if config.evaluation_split.startswith("test") else "validation"
        return split(config.train_split), split(config.evaluation_split), kind
    path = Path(config.path).expanduser()
    is_table = path.suffix in (".csv", ".jsonl")
    return (open_manifest if is_table else open_folder)(
        path, evaluation_share=config.evaluation_share, seed=config.split_seed
    )

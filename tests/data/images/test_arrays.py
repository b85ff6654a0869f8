"""Small images of one size, in memory."""

import io
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from resnet_jax.config import AugmentConfig, ConfigError, TfdsArraysConfig
from resnet_jax.data import ArraySplit, DataError, open_dataset

FEATURES = {
    "cifar_like": {"label": 10},
    "cifar_like100": {"coarse_label": 20, "label": 100},
    "mnist_like": {"label": 10},
}


def pictures(name: str, split: str, count: int) -> np.ndarray:
    """uint8[N, H, W, C] of noise."""
    shape = (28, 28, 1) if name == "mnist_like" else (32, 32, 3)
    rng = np.random.default_rng(len(split))
    return rng.integers(0, 256, (count, *shape), np.uint8)


def prepare(root: Path, name: str, file_format: str) -> Path:
    """A data set with the features of TensorFlow Datasets' own CIFAR-10, CIFAR-100 and MNIST."""
    shape = pictures(name, "train", 1).shape[1:]

    def examples(split: str, count: int) -> Any:
        for i, pixels in enumerate(pictures(name, split, count)):
            buffer = io.BytesIO()
            Image.fromarray(pixels.squeeze()).save(buffer, "PNG")
            buffer.seek(0)
            labels = {key: i % classes for key, classes in FEATURES[name].items()}
            yield i, {"image": buffer, "id": f"{split}_{i}", **labels}

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("3.0.2")

        def _info(self) -> tfds.core.DatasetInfo:
            labels = {
                key: tfds.features.ClassLabel(num_classes=n) for key, n in FEATURES[name].items()
            }
            image = tfds.features.Image(shape=shape)
            features = {"id": tfds.features.Text(), "image": image, **labels}
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, manager: Any) -> dict[str, Any]:  # noqa: ARG002
            return {"train": examples("train", 37), "test": examples("test", 11)}

        def _generate_examples(self) -> Any:
            raise NotImplementedError

    Builder.name = name
    builder = Builder(data_dir=root, file_format=file_format)
    builder.download_and_prepare(download_dir=root / "downloads")
    return root


@pytest.mark.parametrize(
    ("name", "file_format"),
    [("cifar_like", "array_record"), ("cifar_like100", "parquet"), ("mnist_like", "array_record")],
)
def test_images_keep_their_size_and_channels(tmp_path: Path, name: str, file_format: str) -> None:
    root = prepare(tmp_path, name, file_format)
    augment = AugmentConfig(crop_padding=4, mean=(0.5,), std=(0.25,))
    config = TfdsArraysConfig(str(root), name=name, evaluation_split="test", augment=augment)
    dataset = open_dataset(config)
    assert isinstance(dataset.train, ArraySplit)
    assert len(dataset.class_names) == FEATURES[name]["label"]
    assert dataset.evaluation_split == "test"
    for split, which in ((dataset.train, "train"), (dataset.evaluation, "test")):
        assert isinstance(split, ArraySplit)
        expected = pictures(name, which, len(split))
        order = [
            int(np.flatnonzero((expected == image).all((1, 2, 3)))[0]) for image in split.images
        ]
        assert sorted(order) == list(range(len(split)))
        np.testing.assert_array_equal(
            split.labels, np.asarray(order, np.int32) % FEATURES[name]["label"]
        )
    batch = dataset.train.images[:4]
    images, targets = dataset.augment(jax.random.key(0), batch, dataset.train.labels[:4])
    assert images.shape == batch.shape
    assert targets.shape == (4, FEATURES[name]["label"])
    np.testing.assert_allclose(dataset.prepare(batch), (batch / 255.0 - 0.5) / 0.25, atol=1e-5)
    # Each image is padded by four black pixels, and a window of the original size is cut out.
    padded = np.pad(batch[0] / 255.0, ((4, 4), (4, 4), (0, 0)))
    size = batch.shape[1]
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(0, 1))
    ours = np.moveaxis(np.asarray(images[0]) * 0.25 + 0.5, -1, 0)
    near = [np.abs(windows - turned).max((2, 3, 4)).min() for turned in (ours, ours[..., ::-1])]
    assert min(near) < 1e-5


def test_values_for_other_channels_are_refused(tmp_path: Path) -> None:
    root = prepare(tmp_path, "mnist_like", "array_record")
    config = TfdsArraysConfig(str(root), name="mnist_like", evaluation_split="test")
    with pytest.raises(ConfigError, match=r"have 1 channels, but augment\.mean is \(0\.485,"):
        open_dataset(config)


def test_images_of_several_sizes_are_refused(folder: Path, tmp_path: Path) -> None:
    from resnet_jax.data.images.prepare import prepare as prepare_folder

    root = prepare_folder(folder, tmp_path, name="animals", evaluation_share=0.2, seed=0)
    with pytest.raises(DataError, match=r"pixels and the first image .* folder-resnet50"):
        open_dataset(TfdsArraysConfig(str(root)))

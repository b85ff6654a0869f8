"""Preprocessing repeats exactly what the evaluation of a data set does."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from resnet_jax.config import ConfigError, DigitsConfig, FolderConfig, ImageConfig, SyntheticConfig
from resnet_jax.data import open_dataset
from resnet_jax.data.augment import affine_resize, normalize
from resnet_jax.data.preprocessing import Preprocessing


@pytest.mark.parametrize("evaluate_on", ["test", "validation"])
def test_digits_are_resampled_and_normalised(evaluate_on: str) -> None:
    dataset = open_dataset(DigitsConfig(evaluate_on=evaluate_on))
    images = np.stack([dataset.evaluation.image(i) for i in range(20)])
    _, train = (np.asarray(split.resident[0]) for split in (dataset.evaluation, dataset.train))
    still = jnp.zeros(20)
    resampled = affine_resize(images, 16, rotation=still, scale=still + 1, shift=jnp.zeros((20, 2)))
    preprocessing = dataset.preprocessing
    expected = normalize(resampled, train.mean(), train.std())
    np.testing.assert_array_equal(preprocessing.on_device(images), expected)
    for image in images:
        np.testing.assert_array_equal(preprocessing.on_host(image), image)
        np.testing.assert_array_equal(preprocessing.on_host(image[..., 0]), image)


def test_synthetic_images_are_normalised() -> None:
    dataset = open_dataset(SyntheticConfig(image_size=8, num_classes=3, test_examples=4))
    images = np.stack([dataset.evaluation.image(i) for i in range(4)])
    np.testing.assert_array_equal(
        dataset.preprocessing.on_device(images), normalize(jnp.asarray(images), 127.5, 73.9)
    )


@pytest.mark.parametrize("interpolation", ["linear", "pil_bilinear", "pil_bicubic"])
@pytest.mark.parametrize("crop_fraction", [0.875, 1.0])
def test_files_become_the_images_of_the_evaluation_split(
    tmp_path: Path, interpolation: str, crop_fraction: float
) -> None:
    rng = np.random.default_rng(0)
    sizes = [(40, 30), (31, 50), (24, 24), (16, 16), (300, 20)]
    for directory in ("train/a", "train/b", "val/a", "val/b"):
        for i, size in enumerate(sizes):
            path = tmp_path / directory / f"{i}.{'jpg' if i % 2 else 'png'}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(path)
    config = ImageConfig(
        image_size=16,
        crop_fraction=crop_fraction,
        eval_interpolation=interpolation,  # pyrefly: ignore[bad-argument-type]
    )
    dataset = open_dataset(FolderConfig(str(tmp_path), images=config))
    files = sorted(tmp_path.glob("val/*/*"))
    for index, file in enumerate(files):
        expected = dataset.evaluation.image(index)
        for form in (file, str(file), file.read_bytes()):
            np.testing.assert_array_equal(dataset.preprocessing.on_host(form), expected)
    batch = np.stack([dataset.evaluation.image(i) for i in range(len(files))])
    mean, std = (255 * np.asarray(v) for v in (config.augment.mean, config.augment.std))
    np.testing.assert_array_equal(
        dataset.preprocessing.on_device(batch), normalize(jnp.asarray(batch), mean, std)
    )


def test_channels_are_those_that_the_network_wants() -> None:
    grey = Preprocessing((6, 8), 1.0, "pil_bilinear", (0.5,), (0.2,), 1)
    colour = Preprocessing((6, 8), 1.0, "pil_bilinear", (0.5,), (0.2,), 3)
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 4), np.uint8)
    luma = np.asarray(Image.fromarray(pixels[..., :3]).convert("L"))[..., None]
    np.testing.assert_array_equal(grey.on_host(pixels), luma)
    np.testing.assert_array_equal(colour.on_host(pixels), pixels[..., :3])
    np.testing.assert_array_equal(colour.on_host(luma), np.repeat(luma, 3, axis=-1))
    assert colour.on_host(pixels[:3]).shape == (6, 8, 3)
    for wrong in (pixels.astype(np.float32), np.zeros((2, 2, 5), np.uint8), np.zeros(3, np.uint8)):
        with pytest.raises(ValueError, match="an image must"):
            colour.on_host(wrong)


def test_json_keeps_every_field() -> None:
    for preprocessing in (
        Preprocessing((6, 8), 0.875, "linear", (0.1, 0.2, 1 / 3), (0.3,), 3),
        Preprocessing(8, 1.0, "pil_bicubic", (0.1,), (1 / 3,), 1, upsample_size=16),
    ):
        written = json.loads(json.dumps(preprocessing.to_json()))
        assert Preprocessing.from_json(written) == preprocessing
        for wrong in ({"std": [0.0]}, {"unknown": 1}, {"channels": 2}):
            with pytest.raises(ValueError, match="preprocessing"):
                Preprocessing.from_json(written | wrong)


def test_impossible_fields_are_refused() -> None:
    with pytest.raises(ConfigError, match="crop_fraction must be above 0"):
        Preprocessing(8, 0.0, "linear", (0.5,), (0.2,), 3)

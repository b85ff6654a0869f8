"""Preprocessing gives the network exactly the pixels that the evaluation of a data set gives."""

import io
import json
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from resnet_jax.config import (
    AugmentConfig,
    ConfigError,
    DigitsConfig,
    FolderConfig,
    ImageConfig,
    SyntheticConfig,
    TfdsArraysConfig,
)
from resnet_jax.data import open_dataset
from resnet_jax.data.augment import affine_resize, normalize
from resnet_jax.data.preprocessing import Preprocessing
from resnet_jax.inference.hub_layouts.timm import timm_preprocessing
from resnet_jax.inference.hub_layouts.transformers import crop_fraction_of
from tests.data.images.test_arrays import prepare
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

VALUES = np.load(Path(__file__).with_name("preprocessing_values.npz"))

SMALL = Preprocessing(
    image_size=16,
    crop_fraction=0.875,
    interpolation="pil_bicubic",
    mean=(0.5, 0.4, 0.3),
    std=(0.2, 0.2, 0.2),
    channels=3,
)


def test_arrays_and_noise_are_evaluated_whole(tmp_path: Path) -> None:
    root = prepare(tmp_path, "mnist_like", "array_record")
    arrays = TfdsArraysConfig(
        str(root),
        name="mnist_like",
        evaluation_split="test",
        augment=AugmentConfig(mean=(0.13,), std=(0.31,)),
    )
    noise = SyntheticConfig(image_size=8, num_classes=3, train_examples=4, test_examples=4)
    for config in (arrays, noise, DigitsConfig(image_size=12)):
        dataset = open_dataset(config)
        image = dataset.evaluation.image(0)
        np.testing.assert_array_equal(dataset.preprocessing.on_host(image), image)
        values = dataset.preprocessing.on_device(jnp.asarray(image[None]))
        assert values.dtype == jnp.float32
        assert values.shape[1:3] == (
            (12, 12) if isinstance(config, DigitsConfig) else image.shape[:2]
        )


def test_pixels_bytes_and_path_of_an_image_are_the_same(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 41, 3), np.uint8)
    path = tmp_path / "image.png"
    Image.fromarray(pixels).save(path)
    expected = SMALL.on_host(pixels)
    assert expected.shape == (16, 16, 3)
    for image in (path, str(path), path.read_bytes(), np.dstack([pixels, pixels[..., :1]])):
        np.testing.assert_array_equal(SMALL.on_host(image), expected)


def test_colours_and_grey_levels_become_what_the_network_takes() -> None:
    rng = np.random.default_rng(0)
    rgb, grey = (
        rng.integers(0, 256, (16, 16, 3), np.uint8),
        rng.integers(0, 256, (16, 16), np.uint8),
    )
    whole: Any = {"image_size": 16, "crop_fraction": 1.0, "interpolation": "pil_bilinear"}
    one = Preprocessing(**whole, mean=(0.5,), std=(0.2,), channels=1)
    three = Preprocessing(**whole, mean=(0.5,), std=(0.2,), channels=3)
    luma = np.asarray(Image.fromarray(rgb).convert("L"))
    np.testing.assert_array_equal(one.on_host(rgb)[..., 0], luma)
    np.testing.assert_array_equal(one.on_host(grey)[..., 0], grey)
    np.testing.assert_array_equal(three.on_host(grey), np.repeat(grey[..., None], 3, axis=-1))


def test_the_device_normalises_by_channel() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
    expected = (images / 255 - SMALL.mean) / SMALL.std
    np.testing.assert_allclose(jax.jit(SMALL.on_device)(images), expected, atol=1e-5)


def test_it_comes_back_from_json() -> None:
    wide = Preprocessing((8, 12), 1.0, "linear", (0.1,), (0.2,), 1, upsample_size=16)
    for preprocessing in (SMALL, wide):
        plain = json.loads(json.dumps(preprocessing.to_json()))
        assert Preprocessing.from_json(plain) == preprocessing
    with pytest.raises(ValueError, match="cannot be read"):
        Preprocessing.from_json({"image_size": 3})


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 3)), r"must be uint8\[H, W\].*float64"),
        (np.zeros((2, 4, 4, 3), np.uint8), r"uint8\[2, 4, 4, 3\]"),
        (b"no image", "8 bytes"),
    ],
)
def test_what_is_not_an_image_is_refused(image: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SMALL.on_host(image)


def test_a_truncated_file_is_refused() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((30, 30, 3), np.uint8)).save(buffer, "PNG")
    with pytest.raises(ValueError, match="bytes"):
        SMALL.on_host(buffer.getvalue()[:40])


@pytest.mark.parametrize("evaluate_on", ["test", "validation"])
def test_digits_are_resampled_and_normalised(evaluate_on: str) -> None:
    dataset = open_dataset(DigitsConfig(evaluate_on=evaluate_on))
    images = np.stack([dataset.evaluation.image(i) for i in range(20)])
    _, train = (np.asarray(split.resident[0]) for split in (dataset.evaluation, dataset.train))
    still = jnp.zeros(20)
    resampled = affine_resize(images, 16, rotation=still, scale=still + 1, shift=jnp.zeros((20, 2)))
    preprocessing = dataset.preprocessing
    expected = normalize(resampled, train.mean() / 255, train.std() / 255)
    np.testing.assert_array_equal(preprocessing.on_device(images), expected)
    for image in images:
        np.testing.assert_array_equal(preprocessing.on_host(image), image)
        np.testing.assert_array_equal(preprocessing.on_host(image[..., 0]), image)


def test_synthetic_images_are_normalised() -> None:
    dataset = open_dataset(SyntheticConfig(image_size=8, num_classes=3, test_examples=4))
    images = np.stack([dataset.evaluation.image(i) for i in range(4)])
    np.testing.assert_array_equal(
        dataset.preprocessing.on_device(images),
        normalize(jnp.asarray(images), 127.5 / 255, 73.9 / 255),
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
    np.testing.assert_array_equal(
        dataset.preprocessing.on_device(batch),
        normalize(jnp.asarray(batch), config.augment.mean, config.augment.std),
    )


def test_impossible_fields_are_refused() -> None:
    with pytest.raises(ConfigError, match="crop_fraction must be above 0"):
        Preprocessing(8, 0.0, "linear", (0.5,), (0.2,), 3)


@pytest.mark.parametrize("case", range(len(TIMM)))
def test_the_pixels_are_those_of_timm(case: int) -> None:
    preprocessing = timm_preprocessing(TIMM[case], test_size=True)
    for size in SIZES:
        ours = preprocessing.on_host(pixels(*size))
        np.testing.assert_array_equal(ours, VALUES[f"timm/{case}/{size}"], err_msg=str(size))


@pytest.mark.parametrize("case", range(len(TORCHVISION)))
def test_the_pixels_are_those_of_torchvision(case: int) -> None:
    crop, resize, interpolation = TORCHVISION[case]
    fields: Any = {"image_size": crop, "interpolation": f"pil_{interpolation}"}
    preprocessing = Preprocessing(
        **fields, crop_fraction=crop_fraction_of(crop, resize), mean=MEAN, std=STD, channels=3
    )
    for size in SIZES:
        ours = preprocessing.on_host(pixels(*size))
        np.testing.assert_array_equal(ours, VALUES[f"torchvision/{case}/{size}"], str(size))


@pytest.mark.parametrize(("mode", "kind"), FILES)
def test_the_pixels_of_a_file_are_those_of_timm(mode: str, kind: str) -> None:
    preprocessing = timm_preprocessing(TIMM[1], test_size=True)
    content = image_file(mode, kind)
    expected = VALUES[f"file/{mode}"]
    np.testing.assert_array_equal(preprocessing.on_host(content), expected)
    opened = Image.open(io.BytesIO(content))
    np.testing.assert_array_equal(preprocessing.on_host(opened), expected)
    values = preprocessing.on_device(expected[None])
    np.testing.assert_allclose(values[0], (expected / 255 - MEAN) / STD, atol=2e-6)


def test_levels_of_16_bits_and_the_orientation_of_a_photo_are_kept() -> None:
    # timm and torchvision clip 16 bits at 255, and ignore the orientation in the EXIF metadata.
    preprocessing = timm_preprocessing(TIMM[1], test_size=True)
    gray = pixels(40, 50)[..., 0]
    deep = io.BytesIO()
    Image.fromarray(gray.astype(np.uint16) * 257).save(deep, "PNG")
    expected = preprocessing.on_host(gray)
    np.testing.assert_array_equal(preprocessing.on_host(deep.getvalue()), expected)
    exif = Image.Exif()
    exif[0x0112] = 6  # Shown after a rotation by 90 degrees, clockwise.
    turned = io.BytesIO()
    Image.fromarray(np.rot90(gray)).save(turned, "PNG", exif=exif)
    np.testing.assert_array_equal(preprocessing.on_host(turned.getvalue()), expected)


def test_a_crop_fraction_gives_every_size_of_the_resized_image() -> None:
    for crop in (16, 176, 224, 300, 448):
        for resized in range(crop, 2 * crop):
            assert math.floor(crop / crop_fraction_of(crop, resized)) == resized


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize("shape", [(90, 150), (150, 90), (40, 44)])
@pytest.mark.parametrize("size", [32, (24, 40)])
def test_the_box_is_the_part_of_the_image_that_the_network_sees(
    crop_mode: Any, shape: tuple[int, int], size: Any
) -> None:
    preprocessing = Preprocessing(size, 0.75, "pil_bilinear", (0.0,), (1.0,), 3, None, crop_mode)
    # The levels of a ramp say where a pixel comes from. Beside the image, they are 0.
    ramps = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1) + 50
    image = np.dstack([ramps, ramps[..., 0]]).astype(np.uint8)
    seen = preprocessing.on_host(image)
    box = preprocessing.box(shape)
    for axis, (start, side, length) in enumerate(zip(box[:2], box[2:], shape, strict=True)):
        pixels = seen.shape[axis]
        positions = start + (np.arange(pixels) + 0.5) * side / pixels - 0.5
        scale = max(1.0, side / pixels)
        inside = (positions > scale) & (positions < length - 1 - scale)
        middle = seen[:, seen.shape[1] // 2] if axis == 0 else seen[seen.shape[0] // 2]
        np.testing.assert_allclose(middle[inside, axis], positions[inside] + 50, atol=1)

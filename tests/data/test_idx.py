"""IDX files, the format of MNIST."""

import gzip
import re
import struct
from pathlib import Path

import jax
import numpy as np
import pytest

from resnet_jax.config import AugmentConfig, ConfigError, IdxConfig
from resnet_jax.data import ArraySplit, DataError, open_dataset
from resnet_jax.data.idx import read_idx
from resnet_jax.data.images.decode import decode
from resnet_jax.data.images.describe import open_all, summarize
from resnet_jax.data.labeled import open_labeled_config

CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx(values: np.ndarray) -> bytes:
    """Return an array in the format that LeCun's page on MNIST describes."""
    header = struct.pack(">BBBB", 0, 0, CODES[values.dtype.str[1:]], values.ndim)
    sizes = b"".join(struct.pack(">I", size) for size in values.shape)
    return header + sizes + values.astype(values.dtype.newbyteorder(">")).tobytes()


def examples(split: str) -> tuple[np.ndarray, np.ndarray]:
    """uint8[N, 6, 5] of noise, and uint8[N] labels of three classes."""
    rng = np.random.default_rng(len(split))
    count = 30 if split == "train" else 11
    return rng.integers(0, 256, (count, 6, 5), np.uint8), (np.arange(count) % 3).astype(np.uint8)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """The four files of MNIST with other content; those of the test images are compressed."""
    for split, prefix in (("train", "train"), ("test", "t10k")):
        for values, kind in zip(examples(split), ("images-idx3", "labels-idx1"), strict=True):
            content, name = idx(values), f"{prefix}-{kind}-ubyte"
            if split == "test":
                content, name = gzip.compress(content), f"{name}.gz"
            (tmp_path / name).write_bytes(content)
    return tmp_path


@pytest.mark.parametrize("dtype", CODES)
def test_every_type_is_read(tmp_path: Path, dtype: str) -> None:
    values = np.array([[[-1, 2], [3, -4], [100, 0]]]).astype(dtype)
    (tmp_path / "values").write_bytes(idx(values))
    ours = read_idx(tmp_path / "values")
    np.testing.assert_array_equal(ours, values)
    assert ours.dtype == np.dtype(dtype)


def test_images_and_labels_are_those_of_the_files(directory: Path) -> None:
    augment = AugmentConfig(crop_padding=1, mean=(0.5,), std=(0.25,))
    dataset = open_dataset(IdxConfig(str(directory), augment=augment))
    assert dataset.evaluation_split == "test"
    assert dataset.class_names == ("0", "1", "2")
    for ours, split in ((dataset.train, "train"), (dataset.evaluation, "test")):
        assert isinstance(ours, ArraySplit)
        images, labels = examples(split)
        np.testing.assert_array_equal(ours.images[..., 0], images)
        np.testing.assert_array_equal(ours.labels, labels)
        assert ours.labels.dtype == np.int32
    batch = dataset.train.images[:4]
    np.testing.assert_allclose(dataset.prepare(batch), (batch / 255.0 - 0.5) / 0.25, atol=1e-5)
    images, targets = dataset.augment(jax.random.key(0), batch, dataset.train.labels[:4])
    assert images.shape == batch.shape
    assert targets.shape == (4, 3)


def test_validation_images_are_held_out_by_class_and_the_test_files_are_not_read(
    directory: Path,
) -> None:
    for path in directory.glob("t10k*"):
        path.unlink()
    config = IdxConfig(str(directory), evaluation_split="validation", validation_share=0.2)
    dataset = open_dataset(config)
    assert dataset.evaluation_split == "validation"
    assert np.bincount(dataset.train.labels).tolist() == [8, 8, 8]
    assert np.bincount(dataset.evaluation.labels).tolist() == [2, 2, 2]
    parts = [split.image(i) for split in (dataset.train, dataset.evaluation) for i in range(6)]
    assert len({part.tobytes() for part in parts}) == 12
    assert open_dataset(config).fingerprint == dataset.fingerprint
    with pytest.raises(DataError, match=r"share of 0\.01 .* cannot be held out .*validation_share"):
        open_dataset(
            IdxConfig(str(directory), evaluation_split="validation", validation_share=0.01)
        )
    with pytest.raises(ConfigError, match="validation_share must be above 0 and below 1"):
        IdxConfig(str(directory), validation_share=1.0)


def test_one_split_is_opened_for_evaluation(directory: Path) -> None:
    config = IdxConfig(str(directory), class_names=("a", "b", "c"))
    test = open_labeled_config(config)
    assert (test.split, len(test), test.class_names) == ("test", 11, ("a", "b", "c"))
    assert test[4].label == 1
    assert len(open_labeled_config(config, "validation")) == 3
    with pytest.raises(DataError, match="the data idx have no split train2; they have test"):
        open_labeled_config(config, "train2")


IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (IMAGES, None, "does not exist, with or without .gz; give the directory"),
        (IMAGES, b"", "is not an IDX file: it begins with nothing instead"),
        (IMAGES, b"\x89PNG\r\n", "is not an IDX file: it begins with 89 50 4e 47 instead"),
        (IMAGES, b"\0\0\x08\x03\0\0\0", "is truncated within its header"),
        (
            IMAGES,
            idx(examples("train")[0])[:-1],
            r"is truncated or damaged: 916 bytes were expected for values \[30, 6, 5\], but there "
            "are 915",
        ),
        (IMAGES, idx(examples("train")[0]) + b"\0", "expected for .* but there are 917"),
        (IMAGES, gzip.compress(idx(examples("train")[0]))[:-9], r"is truncated or damaged \(.*\)"),
        (IMAGES, b"\x1f\x8b" + bytes(40), r"is truncated or damaged \(.*\); download it again"),
        (IMAGES, idx(examples("train")[1]), r"has uint8 values \[30\], but images must be bytes"),
        (IMAGES, idx(np.zeros((30, 6, 5), "f4")), r"has float32 values .* but images must be"),
        (IMAGES, idx(np.zeros((0, 6, 5), "u1")), r"has uint8 values \[0, 6, 5\], but images must"),
        (LABELS, idx(examples("train")[0]), r"has uint8 values .* but labels must be integers"),
        (LABELS, idx(examples("test")[1]), "has 30 images and .* 11 labels; give those of one"),
        (LABELS, idx(np.full(30, 2**20, "i4")), "has labels from 1048576 to 1048576, but they"),
        (LABELS, idx(np.full(30, -1, "i1")), "has labels from -1 to -1, but they must be"),
        (IMAGES, idx(np.zeros((30, 8, 5), "u1")), "has images of 8x5 pixels and .* of 6x5"),
    ],
)
def test_a_faulty_file_gets_one_line(
    directory: Path, name: str, content: bytes | None, message: str
) -> None:
    (directory / name).unlink()
    if content is not None:
        (directory / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as raised:
        open_dataset(IdxConfig(str(directory)))
    assert "\n" not in str(raised.value)
    assert re.search(name, str(raised.value)), "the file is named"


def test_names_must_cover_every_class(directory: Path) -> None:
    with pytest.raises(DataError, match=r"labels up to 2, but data\.class_names has only 2 names"):
        open_dataset(IdxConfig(str(directory), class_names=("a", "b")))


def test_every_image_is_described(directory: Path) -> None:
    sources = open_all(directory)
    assert list(sources) == ["train", "test"]
    for split, source in sources.items():
        images, labels = examples(split)
        summary = summarize(source, threads=1)
        assert summary.counts == dict(zip("012", map(int, np.bincount(labels)), strict=True))
        np.testing.assert_allclose(summary.mean, images.mean(), rtol=1e-6)
        np.testing.assert_array_equal(decode(source[7].image)[..., 0], images[7])
        assert not summary.unreadable
        assert source[7].name == f"{split} image 7"

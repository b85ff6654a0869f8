"""NumPy's files and arrays as data sets."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from resnet_jax import Classifier
from resnet_jax.config import (
    ArraysConfig,
    ConfigError,
    DigitsConfig,
    ModelConfig,
    SGDConfig,
    TrainConfig,
)
from resnet_jax.data import ArraySplit, DataError, open_dataset
from resnet_jax.data.labeled import open_labeled_config
from resnet_jax.training import train
from resnet_jax.training.rundir.checkpoints import CheckpointError

SHAPE = (6, 5, 3)


def arrays(seed: int = 0) -> dict[str, np.ndarray]:
    """Noise of three classes, with the names and shapes of Keras's CIFAR-10."""
    rng = np.random.default_rng(seed)
    content = {}
    for split, count in (("train", 30), ("test", 11)):
        content[f"x_{split}"] = rng.integers(0, 256, (count, *SHAPE), np.uint8)
        content[f"y_{split}"] = (np.arange(count) % 3).astype(np.uint8)[:, None]
    return content


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    path = tmp_path / "photos.npz"
    np.savez_compressed(path, **arrays())
    return path


@pytest.mark.parametrize("kind", ["npz", "npy", "python"])
def test_images_and_labels_are_those_of_the_arrays(npz: Path, kind: str) -> None:
    given = arrays()
    if kind == "npz":
        dataset = open_dataset(ArraysConfig(str(npz)))
    elif kind == "npy":
        for name, values in given.items():
            np.save(npz.with_name(f"{name}.npy"), values)
        dataset = open_dataset(ArraysConfig(str(npz.parent)))
    else:
        dataset = open_dataset(ArraysConfig(), given)
    assert dataset.evaluation_split == "test"
    assert dataset.class_names == ("0", "1", "2")
    for ours, split in ((dataset.train, "train"), (dataset.evaluation, "test")):
        assert isinstance(ours, ArraySplit)
        np.testing.assert_array_equal(ours.images, given[f"x_{split}"])
        np.testing.assert_array_equal(ours.labels, given[f"y_{split}"][:, 0])
        assert ours.labels.dtype == np.int32


def test_names_are_free_and_gray_images_need_no_channel(tmp_path: Path) -> None:
    path = tmp_path / "gray.npz"
    images, labels = arrays()["x_train"][..., 0], arrays()["y_train"][:, 0].astype(np.int64)
    np.savez(path, pictures=images, kinds=labels)
    config = ArraysConfig(
        str(path),
        train_images="pictures",
        train_labels="kinds",
        evaluation_split="validation",
        validation_share=0.2,
        class_names=("a", "b", "c"),
    )
    dataset = open_dataset(config)
    assert dataset.train.image_shape == (6, 5, 1)
    assert np.bincount(dataset.train.labels).tolist() == [8, 8, 8]
    held_out = open_labeled_config(config)
    assert (held_out.split, len(held_out)) == ("validation", 6)
    assert held_out.class_names == ("a", "b", "c")
    with pytest.raises(DataError, match=r"no array x_test, but kinds, pictures; name the arrays"):
        open_dataset(dataclasses.replace(config, evaluation_split="test"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_train": arrays()["x_train"] / 255}, r"float64 values .* must be bytes \(uint8\)"),
        ({"x_train": arrays()["x_train"][0, 0]}, r"must be bytes \[N, H, W\] or \[N, H, W, C\]"),
        (
            {"x_train": np.moveaxis(arrays()["x_train"], -1, 1)},
            r"channels first; move them to the end with np\.moveaxis",
        ),
        ({"y_train": np.zeros((30, 3), np.uint8)}, r"labels must be integers \[N\]"),
        ({"y_train": np.zeros(30)}, r"y_train has float64 values \[30\], but labels must be"),
        ({"y_train": arrays()["y_train"][:-1]}, r"30 images and y_train 29 labels"),
        ({"y_train": np.full(30, -1)}, "labels from -1 to -1, but they must be the indices"),
        (
            {"x_test": arrays()["x_test"][:, 1:]},
            r"arrays: x_train has images of 6x5 \(3 channels\) pixels and x_test of 5x5",
        ),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value[:20],
)
def test_arrays_that_do_not_fit_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_dataset(ArraysConfig(), arrays() | changes)


def test_bad_files_are_refused_and_nothing_is_unpickled(npz: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple:
            return (Path(tmp_path / "executed").touch, ())

    objects = tmp_path / "objects.npz"
    np.savez(objects, **arrays() | {"x_train": np.array([Trap()], object)})
    truncated = tmp_path / "truncated.npz"
    truncated.write_bytes(npz.read_bytes()[:-100])
    text = tmp_path / "text.npz"
    text.write_text("no array")
    single = tmp_path / "single.npy"
    np.save(single, arrays()["x_train"])
    for path, message in (
        (objects, "from arrays that are no objects"),
        (truncated, "cannot be read as NumPy's arrays"),
        (text, "cannot be read as NumPy's arrays"),
        (single, "holds a single array"),
        (tmp_path / "absent.npz", "does not exist; give the path of an .npz file"),
        (tmp_path, "there is no array x_train, but single"),
    ):
        with pytest.raises(DataError, match=message):
            open_dataset(ArraysConfig(str(path)))
    assert not (tmp_path / "executed").exists()


def test_arrays_belong_to_data_without_a_path(npz: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\(config, arrays=\{\.\.\.\}\); or set data\.path"):
        open_dataset(ArraysConfig())
    with pytest.raises(ConfigError, match="arrays are given as well; leave out either"):
        open_dataset(ArraysConfig(str(npz)), arrays())
    with pytest.raises(ConfigError, match=r"data of the experiment are digits; set data to Arr"):
        open_dataset(DigitsConfig(), arrays())


@pytest.mark.usefixtures("tiny_networks")
def test_arrays_become_a_network_that_is_only_continued_with_them(tmp_path: Path) -> None:
    config = TrainConfig(
        ModelConfig("tiny_resnet"), ArraysConfig(), SGDConfig(), batch_size=8, epochs=1.0
    )
    path = tmp_path / "run"
    result = train(config, path, arrays=arrays(), quiet=True)
    assert result is not None
    logits = Classifier.load(path).logits(list(arrays()["x_test"]))
    np.testing.assert_allclose(logits, result.evaluation.logits, atol=1e-4)
    assert train(config, path, arrays=arrays(), quiet=True) is None, "the run is complete"
    (path / "result.json").unlink()
    with pytest.raises(CheckpointError, match="images of arrays are not those"):
        train(config, path, arrays=arrays(seed=1), quiet=True)

"""Splits for evaluation are those of training, and need not have a training split."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resnet_jax.config import DigitsConfig, FolderConfig, SyntheticConfig, TfdsConfig
from resnet_jax.data import DataError, open_dataset
from resnet_jax.data.images.folder import open_splits
from resnet_jax.data.images.opening import open_sources
from resnet_jax.data.images.prepare import prepare
from resnet_jax.data.labeled import LabeledImages, open_labeled, open_labeled_config


def write(directory: Path, count: int) -> None:
    directory.mkdir(parents=True)
    for i in range(count):
        Image.fromarray(np.full((4, 4, 3), 10 * i, np.uint8)).save(directory / f"{i}.png")


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    for name in ("ant", "bee"):
        write(tmp_path / "flat" / name, 5)
    return tmp_path / "flat"


def names(data: LabeledImages) -> list[str]:
    return [data[i].name for i in range(len(data))]


def test_folders_without_splits_have_all_images_or_those_that_training_holds_out(
    flat: Path,
) -> None:
    everything = open_labeled(str(flat))
    assert (everything.split, len(everything)) == ("all", 10)
    assert everything[7] == ((flat / "bee" / "2.png").read_bytes(), 1, str(flat / "bee" / "2.png"))
    reference = open_splits(flat, evaluation_share=0.4, seed=3)
    for split in ("train", "validation"):
        found = open_labeled(str(flat), split, evaluation_share=0.4, split_seed=3)
        assert names(found) == [reference[split][i].name for i in range(len(reference[split]))]
    config = FolderConfig(str(flat), evaluation_share=0.4, split_seed=3)
    assert names(open_labeled_config(config)) == names(
        open_labeled(str(flat), "val", evaluation_share=0.4, split_seed=3)
    )
    with pytest.raises(DataError, match="has no splits; leave the split out"):
        open_labeled(str(flat), "test")


def test_the_test_split_comes_first_and_no_other_is_needed(tmp_path: Path) -> None:
    for name in ("ant", "bee"):
        write(tmp_path / "val" / name, 2)
    assert open_labeled(str(tmp_path)).split == "validation"
    for name in ("ant", "bee"):
        write(tmp_path / "Test" / name, 3)
    assert open_labeled(str(tmp_path)).split == "test"
    assert len(open_labeled(str(tmp_path), "valid")) == 4
    with pytest.raises(DataError, match="has no split train; it has test, validation"):
        open_labeled(str(tmp_path), "train")
    # A run that has a validation split is evaluated on it.
    for name in ("ant", "bee"):
        write(tmp_path / "train" / name, 1)
    assert open_labeled_config(FolderConfig(str(tmp_path))).split == "validation"
    assert open_labeled_config(FolderConfig(str(tmp_path)), "test").split == "test"


@pytest.mark.parametrize("kind", ["folder", "table"])
@pytest.mark.parametrize("others", [[], ["test"]])
def test_validation_images_are_those_that_training_holds_out_of_the_training_split(
    flat: Path, tmp_path: Path, kind: str, others: list[str]
) -> None:
    path = tmp_path / "split"
    for split in ("train", *others):
        shutil.copytree(flat, path / split)
    if kind == "table":
        files = [file.relative_to(path) for file in sorted(path.rglob("*.png"))]
        lines = ["image,label,split", *(f"{f},{f.parts[1]},{f.parts[0]}" for f in files)]
        path = path / "table.csv"
        # A table needs no splits, but two if it has any.
        path.write_text("\n".join(line if others else line.rpartition(",")[0] for line in lines))
    config = FolderConfig(str(path), evaluation_share=0.4, hold_out_validation=True)
    dataset = open_sources(config)
    assert dataset[2] == "validation"
    for split, images in zip(("train", "validation"), dataset, strict=False):
        expected = [images[i].name for i in range(len(images))]
        assert len(expected) == {"train": 6, "validation": 4}[split]
        assert names(open_labeled_config(config, split)) == expected
    assert names(open_labeled_config(config)) == expected
    if others:
        assert len(open_labeled_config(config, "test")) == 10
        with pytest.raises(DataError, match="has no split validation; it has test, train"):
            open_labeled(str(path), "validation")


def test_tables_have_splits_too(flat: Path) -> None:
    table = flat / "table.csv"
    rows = "image,label,split\nant/0.png,ant,test\nbee/0.png,bee,test\nbee/1.png,bee,val\n"
    table.write_text(rows)
    found = open_labeled(str(table))
    assert (found.split, [found[i].label for i in range(2)]) == ("test", [0, 1])
    assert open_labeled(str(table), "validation").class_names == ("bee",)
    table.write_text("image,label\nant/0.png,ant\nbee/0.png,bee\n")
    assert open_labeled(str(table)).split == "all"


def test_prepared_data_sets_have_the_splits_that_they_name(flat: Path, tmp_path: Path) -> None:
    target = prepare(flat, tmp_path / "tfds", name="insects", evaluation_share=0.2, seed=0)
    found = open_labeled(str(target))
    assert (found.split, len(found), found.class_names) == ("validation", 2, ("ant", "bee"))
    assert isinstance(found[1].image, bytes)
    assert found[1].label == 1
    part = open_labeled(str(tmp_path / "tfds"), "train[:50%]", name="insects")
    assert (part.split, len(part)) == ("train[:50%]", 4)
    config = TfdsConfig(str(tmp_path / "tfds"), name="insects")
    assert names(open_labeled_config(config)) == names(found)
    with pytest.raises(DataError, match="has no split 'test'"):
        open_labeled(str(target), "test")


def test_data_in_memory_have_the_splits_of_their_configuration() -> None:
    config = DigitsConfig()
    dataset = open_dataset(config)
    found = open_labeled_config(config)
    assert (found.split, len(found), found.class_names[3]) == ("test", 360, "3")
    np.testing.assert_array_equal(found[5].image, dataset.evaluation.image(5))
    assert found[5].label == dataset.evaluation.labels[5]
    assert len(open_labeled_config(config, "train")) == 1437
    assert open_labeled_config(config, "validation").split == "validation"
    with pytest.raises(DataError, match="have no split all; they have test, validation, train"):
        open_labeled_config(config, "all")
    synthetic = SyntheticConfig(image_size=4, num_classes=3, train_examples=2, test_examples=5)
    assert len(open_labeled_config(synthetic)) == 5


@pytest.mark.parametrize(
    ("path", "message"), [("absent", "absent does not exist"), ("empty", "has 0 folders")]
)
def test_data_that_are_missing_are_errors(tmp_path: Path, path: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=message):
        open_labeled(str(tmp_path / path))

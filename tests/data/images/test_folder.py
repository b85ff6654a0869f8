"""Reading of folders and tables of images."""

import contextlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from resnet_jax.config import AugmentConfig, FolderConfig, ImageConfig
from resnet_jax.data import DataError, open_dataset
from resnet_jax.data.dataset import printable
from resnet_jax.data.images.decode import decode
from resnet_jax.data.images.folder import ImageFiles, open_splits
from resnet_jax.data.images.names import EXTENSIONS


def opened(path: Path, share: float = 0.25, seed: int = 0) -> tuple[ImageFiles, ImageFiles, str]:
    splits = open_splits(path, evaluation_share=share, seed=seed)
    (first, train), (kind, evaluation) = splits.items()
    assert first == "train"
    return train, evaluation, kind


def test_splits_and_classes_are_those_of_the_folders(folder: Path) -> None:
    train, evaluation, kind = opened(folder)
    assert (len(train), len(evaluation), kind) == (23, 11, "validation")
    assert train.class_names == evaluation.class_names == ("cat", "dog", "eel")
    assert sorted(train.labels).count(0) == 8
    record = train[train.files.index("cat/deep/0.jpg")]
    assert record.name == str(folder / "train" / "cat" / "deep" / "0.jpg")
    assert train.name(train.files.index("cat/deep/0.jpg")) == "cat/deep/0.jpg"
    assert record.image == Path(record.name).read_bytes()
    assert record.label == 0


def test_every_kind_of_file_that_is_looked_for_can_be_read(tmp_path: Path) -> None:
    Image.init()
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for extension in EXTENSIONS:
            path = tmp_path / name / f"a{extension.upper()}"
            Image.new("L" if extension == ".pgm" else "RGB", (8, 8)).save(path)
    (tmp_path / "cat" / "notes.txt").touch()
    train, evaluation, _ = opened(tmp_path)
    assert len(train) + len(evaluation) == 2 * len(EXTENSIONS)
    for source in (train, evaluation):
        for i in range(len(source)):
            assert decode(source[i].image).shape == (8, 8, 3)


def test_a_folder_without_splits_is_split_by_class_and_seed(folder: Path) -> None:
    train, evaluation, kind = opened(folder / "train")
    assert kind == "validation"
    assert not set(train.files) & set(evaluation.files)
    assert len(train) + len(evaluation) == 23
    assert [evaluation.labels.count(label) for label in range(3)] == [2, 2, 2]
    again, other = (opened(folder / "train", seed=seed)[1].files for seed in (0, 1))
    assert again == evaluation.files
    assert other != evaluation.files


def test_classes_that_are_numbers_are_in_their_order(folder: Path, tmp_path: Path) -> None:
    for number in (10, 9, 2):
        shutil.copytree(folder / "train" / "cat", tmp_path / str(number))
    assert opened(tmp_path)[0].class_names == ("2", "9", "10")


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("split", [False, True])
def test_a_table_names_files_classes_and_splits(
    folder: Path, tmp_path: Path, kind: str, split: bool
) -> None:
    shutil.copytree(folder, tmp_path / "images")
    rows = [
        {
            "image": str(path.relative_to(tmp_path)),
            "label": path.relative_to(tmp_path).parts[2],
            **({"split": path.relative_to(tmp_path).parts[1]} if split else {}),
        }
        for path in sorted((tmp_path / "images").rglob("*.jpg"))
    ]
    table = tmp_path / f"table.{kind}"
    if kind == "jsonl":
        table.write_text("\n".join(map(json.dumps, rows)))
    else:
        lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
        table.write_text("\n".join(lines))
    train, evaluation, _ = opened(table)
    assert train.class_names == ("cat", "dog", "eel")
    assert len(train) + len(evaluation) == 34
    if split:
        assert len(evaluation) == 11
    record = evaluation[0]
    assert Path(record.name).parts[-2 if "deep" not in record.name else -3] == "cat"


def test_a_third_split_is_kept_apart(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "train", tmp_path / "Train")
    shutil.copytree(folder / "val", tmp_path / "VAL")
    shutil.copytree(folder / "val", tmp_path / "test")
    splits = open_splits(tmp_path, evaluation_share=0.2, seed=0, every=True)
    assert {name: len(images) for name, images in splits.items()} == {
        "train": 23,
        "validation": 11,
        "test": 11,
    }
    assert splits["test"][0].name.startswith(str(tmp_path / "test"))
    # Training does not need the test split, whose labels may be secret.
    shutil.rmtree(tmp_path / "test" / "cat")
    train, _, kind = opened(tmp_path)
    assert (len(train), kind) == (23, "validation")

    rows = [f"Train/cat/{i}.jpg,{i % 2},{split}" for i, split in enumerate(SPLITS_OF_ROWS)]
    for row in rows:
        (tmp_path / row.split(",")[0]).touch()
    table = tmp_path / "table.CSV"
    table.write_text("\n".join(["image,label,split", *rows]), encoding="utf-8-sig")
    splits = open_splits(table, evaluation_share=0.2, seed=0, every=True)
    assert {name: len(images) for name, images in splits.items()} == {
        "train": 2,
        "validation": 1,
        "test": 2,
    }


def test_test_images_are_never_used_where_validation_is_asked_for(
    folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder / "train", tmp_path / "train")
    shutil.copytree(folder / "val", tmp_path / "test")
    assert opened(tmp_path)[2] == "test"
    config = FolderConfig(str(tmp_path), evaluation_share=0.25, hold_out_validation=True)
    dataset = open_dataset(config)
    assert dataset.evaluation_split == "validation"
    # As many of each class as if there were no test split.
    expected = opened(tmp_path / "train")
    splits = open_splits(tmp_path, evaluation_share=0.25, seed=0, hold_out=True)
    train, validation = splits.values()
    assert (train.files, validation.files) == (expected[0].files, expected[1].files)
    assert (train.held_out, validation.held_out) == (False, True)
    assert (len(dataset.train), len(dataset.evaluation)) == (len(train), len(validation))
    splits = open_splits(tmp_path, evaluation_share=0.25, seed=0, hold_out=True, every=True)
    assert [*splits] == ["train", "validation", "test"]
    # A validation split that is there is taken as it is.
    shutil.copytree(folder / "val", tmp_path / "val")
    splits = open_splits(tmp_path, evaluation_share=0.25, seed=0, hold_out=True)
    assert [len(images) for images in splits.values()] == [23, 11]
    assert not splits["validation"].held_out


SPLITS_OF_ROWS = ("Train", "train", "TEST", "validation", "test")


def test_folders_that_are_no_splits_are_named(folder: Path, tmp_path: Path) -> None:
    for name in ("Train", "dev", "extra"):
        shutil.copytree(folder / "val", tmp_path / name)
    message = r"has dev, extra beside Train, but splits are train, .*; rename or move the other"
    with pytest.raises(DataError, match=message):
        opened(tmp_path)
    shutil.move(tmp_path / "dev", tmp_path / "val")
    shutil.move(tmp_path / "extra", tmp_path / "Valid")
    with pytest.raises(DataError, match=r"Valid and .*val are one split; merge them"):
        opened(tmp_path)


def test_the_fingerprint_changes_with_the_data(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    before = opened(folder)[0].fingerprint
    assert opened(tmp_path / "copy")[0].fingerprint == before
    with (tmp_path / "copy" / "train" / "dog" / "1.jpg").open("ab") as file:
        file.write(b"x")
    assert opened(tmp_path / "copy")[0].fingerprint != before


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
def test_evaluation_prepares_images_as_prediction_does(folder: Path, crop_mode: Any) -> None:
    augment = AugmentConfig(mean=(0.5, 0.25, 0.75), std=(0.5,))
    images = ImageConfig(image_size=16, crop_fraction=0.9, crop_mode=crop_mode, augment=augment)
    dataset = open_dataset(FolderConfig(str(folder), images=images))
    assert dataset.preprocessing.crop_mode == crop_mode
    for i in range(len(dataset.evaluation)):
        source: Any = dataset.evaluation
        expected = dataset.preprocessing.on_host(source.source[i].image)
        np.testing.assert_array_equal(dataset.evaluation.image(i), expected)


def test_a_run_is_bound_to_both_splits(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    found = {open_dataset(FolderConfig(str(path))).fingerprint for path in (folder, copy)}
    assert len(found) == 1
    for file in ("train/dog/1.jpg", "val/dog/1.jpg"):
        with (copy / file).open("ab") as changed:
            changed.write(b"x")
        found.add(open_dataset(FolderConfig(str(copy))).fingerprint)
    assert len(found) == 3


def test_what_is_missing_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"{tmp_path / 'nowhere'} is not a directory"):
        opened(tmp_path / "nowhere")
    with pytest.raises(DataError, match="has 0 folders; a classifier needs one"):
        opened(tmp_path)
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    shutil.rmtree(copy / "val" / "eel")
    with pytest.raises(DataError, match="have different classes: only one of them has eel"):
        opened(copy)
    (copy / "val" / "eel").mkdir()
    with pytest.raises(DataError, match=r"eel has no images .*; remove the folder of class eel"):
        opened(copy)
    shutil.rmtree(copy / "train")
    with pytest.raises(DataError, match="has val but no train"):
        opened(copy)


@contextlib.contextmanager
def without_privileges() -> Iterator[None]:
    """Run as the user nobody during a test, because root can read every file."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_directories_and_files_that_may_not_be_read_are_named(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory) / "copy"
        shutil.copytree(folder, copy)
        for path in (Path(directory), copy, *copy.rglob("*")):
            path.chmod(0o755)
        with without_privileges():
            train, _, _ = opened(copy)
        file, deep = copy / "train" / "dog" / "1.jpg", copy / "train" / "dog" / "deep"
        for path in (file, deep, copy / "train"):
            path.chmod(0)
            with without_privileges(), pytest.raises(DataError) as error:
                assert train[train.files.index("dog/1.jpg")] if path == file else opened(copy)
            expected = " cannot be read: Permission denied"
            if path == file:
                expected = ": cannot be read (Permission denied)"
            assert str(error.value) == f"{path}{expected}"
            path.chmod(0o755)


def test_tables_that_cannot_be_used_are_refused(folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    with pytest.raises(DataError, match=r"cannot be read: .*No such file"):
        opened(table)
    table.write_text("image,label\n")
    with pytest.raises(DataError, match="has no rows"):
        opened(table)
    table.write_text("picture,label\na.jpg,cat\n")
    with pytest.raises(DataError, match=r"row 1 of .* lacks image or label"):
        opened(table)
    table.write_text("image,label\na.jpg,cat\n")
    with pytest.raises(DataError, match=r"row 1 of .* names a\.jpg, which does not exist"):
        opened(table)
    for name in ("a.jpg", "b.jpg"):
        shutil.copy(folder / "train" / "dog" / "1.jpg", tmp_path / name)
    for kind, content, message in (
        (
            "csv",
            "image,label,split\na.jpg,cat,train",
            "needs rows of the split train and of one of val",
        ),
        ("csv", "image,label,split\na.jpg,cat,dev", "row 1 of .* has the split 'dev', but splits"),
        ("csv", "image,label\na.jpg,cat\na.jpg,cat", "has only the class cat; .* needs two"),
        (
            "csv",
            "image,label,split\na.jpg,cat,train\nb.jpg,dog,val",
            "has no training rows of class dog; add some",
        ),
        (
            "jsonl",
            '{"image": "a.jpg", "label": 1, "split": "val"}\n{"image": "a.jpg", "label": 1}',
            "row 2 of .* has the split None, but splits are train,",
        ),
        ("jsonl", '{"image": 5, "label": 1}', "row 1 of .* has the image 5, which is not a path"),
        ("jsonl", "[1]", "row 1 of .* lacks image or label"),
    ):
        table = tmp_path / f"table.{kind}"
        table.write_text(content)
        with pytest.raises(DataError, match=message):
            opened(table)


def picture(path: Path | str, level: int = 0) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    # Pillow cannot open a file with such a name for writing.
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (level, 0, 0)).save(buffer, "PNG")
    with open(path, "wb") as file:
        file.write(buffer.getvalue())


@pytest.fixture
def two_classes(tmp_path: Path) -> Path:
    for name in ("cat", "dog"):
        for i in range(4):
            picture(tmp_path / "photos" / name / f"{i}.png", 20 * i)
    return tmp_path / "photos"


def files(path: Path) -> list[str]:
    return sorted(file for split in opened(path)[:2] for file in split.files)


def test_what_programs_leave_behind_is_not_read(two_classes: Path) -> None:
    before = files(two_classes)
    assert len(before) == 8
    for directory in (
        *("", "cat", "cat/deep/.ipynb_checkpoints", "cat/.ipynb_checkpoints", "cat/@eaDir/0.png"),
        *("cat/__MACOSX", "__MACOSX/cat", "@eaDir/x", ".thumbnails", "cat/#recycle", "dog/@EADIR"),
    ):
        picture(two_classes / directory / "._0.png")
        if directory not in ("", "cat"):
            picture(two_classes / directory / "0-checkpoint.png")
            picture(two_classes / directory / "SYNOPHOTO_THUMB_M.jpg")
    (two_classes / "cat" / "Thumbs.db").touch()
    (two_classes / "cat" / ".DS_Store").touch()
    assert files(two_classes) == before
    assert opened(two_classes)[0].class_names == ("cat", "dog")


def test_a_hidden_folder_above_the_data_does_not_matter(two_classes: Path) -> None:
    moved = two_classes.parent / ".cache" / "@eaDir" / "photos"
    shutil.copytree(two_classes, moved)
    assert len(files(moved)) == 8


def test_every_real_file_counts_once_in_its_class(two_classes: Path) -> None:
    before = files(two_classes)
    cat = two_classes / "cat"
    for name, target in {
        "loop": ".",
        "up": "..",
        "far/up": "../../..",
        "again.png": "0.png",
        "aaa.png": "1.png",
        "here": str(cat),
        "deep/0.png": "../0.png",
        "../self": ".",
        "../cat/same": "deep",
    }.items():
        (cat / name).parent.mkdir(exist_ok=True)
        (cat / name).symlink_to(target)
    assert files(two_classes) == before
    # Files outside the folder are read through links, each once.
    elsewhere = two_classes.parent / "elsewhere"
    picture(elsewhere / "deep" / "new.png")
    (elsewhere / "loop").symlink_to(".")
    for name in ("b", "c"):
        (cat / name).symlink_to(elsewhere)
    (cat / "d.png").symlink_to(elsewhere / "deep" / "new.png")
    assert len(files(two_classes)) == 9
    shutil.move(two_classes / "dog", elsewhere / "dog")
    (cat / "b").unlink()
    (cat / "c").unlink()
    (two_classes / "dog").symlink_to(elsewhere / "dog")
    assert len(files(two_classes)) == 9


@pytest.mark.parametrize(
    ("link", "target", "names"),
    [
        ("cat/x.png", "../dog/1.png", r"cat/x\.png and dog/1\.png"),
        ("dog/x", "../cat", r"dog/x/\d\.png and cat/\d\.png"),
        ("lynx", "cat", r"lynx/\d\.png and cat/\d\.png"),
    ],
)
def test_a_file_in_two_classes_is_refused(
    two_classes: Path, link: str, target: str, names: str
) -> None:
    (two_classes / link).symlink_to(target)
    with pytest.raises(DataError, match=f"^{names} are the same file in two classes; remove"):
        opened(two_classes)


def test_files_outside_that_two_classes_link_to_are_refused(two_classes: Path) -> None:
    picture(two_classes.parent / "pool" / "a.png")
    for name in ("cat", "dog"):
        (two_classes / name / "a.png").symlink_to(two_classes.parent / "pool" / "a.png")
    with pytest.raises(DataError, match=r"^cat/a.png and dog/a.png are the same file in two"):
        opened(two_classes)


def test_names_that_are_not_utf_8_are_shown_with_escapes(tmp_path: Path) -> None:
    root = os.fsencode(tmp_path / "photos")
    for name in (b"caf\xe9", b"bar"):
        for file in (b"1.png", b"\xfc.png"):
            picture(os.fsdecode(root + b"/" + name + b"/" + file))
    train, evaluation, _ = opened(tmp_path / "photos")
    assert train.class_names == ("bar", r"caf\xe9")
    names = [split[i].name for split in (train, evaluation) for i in range(2)]
    assert sorted(os.path.relpath(name, tmp_path) for name in names) == [
        "photos/bar/1.png",
        r"photos/bar/\xfc.png",
        r"photos/caf\xe9/1.png",
        r"photos/caf\xe9/\xfc.png",
    ]
    assert len({train.fingerprint, evaluation.fingerprint}) == 2
    os.rename(root + b"/caf\xe9/\xfc.png", root + b"/caf\xe9/\xfd.png")
    again, other, _ = opened(tmp_path / "photos")
    assert {again.fingerprint, other.fingerprint} != {train.fingerprint, evaluation.fingerprint}
    missing = train if any("\udcfc" in f and "caf" in f for f in train.files) else evaluation
    index = next(i for i, f in enumerate(missing.files) if "\udcfc" in f and "caf" in f)
    with pytest.raises(DataError, match=r"caf\\xe9/\\xfc\.png: cannot be read"):
        missing[index]
    os.unlink(root + b"/caf\xe9/1.png")
    with pytest.raises(DataError, match=r"class caf\\xe9 has 1 image"):
        opened(tmp_path / "photos")
    table = tmp_path / "table.csv"
    table.write_bytes(b"image,label\nphotos/caf\xe9/\xfd.png,cat\nphotos/bar/1.png,dog\n")
    with pytest.raises(DataError, match="class cat has 1 image"):
        opened(table)
    table.write_bytes(b"image,label\nphotos/caf\xe9/\xfd.png,caf\xe9\n")
    with pytest.raises(DataError, match=r"has caf\\xe9 in the column label, which is not UTF-8"):
        opened(table)
    with pytest.raises(DataError, match=r"no\\xe9where is not a directory"):
        opened(Path(os.fsdecode(b"/no\xe9where")))
    for text in ("plain", "süß 猫 😺", r"caf\xe9"):
        assert printable(text) == text
    assert printable("a\ud800\udce9") == r"a\ud800\xe9"

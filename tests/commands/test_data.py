"""The commands `resnet-jax data describe` and `resnet-jax data prepare`."""

import contextlib
import importlib
import io
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from resnet_jax.commands.main import main


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two splits, each of six distinct images in two classes."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("circle", "square"):
            (tmp_path / "images" / split / name).mkdir(parents=True)
            for i in range(3):
                pixels = rng.integers(0, 256, (20 + 30 * i, 40, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / "images" / split / name / f"{i}.png")
    return tmp_path / "images"


def run(*argv: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["data", *map(str, argv)])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_a_sound_folder_is_described(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("describe", folder) == 0
    page = capsys.readouterr().out
    assert "train" in page
    assert "validation" in page
    assert "20 to 80, median 50" in page
    assert "0.49" in page or "0.50" in page, "the mean of noise"
    assert "16 to 31         2" in page
    size = sum(path.stat().st_size for path in (folder / "train").rglob("*.png"))
    assert f"{size:,}" in page


def test_damage_and_leaks_between_the_splits_are_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = folder / "val" / "square" / "1.png"
    broken.write_bytes(broken.read_bytes()[:99])
    shutil.copy(folder / "train" / "circle" / "0.png", folder / "val" / "circle" / "again.png")
    shutil.copy(folder / "train" / "circle" / "2.png", folder / "train" / "square" / "other.png")
    assert run("describe", folder) == 1
    page = capsys.readouterr().out
    assert f"damaged: {broken}: no whole image, 99 bytes" in page
    leaked = f"{folder / 'train/circle/0.png'} = {folder / 'val/circle/again.png'}"
    assert f"in train and in validation: {leaked}" in page
    twice = f"{folder / 'train/circle/2.png'} = {folder / 'train/square/other.png'}"
    assert f"twice in train: {twice}" in page


def test_contradictory_labels_and_large_images_are_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = Image.fromarray(load_sample_images().images[0]).resize((160, 120))
    photo.save(folder / "train" / "circle" / "photo.jpg", quality=95)
    photo.resize((200, 150)).save(folder / "train" / "square" / "again.webp", quality=80)
    photo.save(folder / "val" / "square" / "third.jpg", quality=60)
    # Near duplicates with equal labels are not reported.
    photo.save(folder / "train" / "circle" / "fourth.png")
    for name, level in (("circle", 100), ("square", 101)):
        Image.new("L", (30, 30), level).save(folder / "val" / name / "flat.png")
    assert run("describe", folder) == 0
    page = capsys.readouterr().out
    for one, other in (("circle/photo.jpg", "square/again.webp"), ("circle/fourth.png",) * 2):
        line = f"nearly the same with different labels: {folder / 'train' / one} (circle) and "
        if other.startswith("square"):
            line += f"{folder / 'train' / other} (square)"
        assert line in page
    assert page.count("nearly the same") == 4
    assert "flat" not in page

    shutil.copy(folder / "train" / "circle" / "0.png", folder / "train" / "square" / "other.png")
    assert run("describe", folder, "--max-pixels", 160 * 120) == 1
    page = capsys.readouterr().out
    one, other = (folder / "train" / name for name in ("circle/0.png", "square/other.png"))
    assert f"twice in train: {one} = {other}, with different labels" in page
    large = folder / "train" / "square" / "again.webp"
    assert f"too large: {large}: 200 x 150 pixels are more than the limit of 19,200" in page
    assert re.search(r"damaged +│ +0 +│ +0 ", page)


def test_names_that_are_not_utf_8_are_described_and_prepared(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "val"):
        os.rename(folder / split / "circle", os.fsencode(folder / split) + b"/caf\xe9")
    latin = os.fsencode(folder) + b"/val/caf\xe9"
    os.rename(latin + b"/0.png", latin + b"/\xfc.png")
    with open(latin + b"/1.png", "wb") as file:
        file.write(b"no image")
    assert run("describe", folder) == 1
    page = capsys.readouterr().out
    assert rf"damaged: {folder}/val/caf\xe9/1.png: no whole image, 8 bytes" in page
    assert re.search(r"caf\\xe9 +│ +3 +│ +3 ", page)
    assert run("prepare", folder, tmp_path / "tfds", "--name", "shapes") == 0
    names = (tmp_path / "tfds" / "shapes" / "1.0.0" / "label.labels.txt").read_text()
    assert names.split() == [r"caf\xe9", "square"]
    capsys.readouterr()
    assert run("describe", os.fsdecode(os.fsencode(tmp_path) + b"/no\xe9")) == 2
    assert rf"{tmp_path}/no\xe9 is not a directory" in capsys.readouterr().err


def test_damage_that_training_forgives_is_listed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / "train" / "circle" / "0.jpg"
    pixels = np.random.default_rng(0).integers(0, 256, (80, 80, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    assert run("describe", folder) == 0
    assert re.search(r"damaged, but readable +│ +0 ", capsys.readouterr().out)
    content = path.read_bytes()
    path.write_bytes(content[:2000] + bytes(200) + content[2200:])
    (folder / "val" / "circle" / "lost.png").symlink_to("nowhere")
    assert run("describe", folder) == 1
    page = capsys.readouterr().out
    assert re.search(r"damaged +│ +0 +│ +1 ", page)
    assert re.search(r"damaged, but readable +│ +1 +│ +0 ", page)
    assert f"damaged, but readable: {path}: " in page
    assert "lost.png: cannot be read (No such file or directory)" in page


def test_classes_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(24):
        (tmp_path / f"class{i}").mkdir()
        for j in range(2 + i):
            Image.new("L", (4, 4), 8 * i + j).save(tmp_path / f"class{i}" / f"{j}.png")
    run("describe", tmp_path)
    page = capsys.readouterr().out
    assert "images of the 10 smallest and the 10 largest of 24 classes" in page
    assert re.search(r"class0 +│ +1 +│ +1 ", page)
    assert re.search(r"class23 +│ +20 +│ +5 ", page)
    assert "class9 " in page
    assert "class11 " not in page
    for i in range(4, 24):
        shutil.rmtree(tmp_path / f"class{i}")
    run("describe", tmp_path)
    page = capsys.readouterr().out
    assert "smallest" not in page
    assert re.search(r"class3 +│ +4 +│ +1 ", page)


def test_a_prepared_data_set_is_found_and_its_secret_labels_are_told(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import tensorflow_datasets as tfds

    def examples(split: str, label: int) -> Iterator[tuple[str, dict[str, Any]]]:
        for i, path in enumerate(sorted((folder / "train").rglob("*.png"))):
            file = io.BytesIO(path.read_bytes() + split.encode())
            yield str(i), {"picture": file, "kind": label if i else -1}

    class Shapes(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("3.0.2")

        def _info(self) -> tfds.core.DatasetInfo:
            features = {
                "picture": tfds.features.Image(),
                "kind": tfds.features.ClassLabel(names=["circle", "square"]),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, manager: Any) -> dict[str, Any]:  # noqa: ARG002
            return {"train": examples("train", 1), "test": examples("test", -1)}

        def _generate_examples(self) -> Any:
            raise NotImplementedError

    builder = Shapes(data_dir=tmp_path / "tfds", file_format="array_record")
    builder.download_and_prepare(download_dir=tmp_path / "downloads")
    (tmp_path / "tfds" / "shapes" / "3.0.1").mkdir()
    capsys.readouterr()
    keys = ("--image-key", "picture", "--label-key", "kind")
    for source in ((tmp_path / "tfds" / "shapes",), (tmp_path / "tfds", "--name", "shapes")):
        assert run("describe", *source, *keys) == 1
        page = capsys.readouterr().out
        assert re.search(r"images +│ +6 +│ +6 ", page)
        assert re.search(r"classes +│ +2 +│ +no labels ", page)
        assert re.search(r"square +│ +5 ", page)
        assert re.search(r"in train: shapes/3\.0\.2 train, example \d has label -1, but", page)
        assert "test, example" not in page
    assert run("describe", tmp_path / "tfds" / "shapes") == 2
    assert "no feature 'image'; it has kind, picture" in capsys.readouterr().err


def test_a_folder_becomes_a_data_set(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("prepare", folder, tmp_path / "tfds", "--name", "shapes") == 0
    target = tmp_path / "tfds" / "shapes" / "1.0.0"
    page = capsys.readouterr().out
    assert f"Written: {target} (train, validation)" in page
    assert f"imagenet-resnet50 --data.name None --data.directory {target}\n" in page
    assert run("describe", target) == 0
    assert "20 to 80, median 50" in capsys.readouterr().out
    assert run("prepare", folder, tmp_path / "tfds", "--name", "shapes") == 2
    assert "exists; choose another name" in capsys.readouterr().err


def test_a_third_split_is_described_and_prepared(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(folder / "val", folder / "Test")
    (folder / "Test" / "square" / "1.png").unlink()
    assert run("describe", folder) == 1, "two splits share images"
    page = capsys.readouterr().out
    assert re.search(r"train +┃ +validation +┃ +test", page)
    assert re.search(r"images +│ +6 +│ +6 +│ +5 ", page)
    assert run("prepare", folder, tmp_path / "tfds", "--name", "shapes") == 0
    page = capsys.readouterr().out
    assert "1.0.0 (train, validation, test)" in page
    assert "evaluation-split" not in page


def test_a_failed_preparation_leaves_nothing(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "val" / "square" / "1.png").unlink()
    (folder / "val" / "square" / "1.png").symlink_to("nowhere")
    assert run("prepare", folder, tmp_path / "tfds", "--name", "shapes") == 2
    message = "square/1.png: cannot be read (No such file or directory)\n"
    assert capsys.readouterr().err.endswith(message)
    assert not (tmp_path / "tfds").exists()


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("describe", tmp_path / "nowhere") == 2
    assert capsys.readouterr().err.count("\n") == 1
    for name in ("My Data", "ünï", "2d"):
        assert run("prepare", tmp_path, tmp_path / "tfds", "--name", name) == 2
        assert "use lowercase letters" in capsys.readouterr().err
    assert run("prepare", tmp_path, "/proc/no_such_place", "--name", "shapes") == 2
    assert capsys.readouterr().err.count("\n") == 1
    with contextlib.suppress(ImportError):
        importlib.import_module("apache_beam")
        return
    assert run("prepare", tmp_path, tmp_path / "tfds", "--name", "shapes", "--beam=") == 2
    assert capsys.readouterr().err == (
        "error: Apache Beam is not installed: pip install apache-beam, or leave out beam\n"
    )


def test_commands_that_do_not_exist_are_answered_with_those_that_do(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("destroy") == 2
    assert "resnet-jax data describe" in capsys.readouterr().err

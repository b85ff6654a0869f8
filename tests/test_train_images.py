"""Training on images in files, run as a user runs it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.test_train import run

pytestmark = pytest.mark.xdist_group("train_images")

OPTIONS = (
    "--model.name=cifar_resnet20",
    "--data.images.image-size=16",
    "--data.images.augment.policy=trivial",
    "--data.images.augment.mixup-alpha=0.2",
    "--batch-size=16",
    "--optimizer.warmup-epochs=0",
    "--checkpoint.every-steps=4",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 images of a bright or a dark class, without splits."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name, low in (("bright", 128), ("dark", 0)):
        (root / name).mkdir()
        for i in range(24):
            pixels = rng.integers(low, low + 128, (24, 30, 3), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.jpg")
    return root


def test_a_folder_is_trained_on_and_continued_only_while_it_stays_the_same(
    folder: Path, tmp_path: Path
) -> None:
    copy, workdir = tmp_path / "images", tmp_path / "run"
    shutil.copytree(folder, copy)
    options = (*OPTIONS, f"--data.path={copy}", f"--workdir={workdir}")
    process = run("folder-resnet50", *options, "--epochs=4", num_devices=2)
    assert process.returncode == 0, process.stderr
    assert "38 train, 10 validation, 2 classes" in process.stdout
    result = json.loads((workdir / "result.json").read_text())
    assert result["split"] == "validation"
    report = (workdir / "report.html").read_text()
    assert report.count('<img src="data:image/png;base64,') == 10

    # Not complete any more; the data are others.
    (workdir / "result.json").unlink()
    with (copy / "dark" / "0.jpg").open("ab") as file:
        file.write(b"more")
    process = run("folder-resnet50", *options, "--epochs=4", num_devices=2)
    assert process.returncode == 2
    assert "are not those that this run began with" in process.stderr
    assert process.stderr.count("\n") == 1


def test_damaged_images_end_the_run_or_are_reported(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "images"
    shutil.copytree(folder, copy)
    for name in ("bright/3.jpg", "dark/5.jpg"):
        (copy / name).write_bytes((copy / name).read_bytes()[:333])
    options = (*OPTIONS, f"--data.path={copy}", "--epochs=2")
    process = run("folder-resnet50", *options, f"--workdir={tmp_path / 'fail'}")
    assert process.returncode == 2
    assert ".jpg: no whole image, 333 bytes" in process.stderr
    assert "set data.images.on_unreadable to skip" in process.stderr

    skip = ("--data.images.on-unreadable=skip", f"--workdir={tmp_path / 'skip'}")
    process = run("folder-resnet50", *options, *skip)
    assert process.returncode == 0, process.stderr
    assert "Skipped 2 unreadable images, such as" in process.stdout
    assert "2 unreadable images" in (tmp_path / "skip" / "report.html").read_text()


def test_images_that_are_not_there_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    workdir = f"--workdir={tmp_path / 'run'}"
    process = run("folder-resnet50", f"--data.path={tmp_path / 'nowhere'}", workdir)
    assert process.returncode == 2
    assert process.stderr == (
        f"error: {tmp_path / 'nowhere'} is no directory; give the one that holds the images\n"
    )
    process = run("imagenet-resnet50", f"--data.directory={tmp_path}", workdir)
    assert process.returncode == 2
    assert "holds no prepared data set imagenet2012" in process.stderr
    assert process.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()

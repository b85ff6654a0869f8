"""The command `resnet-jax train` on images in files, run as a user runs it."""

import contextlib
import io
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from skimage import data
from sklearn.datasets import load_sample_images

from resnet_jax.training.process.preemption import EXIT_CODE
from tests.commands.test_train import ROOT, Outcome, command, environment, run
from tests.commands.test_train import run_here as run_here
from tests.data.images.test_arrays import prepare
from tests.data.images.test_loading import workers_of
from tests.data.images.test_tfds import prepared as prepared
from tests.data.images.test_tfds import tfrecord as tfrecord

pytestmark = pytest.mark.usefixtures("tiny_networks")

OPTIONS = (
    "--model.name=tiny_resnet",
    "--data.images.image-size=16",
    "--data.images.augment.policy=trivial",
    "--data.images.augment.mixup-alpha=0.2",
    "--batch-size=16",
    "--schedule.warmup-epochs=0",
    "--checkpoint.every-steps=4",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 48 images in two classes, bright and dark, without splits."""
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
    # The images behind the cells have the names of their files.
    names = re.findall(r'<span class="file"[^>]*>([^<]+)</span>', report)
    assert len(set(names)) == 10
    assert {name.partition("/")[0] for name in names} == {"bright", "dark"}

    # The run is no longer marked as complete, and the data have changed.
    (workdir / "result.json").unlink()
    with (copy / "dark" / "0.jpg").open("ab") as file:
        file.write(b"more")
    process = run("folder-resnet50", *options, "--epochs=4", num_devices=2)
    assert process.returncode == 2
    assert "are not those that this run began with" in process.stderr
    assert process.stderr.count("\n") == 1


def test_damaged_images_end_the_run_or_are_reported(
    run_here: Callable[..., Outcome], folder: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "images"
    shutil.copytree(folder, copy)
    for name in ("bright/3.jpg", "dark/5.jpg"):
        (copy / name).write_bytes((copy / name).read_bytes()[:333])
    # Names in Latin-1, as an old archive has them.
    os.rename(copy / "bright", os.fsencode(copy) + b"/h\xe9ll")
    for i in range(24):
        for name in (b"h\xe9ll", b"dark"):
            file = os.fsencode(copy) + b"/%s/%d.jpg" % (name, i)
            os.rename(file, file.replace(b".jpg", b"\xfc.jpg"))
    options = (*OPTIONS, f"--data.path={copy}", "--epochs=2")
    process = run_here("folder-resnet50", *options, f"--workdir={tmp_path / 'fail'}")
    assert process.returncode == 2
    assert ".jpg: no whole image, 333 bytes" in process.stderr
    assert "set data.images.on_unreadable to skip" in process.stderr

    skip = ("--data.images.on-unreadable=skip", f"--workdir={tmp_path / 'skip'}")
    process = run_here("folder-resnet50", *options, *skip)
    assert process.returncode == 0, process.stderr
    assert re.search(r"Skipped 2 unreadable images, such as .*\.jpg: .*333 bytes", process.stdout)
    report = (tmp_path / "skip" / "report.html").read_text()
    assert "2 unreadable images" in report
    assert r"h\xe9ll" in report
    model = json.loads((tmp_path / "skip" / "model.json").read_text())
    assert model["class_names"] == ["dark", r"h\xe9ll"]


def test_images_that_are_not_there_are_refused_before_anything_is_written(
    run_here: Callable[..., Outcome], tmp_path: Path
) -> None:
    workdir = f"--workdir={tmp_path / 'run'}"
    process = run_here("folder-resnet50", f"--data.path={tmp_path / 'nowhere'}", workdir)
    assert process.returncode == 2
    assert process.stderr == (
        f"error: {tmp_path / 'nowhere'} does not exist; set data.path to the directory or table of "
        "the images\n"
    )
    process = run_here("imagenet-resnet50", f"--data.directory={tmp_path}", workdir)
    assert process.returncode == 2
    assert "does not contain a prepared data set imagenet2012" in process.stderr
    assert process.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_small_imagenet_goes_through_the_recipe_of_imagenet(tmp_path: Path) -> None:
    """A data set with the features of imagenet2012. Each class is crops of one photograph."""
    photos = [*load_sample_images().images, data.astronaut(), data.coffee(), data.chelsea()]
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("validation", 3)):
        for label, photo in enumerate(photos):
            (tmp_path / "photos" / split / str(label)).mkdir(parents=True)
            for i in range(count):
                height = int(rng.integers(48, min(375, photo.shape[0]) + 1))
                width = min(int(rng.integers(64, 501)), photo.shape[1])
                top, left = (
                    int(rng.integers(whole - part + 1))
                    for whole, part in zip(photo.shape[:2], (height, width), strict=True)
                )
                part = Image.fromarray(photo[top : top + height, left : left + width])
                part.save(tmp_path / "photos" / split / str(label) / f"{i}.jpg", quality=95)
    root = imagenet_like(tmp_path / "photos", tmp_path / "tfds")
    process = run(
        "imagenet-resnet50",
        f"--data.directory={root}",
        f"--workdir={tmp_path / 'run'}",
        "--model.name=tiny_resnet",
        "--data.images.image-size=32",
        "--batch-size=20",
        "--epochs=8",
        num_devices=2,
    )
    assert process.returncode == 0, process.stderr
    assert "40 train, 15 validation, 5 classes" in process.stdout
    assert json.loads((tmp_path / "run" / "result.json").read_text())["split"] == "validation"


def imagenet_like(photos: Path, root: Path) -> Path:
    features = {
        "image": tfds.features.Image(encoding_format="jpeg"),
        "label": tfds.features.ClassLabel(num_classes=5),
        "file_name": tfds.features.Text(),
    }

    def examples(split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for path in sorted((photos / split).rglob("*.jpg")):
            name = str(path.relative_to(photos))
            image = io.BytesIO(path.read_bytes())
            yield name, {"image": image, "label": int(path.parent.name), "file_name": name}

    class Imagenet2012(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = "imagenet2012"
        VERSION = tfds.core.Version("5.1.0")

        def _info(self) -> tfds.core.DatasetInfo:
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, manager: Any) -> dict[str, Any]:  # noqa: ARG002
            return {split: examples(split) for split in ("train", "validation")}

        def _generate_examples(self) -> Any:
            raise NotImplementedError

    builder = Imagenet2012(data_dir=root, file_format="array_record")
    builder.download_and_prepare(download_dir=root / "downloads")
    return root


def test_cifar_is_trained_on_in_memory(run_here: Callable[..., Outcome], tmp_path: Path) -> None:
    root = prepare(tmp_path, "cifar_like", "array_record")
    process = run_here(
        "cifar10-resnet20",
        "--model.name=tiny_resnet",
        f"--data.directory={root}",
        "--data.name=cifar_like",
        f"--workdir={tmp_path / 'run'}",
        "--batch-size=16",
        "--epochs=4",
        *("--schedule.decay-epochs", "2", "3"),
        "--log-every-steps=1",
    )
    assert process.returncode == 0, process.stderr
    assert "37 train, 11 test, 10 classes" in process.stdout
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    rates = {record["learning_rate"] for record in records if "learning_rate" in record}
    assert max(rates) == pytest.approx(0.1)
    assert min(rates) == pytest.approx(0.001)


def test_a_table_is_trained_on(
    run_here: Callable[..., Outcome], folder: Path, tmp_path: Path
) -> None:
    files = sorted(folder.rglob("*.jpg"))
    rows = [
        {"image": os.path.relpath(file, tmp_path), "label": file.parent.name, "split": split}
        for file, split in zip(files, itertools.cycle(["train"] * 5 + ["test"]), strict=False)
    ]
    table = tmp_path / "table.jsonl"
    table.write_text("\n".join(map(json.dumps, rows)))
    workdir = f"--workdir={tmp_path / 'run'}"
    process = run_here("folder-resnet50", *OPTIONS, f"--data.path={table}", workdir, "--epochs=1")
    assert process.returncode == 0, process.stderr
    assert "40 train, 8 test, 2 classes" in process.stdout


def test_tfrecords_are_trained_on(
    run_here: Callable[..., Outcome], tfrecord: Path, tmp_path: Path
) -> None:
    workdir = f"--workdir={tmp_path / 'run'}"
    options = ("--data.name=None", f"--data.directory={tfrecord}", "--epochs=1")
    process = run_here("imagenet-resnet18", *OPTIONS, *options, workdir)
    assert process.returncode == 0, process.stderr
    assert "38 train, 10 validation, 2 classes" in process.stdout


@pytest.mark.parametrize("event", [signal.SIGTERM, signal.SIGKILL, "worker"], ids=str)
def test_no_worker_outlives_a_run(folder: Path, tmp_path: Path, event: Any) -> None:
    errors = tmp_path / "errors"
    with errors.open("w") as stderr:
        process = subprocess.Popen(
            command(
                "folder-resnet50",
                *OPTIONS,
                f"--data.path={folder}",
                f"--workdir={tmp_path / 'run'}",
                "--data.images.threads=1",
                "--data.images.workers=2",
                "--epochs=100000",
                "--evaluate-every-epochs=100000",
                "--checkpoint.every-steps=100000",
                "--log-every-steps=1",
            ),
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
            env=environment(1),
            cwd=ROOT,
        )
    try:
        metrics, deadline = tmp_path / "run" / "metrics.jsonl", time.monotonic() + 240
        while not (metrics.exists() and '"step": 3,' in metrics.read_text()):
            assert process.poll() is None, errors.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        workers = workers_of(process.pid)
        assert len(workers) >= 2
        if event == "worker":
            os.kill(workers[-1], signal.SIGKILL)
        else:
            os.kill(process.pid, event)
        code = process.wait(timeout=120)
        deadline = time.monotonic() + 60
        while workers_of(process.pid) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not workers_of(process.pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    if event == "worker":
        assert code == 2
        assert "error: a loading process was killed, often for want of memory" in errors.read_text()
        assert "Traceback" not in errors.read_text()
    else:
        assert code == (EXIT_CODE if event == signal.SIGTERM else -signal.SIGKILL)

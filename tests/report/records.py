"""Records of reports for tests: small, random, and with mistakes that are known."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from resnet_jax.config import load_experiment
from resnet_jax.report import EvaluationRecord, RunRecord, write_report

PHOTO_NAMES = ("sea lion", "leatherback turtle, leathery turtle, Dermochelys coriacea", "ox")
"""Names of classes as short and as long as those of ImageNet."""


def evaluation_record(
    num_classes: int = 5,
    num_images: int = 40,
    *,
    channels: int = 3,
    size: int = 8,
    skipped: int = 0,
    **changes: Any,
) -> EvaluationRecord:
    """Return an evaluation with exactly two mistakes, of the images 0 and 1 of class 1.

    Image 0 is taken for class 2, and image 1, more confidently, for class 0.
    """
    rng = np.random.default_rng(0)
    labels = rng.integers(0, num_classes, num_images).astype(np.int32)
    logits = rng.normal(size=(num_images, num_classes)).astype(np.float32)
    logits[np.arange(num_images), labels] += 8
    labels[:2], logits[:2] = 1, 0
    logits[0, 2], logits[1, 0] = 5, 9
    images = rng.integers(0, 256, (num_images, size, size, channels), np.uint8)
    record = EvaluationRecord(
        split="test",
        class_names=[f"class{i}" for i in range(num_classes)],
        labels=labels,
        logits=logits,
        mask=np.arange(num_images) >= skipped,
        image=images.__getitem__,
        name=lambda index: f"photos/{index}.jpg",
    )
    return dataclasses.replace(record, **changes)


def mistaken(num_classes: int, num_images: int, names: list[str], size: int) -> EvaluationRecord:
    """Return an evaluation of smooth images in which about a fifth is classified wrongly."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, num_classes, num_images)
    logits = rng.normal(size=(num_images, num_classes)).astype(np.float32)
    logits[np.arange(num_images), labels] += rng.normal(4, 2, num_images).astype(np.float32)

    def image(index: int) -> np.ndarray:
        draw = np.random.default_rng(index)
        y, x = np.mgrid[:size, :size] / size
        center, color = draw.random(2), draw.random(3)
        spot = np.exp(-8 * ((y - center[0]) ** 2 + (x - center[1]) ** 2))[..., None]
        return np.rint(255 * (0.2 + 0.8 * spot * color)).astype(np.uint8)

    return evaluation_record(
        num_classes,
        num_images,
        class_names=names,
        labels=labels,
        logits=logits,
        image=image,
        name=lambda index: f"{names[labels[index]]}/IMG_{index:05}.JPEG",
        explain=lambda images, _: images[..., 0] / 255,
    )


def large() -> EvaluationRecord:
    """Return 50,000 images of 1,000 classes; a quarter is taken for the next class or for 7."""
    count, num_classes = 50_000, 1000
    labels = np.arange(count) % num_classes
    predictions = np.where(np.arange(count) % 4, labels, (labels + 1) % num_classes)
    predictions[::16] = 7
    logits = np.zeros((count, num_classes), np.float32)
    logits[np.arange(count), predictions] = np.linspace(5, 12, count)
    noise = np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)
    return EvaluationRecord(
        split="validation",
        class_names=[f"class {i} with a long name, as in ImageNet" for i in range(1000)],
        labels=labels,
        logits=logits,
        mask=np.ones(count, bool),
        image=lambda _: noise,
        name=lambda index: f"val/ILSVRC2012_val_{index:08}.JPEG",
    )


def run_record(**changes: Any) -> RunRecord:
    """Return the record of a run of 60 steps, with every section of the page."""
    kinds = [(step, "train") for step in range(1, 61)] + [(20, "test"), (40, "test"), (60, "test")]
    record = RunRecord(
        title="resnet18 on photos",
        facts={"model": "resnet18", "command": "resnet-jax train folder-resnet50"},
        headline={"test top-1": "95.00%", "parameters": "11,181,642"},
        records=[
            {
                "step": step,
                "epoch": step / 20,
                "kind": kind,
                "loss": 2 / step,
                "top1": 1 - 1 / step,
                "learning_rate": 0.1 * (1 - step / 60),
                "images_per_second": 100.0 + step % 7,
            }
            for step, kind in sorted(kinds)
        ],
        config=load_experiment("digits-resnet20").config.to_json(),
        goodput={"training steps": 0.8, "compilation": 0.15, "checkpoints": 0.05},
        operations=[("fusion.1", "stage1/block1/conv1", 0.002, 0.6), ("copy", "", 0.001, 0.4)],
        evaluation=evaluation_record(),
        kernels=np.random.default_rng(0).normal(size=(3, 3, 3, 16)).astype(np.float32),
    )
    return dataclasses.replace(record, **changes)


def write(path: Path, record: RunRecord) -> str:
    """Write a report to a file, and return its text."""
    write_report(path, record)
    return path.read_text()

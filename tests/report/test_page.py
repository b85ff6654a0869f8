"""The report shows the numbers of a run."""

import re
from pathlib import Path

import numpy as np
import pytest

from resnet_jax.report import RunRecord, write_report
from resnet_jax.report.records import confusion_matrix


def test_confusion_matrix_has_the_truth_in_its_rows() -> None:
    matrix = confusion_matrix(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0]), 3)
    np.testing.assert_array_equal(matrix, [[1, 1, 0], [0, 1, 0], [1, 0, 0]])


def report(
    tmp_path: Path, *, num_classes: int, channels: int, title: str = "a run", skipped: int = 0
) -> str:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, num_classes, 40).astype(np.int32)
    logits = rng.normal(size=(40, num_classes)).astype(np.float32)
    logits[np.arange(40), labels] += 8
    # Two images are clearly misclassified, and the second error is worse.
    labels[:2], logits[:2] = 1, 0
    logits[0, 2], logits[1, 0] = 5, 9
    path = tmp_path / "report.html"
    record = RunRecord(
        title=title,
        facts={"model": "resnet18"},
        headline={"test top-1": "95.00%"},
        records=[
            {
                "step": step,
                "kind": kind,
                "loss": 1 / step,
                "top1": 1 - 1 / step,
                "learning_rate": 0.1,
                "images_per_second": 10.0,
            }
            for step in (1, 2, 3)
            for kind in ("train", "test")
        ],
        split="test",
        class_names=[f"class{i}" for i in range(num_classes)],
        image=rng.integers(0, 256, (40, 8, 8, channels), np.uint8).__getitem__,
        labels=labels,
        logits=logits,
        mask=np.arange(40) >= skipped,
        config={"seed": 0},
    )
    write_report(path, record)
    return path.read_text()


@pytest.mark.parametrize("channels", [1, 3])
def test_the_worst_images_come_first(tmp_path: Path, channels: int) -> None:
    page = report(tmp_path, num_classes=5, channels=channels)
    captions = re.findall(
        r"true (\w+)<br>\s*<span .*?>predicted (\w+)</span><br>\s*<span .*?>p\(true\) ([\d.]+)",
        page,
    )
    assert [(true, predicted) for true, predicted, _ in captions[:3]] == [
        ("class1", "class0"),
        ("class1", "class2"),
        (captions[2][0], captions[2][0]),
    ]
    probabilities = [float(p) for *_, p in captions]
    assert probabilities == sorted(probabilities)
    assert "2 of 40 images" in page


def test_many_classes_get_no_matrix_but_their_confusions(tmp_path: Path) -> None:
    page = report(tmp_path, num_classes=200, channels=3)
    assert page.count("<svg") == 4
    assert "<td>class1</td><td>class2</td><td>1</td>" in page


def test_names_cannot_break_the_page(tmp_path: Path) -> None:
    page = report(tmp_path, num_classes=5, channels=3, title="<script>alert(1)</script>")
    assert "<script>" not in page


def test_the_same_run_gives_the_same_report(tmp_path: Path) -> None:
    assert report(tmp_path, num_classes=5, channels=3) == report(
        tmp_path, num_classes=5, channels=3
    )


def test_skipped_images_are_counted_nowhere(tmp_path: Path) -> None:
    page = report(tmp_path, num_classes=5, channels=3, skipped=1)
    # Without the mask there would be a second error: the first image is of class 1 and is
    # classified as 2.
    assert "1 of 39 images" in page
    assert "Unreadable images, which are left out of all counts: 1." in page
    assert "<td>class1</td><td>class2</td>" not in page
    assert page.count("<figure") == 24
    assert "<td>class1</td><td>class0</td><td>1</td>" in page

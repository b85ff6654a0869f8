"""The command `resnet-jax predict`, from files to tables, and what it says to mistakes."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from resnet_jax import Classifier
from resnet_jax.commands import predict
from resnet_jax.commands.main import main
from tests.commands.conftest import CLASSES


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with five photos."""
    directory = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i in range(5):
        (directory / f"class{i % 2}").mkdir(exist_ok=True)
        pixels = rng.integers(0, 256, (36, 40, 3), np.uint8)
        Image.fromarray(pixels).save(directory / f"class{i % 2}" / f"{i}.png")
    return directory


@pytest.fixture(scope="module")
def expected(repository: Path, photos: Path) -> dict[str, Any]:
    """For each photo the probabilities of the classes, and the features."""
    classifier = Classifier.from_pretrained(repository)
    files = sorted(photos.glob("*/*.png"))
    return {
        str(file): (probabilities, features)
        for file, probabilities, features in zip(
            files, classifier(files), classifier.embed(files), strict=True
        )
    }


def run(*argv: str | Path) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["predict", *map(str, argv)])
    return int(ended.value.code or 0)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_table_in_the_terminal(
    repository: Path,
    photos: Path,
    expected: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(repository, photos, "--top", "2") == 0
    out, err = capsys.readouterr()
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["image", "class", "probability"]
    for i, (file, (probabilities, _)) in enumerate(expected.items()):
        first, second = lines[1 + 2 * i], lines[2 + 2 * i]
        best = np.argsort(-probabilities)
        assert first == [file, CLASSES[best[0]], f"{probabilities[best[0]]:.4f}"]
        assert second == [CLASSES[best[1]], f"{probabilities[best[1]]:.4f}"]
    assert err.startswith("5 images in ")
    assert "images/s" in err


def test_tables_and_features_of_the_same_images(
    repository: Path, photos: Path, expected: dict[str, Any], tmp_path: Path
) -> None:
    table, features = tmp_path / "x.csv", tmp_path / "x.npy"
    code = run(repository, photos, "--output", table, "--features", features, "--batch-size", "2")
    assert code == 0
    rows = read(table)
    assert [row["image"] for row in rows] == list(expected)
    for row, (probabilities, _) in zip(rows, expected.values(), strict=True):
        assert row["class_1"] == CLASSES[probabilities.argmax()]
        assert int(row["class_index_1"]) == probabilities.argmax()
        assert float(row["probability_1"]) == pytest.approx(probabilities.max(), rel=1e-4)
    np.testing.assert_allclose(np.load(features), [f for _, f in expected.values()], rtol=1e-4)
    assert run(repository, photos, "--output", tmp_path / "y.jsonl", "--layout", "long") == 0
    lines = [json.loads(line) for line in (tmp_path / "y.jsonl").read_text().splitlines()]
    assert [line["rank"] for line in lines[:4]] == [1, 2, 3, 1]


def test_unreadable_images_are_listed_and_set_the_exit_code(
    repository: Path,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    damaged, large = tmp_path / "damaged.jpg", tmp_path / "large.png"
    damaged.write_bytes(b"no image")
    Image.new("RGB", (60, 50)).save(large)
    good = str(photos / "class0" / "0.png")
    listed = "\n".join([str(damaged), good, "absent.jpg", str(large), good])
    stdin = types.SimpleNamespace(buffer=io.BytesIO(listed.encode()))
    monkeypatch.setattr("sys.stdin", stdin)
    table = tmp_path / "x.csv"
    assert run(repository, "-", "--output", table, "--max-pixels", "2000") == 1
    assert [row["image"] for row in read(table)] == [good, good]
    err = capsys.readouterr().err
    assert "3 images could not be read:" in err
    assert f"  {damaged}: no whole image, 8 bytes" in err
    assert "  absent.jpg: No such file or directory" in err
    assert f"  {large}: 60 x 50 pixels are more than the limit of 2,000" in err
    assert "--max-pixels" in err


def test_a_threshold_decides(
    repository: Path, photos: Path, expected: dict[str, Any], tmp_path: Path
) -> None:
    highest = sorted(probabilities.max() for probabilities, _ in expected.values())
    threshold = (highest[1] + highest[2]) / 2
    code = run(
        *(repository, photos, "--top", "1", "--threshold", f"{threshold:.6f}"),
        *("--output", tmp_path / "x.csv"),
    )
    assert code == 0
    decisions = [row["decision"] for row in read(tmp_path / "x.csv")]
    assert decisions == [
        CLASSES[p.argmax()] if p.max() >= threshold else "uncertain" for p, _ in expected.values()
    ]
    assert decisions.count("uncertain") == 2


def test_a_threshold_without_a_value_is_the_calibrated_one(
    repository: Path,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = tmp_path / "x.csv"
    assert run(repository, "--threshold", photos, "--output", table) == 2
    assert "has no calibrated threshold; give one, such as --threshold 0.5" in (
        capsys.readouterr().err
    )
    assert not table.exists()
    load = predict._load

    def calibrated(arguments: predict.Arguments) -> Any:
        classifier: Any = load(arguments)
        classifier.calibration = types.SimpleNamespace(threshold=1.0, temperature=1.0)
        return classifier

    monkeypatch.setattr(predict, "_load", calibrated)
    assert run(repository, photos, "--output", table, "--threshold") == 0
    assert {row["decision"] for row in read(table)} == {"uncertain"}


def test_neighbors_are_images_of_a_folder(
    repository: Path, photos: Path, expected: dict[str, Any], tmp_path: Path
) -> None:
    code = run(
        *(repository, photos / "class0", "--neighbors", photos, "--top", "2"),
        *("--output", tmp_path / "x.csv", "--tta", "none"),
    )
    assert code == 0
    rows = read(tmp_path / "x.csv")
    features = np.array([features for _, features in expected.values()])
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    similarities = features @ features.T
    names = list(expected)
    assert [row["image"] for row in rows] == names[:3]
    for i, row in enumerate(rows):
        nearest = [k for k in np.argsort(-similarities[i]) if k != i][:2]
        assert [row["neighbor_1"], row["neighbor_2"]] == [names[k] for k in nearest]
        assert float(row["similarity_1"]) == pytest.approx(similarities[i, nearest[0]], abs=1e-5)


def test_only_an_image_of_the_folder_is_left_out_of_the_neighbors(
    repository: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The other photo has all images of the folder as neighbors, the first one itself not.
    own, other = str(photos / "class1" / "1.png"), str(photos / "class0" / "0.png")
    assert run(repository, own, other, "--neighbors", photos / "class1", "--top", "2") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    files = [[word for word in line if word.endswith(".png")] for line in lines]
    assert files[0] == [own, str(photos / "class1" / "3.png")]
    assert files[1] == []
    assert files[2][0] == other
    assert {files[2][1], *files[3]} == {own, str(photos / "class1" / "3.png")}


def test_views_change_the_result(
    repository: Path, photos: Path, expected: dict[str, Any], tmp_path: Path
) -> None:
    for tta in ("flip", "five-crop"):
        path = tmp_path / f"{tta}.csv"
        assert run(repository, photos, "--tta", tta, "--output", path) == 0
        changes = [
            abs(float(row["probability_1"]) - probabilities.max())
            for row, (probabilities, _) in zip(read(path), expected.values(), strict=True)
        ]
        assert max(changes) > 1e-3


def test_mistakes_get_one_line_and_change_nothing(
    repository: Path,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("old.csv").write_text("precious")
    Path("empty").mkdir()
    Path("weights.pth").write_bytes(b"")
    for argv, message in (
        ((repository,), "name at least one file or folder"),
        ((repository, "absent.jpg"), "absent.jpg: there is no such file or folder"),
        ((repository, "empty"), "empty has no images"),
        ((repository, photos, "--neighbors", "empty"), "empty has no images"),
        ((repository, photos, "--top", "0"), "--top must be at least 1, but it is 0"),
        ((repository, photos, "--max-pixels", "0"), "--max-pixels must be at least 1"),
        ((repository, photos, "--threshold", "1.5"), "--threshold must be from 0 to 1"),
        ((repository, photos, "--tta", "ten-crop"), "ten-crop"),
        ((repository, photos, "--output", "x.txt"), "must end with .csv or .jsonl or .parquet"),
        ((repository, photos, "--features", "x.csv"), "must end with .npy or .parquet"),
        ((repository, photos, "--output", "old.csv"), "old.csv exists; choose another name"),
        ((repository, photos, "--output", "absent/x.csv"), "absent/x.csv cannot be written"),
        (
            (repository, photos, "--output", "x.parquet", "--features", "x.parquet"),
            "--output and --features need two different files",
        ),
        (("absent_run", photos), "absent_run"),
        (("empty", photos, "--output", "x.csv"), "there is no checkpoint"),
        (("weights.pth", photos), "--model resnet50"),
        ((repository, photos, "--outptu", "x.csv"), "did you mean --output?"),
    ):
        assert run(*argv) == 2, argv
        out, err = capsys.readouterr()
        assert err.startswith("error: "), argv
        assert message in err, argv
        assert err.count("\n") == 1, argv
        assert not out, argv
    assert Path("old.csv").read_text() == "precious"
    assert sorted(os.listdir()) == ["empty", "old.csv", "weights.pth"]
    assert run(repository, photos, "--output", "old.csv", "--overwrite") == 0
    assert len(read(Path("old.csv"))) == 5


@pytest.mark.skipif(not os.path.isdir("/sys/kernel"), reason="needs a folder that root cannot use")
def test_a_folder_without_permission_is_refused(
    repository: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(repository, photos, "--output", "/sys/x.csv") == 2
    assert "error: /sys/x.csv cannot be written: " in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_a_valid_partial_file(
    repository: Path, photos: Path, tmp_path: Path, number: int, code: int
) -> None:
    import pyarrow.parquet as pq

    # The list on standard input does not end before the signal.
    good = str(photos / "class0" / "0.png") + "\n"
    command = [
        *(sys.executable, "-m", "resnet_jax", "predict", repository, "-", "--batch-size", "4"),
        *("--output", tmp_path / "x.csv", "--features", tmp_path / "x.parquet"),
    ]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        assert process.stdin is not None
        partial = tmp_path / "x.partial.csv"
        deadline = time.monotonic() + 240
        while process.poll() is None and time.monotonic() < deadline:
            process.stdin.write(good * 100)
            # Buffered rows are on the disk from time to time.
            if partial.exists() and partial.stat().st_size > 1000:
                break
        process.send_signal(number)
        _, err = process.communicate(timeout=240)
    assert process.returncode == code, err
    assert f"the results so far are in {partial} and {tmp_path / 'x.partial.parquet'}" in err
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        *("x.partial.csv", "x.partial.parquet")
    ]
    rows = read(partial)
    assert len(rows) > 4
    assert all(row["image"] + "\n" == good and row["class_index_3"] for row in rows)
    assert pq.read_table(tmp_path / "x.partial.parquet").num_rows == len(rows)

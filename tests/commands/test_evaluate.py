"""`resnet-jax evaluate` and `resnet-jax compare`, from run directories to files."""

import csv
import json
import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resnet_jax.commands.main import main
from resnet_jax.config import DataConfig, FolderConfig, ImageConfig, SyntheticConfig
from resnet_jax.data.labeled import open_labeled, open_labeled_config
from resnet_jax.inference import Classifier
from resnet_jax.inference.calibration import CALIBRATION_FILE
from resnet_jax.inference.evaluation import evaluate
from resnet_jax.inference.stream import stream
from resnet_jax.models.variants import _VARIANTS
from tests.inference.test_classifier import write_run
from tests.training.tiny_train import NETWORKS


def run(*argv: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(map(str, argv)))
    return int(ended.value.code or 0)


def fails(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    """Run a command that refuses its input, and return its one line."""
    assert run(*argv) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.fixture(scope="module", autouse=True)
def known_networks() -> Iterator[None]:
    """Make the networks of `tests/training/tiny_train.py` known."""
    with pytest.MonkeyPatch.context() as patch:
        for name, fields in NETWORKS.items():
            patch.setitem(_VARIANTS, name, fields)
        yield


def write_tiny_run(path: Path, data: DataConfig) -> Path:
    return write_run(path, data, network="tiny_resnet").path


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for split, count in (("train", 2), ("val", 12), ("test", 5)):
        for name in ("cat", "dog"):
            directory = root / split / name
            directory.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (20, 20, 3)) // 4 + rng.integers(0, 190, 3)
                Image.fromarray(pixels.astype(np.uint8)).save(directory / f"{name}{i}.png")
    return root


@pytest.fixture(scope="module")
def trained(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the photos with random weights, which classifies three of four images correctly."""
    config = FolderConfig(str(photos), images=ImageConfig(image_size=16))
    path = write_tiny_run(tmp_path_factory.mktemp("runs") / "a", config)
    classifier = Classifier.load(path)
    for split in ("val", "test"):
        files = sorted((photos / split).rglob("*.png"))
        logits = classifier.logits(files)
        order = np.argsort(logits[:, 0] - logits[:, 1])
        # The upper half becomes cats, but for every fourth image.
        is_cat = (np.arange(len(files)) >= len(files) // 2) ^ (np.arange(len(files)) % 4 == 0)
        for i, cat in zip(order, is_cat, strict=True):
            files[i].rename(photos / split / ("cat" if cat else "dog") / files[i].name)
    return path


@pytest.fixture
def own(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may change."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def test_a_run_is_evaluated_on_its_own_split(
    trained: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "result.json"
    assert run("evaluate", trained, "--output", output) == 0
    result = json.loads(output.read_text())
    classifier = Classifier.load(trained)
    expected = evaluate(classifier, open_labeled(str(photos), "validation"))
    assert result["split"] == "validation"
    assert result["measures"]["nll"] == pytest.approx(expected.measures.nll, rel=1e-5)
    assert result["measures"]["images"] == 24
    assert result["model"] == str(trained)
    page = capsys.readouterr().out
    assert f"{100 * expected.measures.top1:.2f}" in page
    assert "24 images" in page
    assert "cat" in page
    assert "images/s" in page
    assert str(output) in page


def test_a_folder_is_evaluated_on_its_test_split(
    trained: Path, photos: Path, tmp_path: Path
) -> None:
    output = tmp_path / "result.json"
    assert run("evaluate", trained, "--data", photos, "--output", output) == 0
    result = json.loads(output.read_text())
    assert (result["split"], result["measures"]["images"]) == ("test", 10)
    command = ("evaluate", trained, "--data", photos / "train", "--output", output)
    assert run(*command, "--overwrite") == 0
    assert json.loads(output.read_text())["split"] == "all"


def test_mirror_images_are_averaged(trained: Path, photos: Path, tmp_path: Path) -> None:
    output = tmp_path / "result.json"
    command = ("evaluate", trained, "--data", photos, "--tta", "flip", "--output", output)
    assert run(*command) == 0
    result = json.loads(output.read_text())
    classifier, data = Classifier.load(trained), open_labeled(str(photos), "test")
    streamed = stream(classifier, [data[index].image for index in range(len(data))], tta="flip")
    found = evaluate(classifier, data, tta="flip")
    np.testing.assert_allclose(found.logits, [item.logits for item in streamed], rtol=1e-5)
    assert result["tta"] == "flip"
    assert result["measures"]["nll"] == pytest.approx(found.measures.nll, rel=1e-5)
    assert found.measures.nll != pytest.approx(evaluate(classifier, data).measures.nll, rel=1e-5)


def test_data_in_memory_are_those_of_the_run(tmp_path: Path) -> None:
    config = SyntheticConfig(image_size=8, num_classes=3, train_examples=8, test_examples=12)
    path = write_tiny_run(tmp_path / "run", config)
    output = tmp_path / "result.json"
    assert run("evaluate", path, "--output", output) == 0
    found = evaluate(Classifier.load(path), open_labeled_config(config))
    result = json.loads(output.read_text())
    assert result["measures"]["images"] == 12
    assert result["measures"]["top1"] == found.measures.top1


def test_the_folder_of_a_run_is_not_evaluated_on_training_images(
    tmp_path: Path, photos: Path
) -> None:
    flat = Path(shutil.copytree(photos / "val", tmp_path / "flat"))
    config = FolderConfig(str(flat), evaluation_share=0.25, images=ImageConfig(image_size=16))
    path = write_tiny_run(tmp_path / "run", config)
    output = tmp_path / "result.json"
    # The same folder by another path.
    command = ("evaluate", path, "--data", f"{flat}/../flat", "--output", output)
    assert run(*command) == 0
    result = json.loads(output.read_text())
    assert (result["split"], result["measures"]["images"]) == ("validation", 6)
    assert run(*command, "--split", "all", "--overwrite") == 0
    assert json.loads(output.read_text())["measures"]["images"] == 24


def test_temperature_and_threshold_are_stored_and_used(
    own: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    output = tmp_path / "result.json"
    command = ("evaluate", own, "--temperature", "--threshold", "0.5", "--output", output)
    code = run(*command, "--split", "test")
    page = capsys.readouterr().out
    assert code == 0, page
    stored = json.loads((own / CALIBRATION_FILE).read_text())
    assert stored["temperature_fitted_on"]["split"] == "validation"
    assert stored["temperature_fitted_on"]["images"] == 24
    assert f"temperature {stored['temperature']:.4f}" in page
    assert "are certain" in page
    classifier = Classifier.load(own)
    assert classifier.calibration.temperature == stored["temperature"] != 1
    assert Classifier.from_pretrained(own).calibration == classifier.calibration
    result = json.loads(output.read_text())
    assert result["calibration"]["threshold"] == stored["threshold"]
    # The stored values are used from now on, and are not replaced by accident.
    assert run("evaluate", own, "--split", "test", "--output", output, "--overwrite") == 0
    assert json.loads(output.read_text())["measures"] == result["measures"]
    capsys.readouterr()
    assert "exists; give another path, or replace it with --overwrite" in fails(
        capsys, "evaluate", own, "--temperature"
    )
    assert "cannot" not in fails(capsys, "evaluate", own, "--threshold", "95")
    assert "no threshold reaches" in fails(capsys, *command[:2], "--threshold", "1", "--overwrite")
    assert json.loads((own / CALIBRATION_FILE).read_text()) == stored


def test_corruptions_are_in_the_results(
    trained: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "result.json"
    assert (
        run("evaluate", trained, "--data", photos / "train", "--corruptions", "--output", output)
        == 0
    )
    result = json.loads(output.read_text())
    assert len(result["corruptions"]) == 8
    assert {len(row) for row in result["corruptions"].values()} == {5}
    page = capsys.readouterr().out
    assert "jpeg compression" in page
    assert "imagenet-c" not in page.lower()


def test_the_page_has_the_results_the_images_and_the_curve(
    trained: Path, photos: Path, tmp_path: Path
) -> None:
    path = tmp_path / "page.html"
    command = ("evaluate", trained, "--data", photos, "--report", path)
    assert run(*command) == 0
    plain = path.read_text()
    found = evaluate(Classifier.load(trained), open_labeled(str(photos)))
    assert f"{100 * found.measures.top1:.2f} %" in plain
    assert found.names[int(np.flatnonzero(~found.scores.top1)[0])] in plain
    assert "corrupted" not in plain
    assert run(*command, "--corruptions", "--overwrite") == 0
    page = path.read_text()
    assert "Top-1 accuracy on corrupted images" in page
    assert "shot noise" in page


def test_unreadable_images_are_reported_or_end_the_command(
    trained: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Path(shutil.copytree(photos / "val", tmp_path / "val"))
    broken = next((data / "cat").iterdir())
    broken.write_bytes(b"no image")
    message = fails(capsys, "evaluate", trained, "--data", data)
    assert str(broken) in message
    assert "--on-unreadable skip" in message
    assert run("evaluate", trained, "--data", data, "--on-unreadable", "skip") == 1
    captured = capsys.readouterr()
    assert f"skipped {broken}" in captured.err
    assert "23 images" in captured.out


def test_two_runs_are_compared_on_the_same_images(
    trained: Path, own: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The checkpoint of step 0 has another head.
    older = own / "checkpoints" / "0"
    table = tmp_path / "differences.csv"
    command = ("compare", trained, older, "--data", photos, "--split", "val")
    assert run(*command, "--output", table) == 0
    page = capsys.readouterr().out
    assert "McNemar's exact test: p = " in page
    assert "both right" in page
    rows = list(csv.DictReader(table.read_text().splitlines()))
    found = [
        evaluate(Classifier.load(path), open_labeled(str(photos), "validation"))
        for path in (trained, older)
    ]
    predictions = [one.scores.prediction for one in found]
    assert [row["name"] for row in rows] == [
        found[0].names[i] for i in np.flatnonzero(predictions[0] != predictions[1])
    ]
    assert run(*command, "--output", tmp_path / "all.json") == 0
    result = json.loads((tmp_path / "all.json").read_text())
    assert result["a"]["nll"] == pytest.approx(found[0].measures.nll, rel=1e-5)
    assert len(result["disagreements"]) == len(rows)


def test_mistakes_are_answered_in_one_line(
    trained: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*argv: object) -> str:
        return fails(capsys, "evaluate", *argv)

    (tmp_path / "empty").mkdir()
    half = tmp_path / "half"
    (half / "checkpoints").mkdir(parents=True)
    shutil.copy(trained / "config.json", half)
    damaged = tmp_path / "damaged"
    (damaged / "checkpoints").mkdir(parents=True)
    (damaged / "config.json").write_text("{")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "config.json").write_text('{"architectures": ["ResNet"]}')
    taken = tmp_path / "taken.json"
    taken.write_text("kept")
    assert "no such file or directory" in refused(tmp_path / "absent")
    assert "empty" in refused(tmp_path / "empty")
    assert "no checkpoint yet" in refused(half)
    assert "is damaged" in refused(damaged)
    assert "foreign" in refused(foreign)
    assert "did you mean resnet50.a1_in1k" in refused("resnet50.a1_in1")
    assert "absent does not exist" in refused(trained, "--data", tmp_path / "absent")
    assert "has 0 folders" in refused(trained, "--data", tmp_path / "empty")
    assert "has no split dev" in refused(trained, "--data", photos, "--split", "dev")
    assert "taken.json exists" in refused(trained, "--output", taken)
    assert "taken.json exists" in refused(trained, "--report", taken)
    assert taken.read_text() == "kept"
    assert "no directory" in refused(trained, "--output", tmp_path / "absent" / "x.json")
    assert "is a directory" in refused(trained, "--output", tmp_path)
    assert "given twice" in refused(trained, "--output", tmp_path / "x", "--report", tmp_path / "x")
    assert "above 0 and at most 1" in refused(trained, "--threshold", "95")
    # The weights are not downloaded.
    for published in ("resnet50.a1_in1k", "hf://microsoft/resnet-50"):
        assert "has no data of its own; give --data" in refused(published)
        assert "absent does not exist" in refused(published, "--data", tmp_path / "absent")
    assert "more than the limit of 100" in refused(trained, "--max-pixels", "100")
    assert "max_pixels must be at least 1" in refused(trained, "--max-pixels", "0")
    assert "resnet50.a1_in1k is none" in refused("resnet50.a1_in1k", "--temperature")
    assert "leave --tta out" in refused(trained, "--temperature", "--tta", "flip")
    assert "leave it out" in refused(trained, "--layout", "imagenet-c", "--temperature")
    assert "needs --data" in refused(trained, "--layout", "imagenet-c")
    assert "real.json" in refused(trained, "--real", tmp_path / "absent.json")
    assert "must end with .csv or .json" in fails(
        capsys, "compare", trained, trained, "--output", tmp_path / "x.txt"
    )


def test_data_of_a_run_that_are_gone_are_an_error(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = json.loads((own / "config.json").read_text())
    config["data"]["path"] = "moved"
    (own / "config.json").write_text(json.dumps(config))
    message = fails(capsys, "evaluate", own)
    assert f"the data of {own}: moved does not exist" in message
    assert message.endswith("or give --data")


def test_a_calibration_of_other_weights_is_not_used(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("evaluate", own, "--temperature") == 0
    capsys.readouterr()
    assert run("compare", own, own / "checkpoints" / "0") == 0
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert re.fullmatch("warning: .*calibration.json was fitted with other weights .*", line)


def test_classes_of_another_task_are_listed(
    trained: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Path(shutil.copytree(photos / "val", tmp_path / "val"))
    (data / "dog").rename(data / "wolf")
    message = fails(capsys, "evaluate", trained, "--data", data)
    assert "1 of the 2 classes of the data are not classes of the model: wolf" in message
    assert "the data have cat, wolf; the model has cat, dog" in message


@pytest.mark.skipif(not os.path.isdir("/sys/kernel"), reason="needs a folder that root cannot use")
def test_results_need_permission(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # The command ends before the evaluation, whose results would be lost.
    message = fails(capsys, "evaluate", trained, "--output", "/sys/x.json")
    assert message.startswith("error: /sys/x.json cannot be written: ")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_leaves_no_file(
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    code: int,
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        signal.raise_signal(number)

    monkeypatch.setattr("resnet_jax.inference.evaluation.stream", interrupted)
    output = tmp_path / "x.json"
    for command in (("evaluate", trained), ("compare", trained, trained)):
        name = output if command[0] == "evaluate" else tmp_path / "x.csv"
        assert run(*command, "--output", name) == code
        assert "interrupted; no results were written" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []

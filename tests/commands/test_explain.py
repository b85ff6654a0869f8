"""The command that writes explanations of images in files."""

import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from resnet_jax import Classifier, Preprocessing
from resnet_jax.commands import explanation_files
from resnet_jax.commands.main import main
from resnet_jax.commands.output_names import output_names
from resnet_jax.inference import explanation
from resnet_jax.inference.explanation import class_index
from tests.data.images.test_folder import without_privileges
from tests.inference.light_detector import light_detector

PREPROCESSING = Preprocessing(32, 0.5, "pil_bilinear", (0.0,), (1.0,), 3)


def photo(top: int, left: int) -> Image.Image:
    """Return a dark image of 64 x 96 pixels with a bright square of 16 x 16."""
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[top : top + 16, left : left + 16] = 255
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier(*light_detector(), PREPROCESSING, ["light", "7"])


@pytest.fixture
def explain(
    classifier: Classifier, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """The command with a classifier that needs no files. It returns the code and what it prints."""
    monkeypatch.setattr(Classifier, "from_pretrained", lambda *_, **__: classifier)

    def run(*argv: str | os.PathLike[str]) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["explain", *map(os.fspath, argv)])
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of two images of the same name and a file that is no image."""
    for name, (top, left) in {"a/1.png": (16, 32), "b/1.png": (32, 48)}.items():
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True)
        photo(top, left).save(path)
    (tmp_path / "photos" / "b" / "2.png").write_bytes(b"no image")
    return tmp_path / "photos"


def rows(output: Path) -> list[list[str]]:
    with (output / explanation_files.TABLE).open(newline="") as file:
        return list(csv.reader(file))


def test_overlays_arrays_and_a_table_are_written(
    explain: Callable[..., Any], photos: Path, tmp_path: Path
) -> None:
    output = tmp_path / "new" / "heat"
    code, out, err = explain("run", photos, "--output", output, "--arrays")
    assert code == 1
    assert "2 of 3 images explained" in out
    assert err.count("\n") == 1
    assert str(photos / "b" / "2.png") in err
    assert rows(output) == [
        ["image", "class", "overlay", "array"],
        [str(photos / "a" / "1.png"), "light", "a/1.png", "a/1.npy"],
        [str(photos / "b" / "1.png"), "light", "b/1.png", "b/1.npy"],
    ]
    files = {path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()}
    assert files == {explanation_files.TABLE, "a/1.png", "a/1.npy", "b/1.png", "b/1.npy"}
    heat = np.load(output / "a" / "1.npy")
    assert heat.shape == (32, 32)
    assert heat.dtype == np.float32
    assert heat.max() == pytest.approx(1, abs=1e-5)
    overlay = np.asarray(Image.open(output / "a" / "1.png"))
    assert overlay.shape == (64, 96, 3)
    # The square is yellow, and of the rest, only its surroundings have a color.
    assert overlay[24, 40, 2] < 150 < overlay[24, 40, 0]
    assert overlay[24, 60].max() == 0


def test_the_class_can_be_named_or_numbered(
    explain: Callable[..., Any], photos: Path, tmp_path: Path
) -> None:
    for target, name in (("light", "light"), ("0", "light"), ("7", "7")):
        output = tmp_path / f"target {target}"
        code, _, _ = explain("run", photos / "a", "--output", output, "--target", target)
        assert code == 0
        assert rows(output)[1][1] == name


def test_existing_files_are_only_replaced_when_asked_for(
    explain: Callable[..., Any], photos: Path, tmp_path: Path
) -> None:
    output = tmp_path / "heat"
    (output / "a").mkdir(parents=True)
    (output / "1.png").write_text("mine")
    code, _, err = explain("run", photos / "a", "--output", output)
    assert code == 2
    assert "has files; name another folder, or replace them with --overwrite" in err
    assert (output / "1.png").read_text() == "mine"
    code, _, _ = explain("run", photos / "a", "--output", output, "--overwrite")
    assert code == 0
    with Image.open(output / "1.png") as overlay:
        assert overlay.size == (96, 64)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["run"], "--output"),
        (["run", "--output", "heat"], "PATH"),
        (["run", "absent.jpg", "--output", "heat"], "absent.jpg"),
        (["run", "empty", "--output", "heat"], "empty has no images"),
        (["run", "photos", "--output", "file"], "file is a file; name a folder"),
        (["run", "photos", "--output", "heat", "--target", "ligth"], "did you mean light?"),
        (["run", "photos", "--output", "heat", "--target", "2"], "0 to 1, but target is 2"),
        (["run", "photos", "--output", "heat", "--stage", "4"], "stage must be 1 to 3"),
        (["run", "photos", "--output", "heat", "--method", "lime"], "invalid choice 'lime'"),
        (
            ["run", "photos", "--output", "heat", "--method=integrated-gradients", "--stage=1"],
            "integrated gradients have no stage",
        ),
    ],
)
def test_a_mistake_gets_one_line_and_leaves_no_files(
    explain: Callable[..., Any],
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    argv: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(photos.parent)
    Path("empty").mkdir()
    Path("file").touch()
    code, out, err = explain(*argv)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1
    assert not Path("heat").exists()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (None, "there is no such file or directory"),
        ({"notes.txt": "mine"}, "there is no checkpoint"),
        ({"model.json": "{}"}, "no checkpoint yet"),
        ({"config.json": json.dumps({"seed": 0})}, "no checkpoint yet"),
    ],
    ids=["missing", "foreign", "begun", "begun before the network"],
)
def test_what_is_no_run_gets_one_line(
    files: dict[str, str] | None,
    message: str,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, output = tmp_path / "run", tmp_path / "heat"
    for name, content in (files or {}).items():
        run.mkdir(exist_ok=True)
        (run / name).write_text(content)
    with pytest.raises(SystemExit) as ended:
        main(["explain", str(run), str(photos), "--output", str(output)])
    err = capsys.readouterr().err
    assert ended.value.code == 2
    assert message in err
    assert err.count("\n") == 1
    assert not output.exists()


def test_a_folder_without_permission_gets_one_line(
    explain: Callable[..., Any], photos: Path
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o555)
        with without_privileges():
            code, _, err = explain("run", photos, "--output", Path(directory) / "heat")
    assert code == 2
    assert "Permission denied" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_complete_files_and_their_table(
    explain: Callable[..., Any],
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    expected: int,
) -> None:
    output = tmp_path / "heat"
    save = Image.Image.save

    def interrupted(image: Image.Image, file: Any, *args: Any) -> None:
        os.kill(os.getpid(), number)
        save(image, file, *args)

    monkeypatch.setattr(Image.Image, "save", interrupted)
    monkeypatch.setattr(explanation, "BATCH_SIZE", 1)
    code, out, err = explain("run", photos, "--output", output)
    assert (code, out) == (expected, "")
    assert err == f"interrupted; the explanations so far are in {output}\n"
    assert rows(output)[1:] == [[str(photos / "a" / "1.png"), "light", "a/1.png"]]
    left = sorted(path.relative_to(output).as_posix() for path in output.rglob("*.*"))
    assert left == ["a/1.png", explanation_files.TABLE]
    with Image.open(output / "a" / "1.png") as overlay:
        overlay.load()


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_a_process_that_is_ended_leaves_complete_files(repository: Path, tmp_path: Path) -> None:
    photos, output = tmp_path / "photos", tmp_path / "heat"
    photos.mkdir()
    photo(16, 32).save(photos / "0.png")
    for i in range(1, 5000):
        os.link(photos / "0.png", photos / f"{i}.png")
    command = [
        sys.executable,
        "-m",
        "resnet_jax",
        "explain",
        repository,
        photos,
        "--output",
        output,
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not any(output.glob("*.png")):
            time.sleep(0.01)
        process.terminate()
        _, err = process.communicate()
    assert process.returncode == 143, err
    assert err == f"interrupted; the explanations so far are in {output}\n"
    table = rows(output)[1:]
    assert 1 <= len(table) < 5000
    files = {path.name for path in output.iterdir()}
    assert files == {explanation_files.TABLE, *(row[2] for row in table)}
    for row in table:
        with Image.open(output / row[2]) as overlay:
            overlay.load()


def test_images_that_are_too_large_are_reported(
    explain: Callable[..., Any],
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    classifier: Classifier,
) -> None:
    monkeypatch.setattr(classifier, "max_pixels", 6000)
    code, _, err = explain("run", photos / "a", "--output", tmp_path / "heat")
    assert code == 1
    assert "96 x 64 pixels are more than the limit of 6,000" in err


def test_names_of_files_never_collide() -> None:
    images = ["/p/Cat.jpg", "/p/cat.PNG", "/p/cat-2.jpg", "/p/cat.jpg", "/p/cat.png/x.jpg", "/p/:?"]
    names = output_names(images, [".png"])
    assert names == ["Cat", "cat-2", "cat-2-2", "cat-3", "cat.png_/x", "__"]
    long = output_names(["/p/" + "ä" * 120 + ".jpg", "https://host/a/../b.jpg?size=3"], [".png"])
    assert all(len(name.encode()) < 200 for name in long)
    assert ".." not in long[1]


def test_a_name_that_several_classes_have_is_refused() -> None:
    with pytest.raises(ValueError, match=r"several classes are named 'crane'.* 0, 2"):
        class_index(["crane", "heron", "crane"], "crane")

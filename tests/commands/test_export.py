"""The commands that write exports and time them."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from resnet_jax import Classifier
from resnet_jax.commands.main import main
from resnet_jax.export.accuracy import Accuracy, accuracy, evenly_spaced
from resnet_jax.export.runners import Runner, classifier_runner
from resnet_jax.export.stablehlo import load, read_metadata
from resnet_jax.export.timing import time_side_by_side
from tests.export.networks import CLASSES, PREPROCESSING, classifier, pixels, probabilities, tiny

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """The command. It returns the exit code and what it prints."""

    def run(*argv: str | os.PathLike[str]) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([os.fspath(word) for word in argv])
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two images of each class."""
    directory = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for name in CLASSES:
        (directory / name).mkdir()
        for i in range(2):
            noise = rng.integers(0, 256, (40, 50, 3), np.uint8)
            Image.fromarray(noise).save(directory / name / f"{i}.png")
    return directory


def test_a_network_becomes_a_stablehlo_file(
    command: Command, repository: Path, tmp_path: Path
) -> None:
    output = tmp_path / "tiny.stablehlo"
    argv = ("export", repository, "--format", "stablehlo", "--output", output)
    code, out, err = command(*argv)
    assert (code, err) == (0, "")
    assert "takes uint8[dynamic, 32, 32, 3], returns probabilities" in out
    assert "platforms: cpu, cuda, tpu" in out
    difference = float(out.split("largest difference of a probability on noise: ")[1])
    assert difference < 1e-5
    network = Classifier.from_pretrained(repository)
    images = pixels(3, network)
    np.testing.assert_allclose(load(output)(images), probabilities(network, images), atol=1e-6)
    # It is not replaced by accident.
    code, _, err = command(*argv)
    assert (code, err.count("\n")) == (2, 1)
    assert "tiny.stablehlo exists; give another path, or replace it with --overwrite" in err


def test_the_options_of_a_stablehlo_file(
    command: Command, repository: Path, tmp_path: Path
) -> None:
    output = tmp_path / "tiny.stablehlo"
    code, out, _ = command(
        *("export", repository, "--format=stablehlo", "--output", output, "--batch=2"),
        *("--size=40", "--input=float32", "--returns=logits", "--no-fold", "--platforms", "cpu"),
    )
    assert code == 0
    assert "takes float32[2, 40, 40, 3], returns logits" in out
    metadata = read_metadata(output)
    assert metadata["preprocessing"]["image_size"] == 40
    assert metadata["program"] == {
        "format": "stablehlo",
        "image_shape": [40, 40, 3],
        "batch": 2,
        "platforms": ["cpu"],
        "folded": False,
        "kernels": "float32",
    }


@pytest.mark.parametrize("layout", ["timm", "transformers"])
def test_a_network_becomes_a_directory(
    command: Command, repository: Path, layout: str, tmp_path: Path
) -> None:
    output = tmp_path / "hub"
    source = repository
    if layout == "timm":
        # timm has no network as narrow as the other one.
        from resnet_jax.export.timm import write_timm

        source = tmp_path / "source"
        write_timm(classifier("test_resnet"), source)
    argv = ("export", source, "--format=safetensors", "--layout", layout, "--output", output)
    code, out, err = command(*argv)
    assert (code, err) == (0, "")
    call = "timm.create_model" if layout == "timm" else "AutoModelForImageClassification"
    assert f"loads with {call}" in out
    difference = float(out.split("largest difference of a probability on noise: ")[1])
    assert difference < 1e-5
    before, after = (Classifier.from_pretrained(path).variables for path in (source, output))
    jax.tree.map(np.testing.assert_array_equal, before, after)
    code, _, err = command(*argv)
    assert code == 2
    assert "config.json exists" in err


def test_int8_states_the_accuracy_before_and_after(
    command: Command, repository: Path, photos: Path, tmp_path: Path
) -> None:
    output = tmp_path / "int8.stablehlo"
    argv = ("export", repository, "--format=stablehlo", "--int8", "--platforms=cpu")
    code, out, _ = command(*argv, "--output", output, "--data", photos)
    assert code == 0
    assert read_metadata(output)["program"]["kernels"] == "int8"
    assert "top-1 on" in out
    assert "all, 6 images: " in out
    assert " % before, " in out
    assert " % with int8" in out
    code, out, _ = command(*argv, "--output", tmp_path / "other.stablehlo")
    assert "the accuracy was not measured, because there are no labeled images; add --data" in out


def test_onnx_files_run_without_jax(
    command: Command, repository: Path, photos: Path, tmp_path: Path
) -> None:
    """Both kinds of files are loaded where only NumPy and onnxruntime are."""
    network = Classifier.from_pretrained(repository)
    images = pixels(3, network)
    np.save(tmp_path / "images.npy", images)
    argv = ("export", repository, "--format=onnx")
    code, out, err = command(*argv, "--output", tmp_path / "full.onnx")
    assert (code, err) == (0, "")
    assert "takes uint8[dynamic, 32, 32, 3], returns probabilities" in out
    code, out, _ = command(
        *(*argv, "--int8", "--batch=3", "--output", tmp_path / "int8.onnx"),
        *("--calibration", photos, "--calibration-images=4", "--data", photos),
    )
    assert code == 0
    assert "6 images: " in out
    lines = """
import sys
for name in ("flax", "jax", "resnet_jax"):
    sys.modules[name] = None
import json
import numpy as np
import onnxruntime
for name in ("full", "int8"):
    session = onnxruntime.InferenceSession(f"{name}.onnx")
    (images,) = session.get_inputs()
    (result,) = session.run(None, {images.name: np.load("images.npy")})
    np.save(f"{name}.npy", result)
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["class_names"]) == ["cat", "dog", "fox"]
"""
    subprocess.run([sys.executable, "-c", lines], cwd=tmp_path, check=True)
    expected = probabilities(network, images)
    np.testing.assert_allclose(np.load(tmp_path / "full.npy"), expected, atol=1e-6)
    np.testing.assert_allclose(np.load(tmp_path / "int8.npy"), expected, atol=0.1)
    assert command(*argv, "--output", tmp_path / "full.onnx")[0] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--format=safetensors", "--batch=2"), "--batch is for stablehlo and onnx; leave it out"),
        (("--format=safetensors", "--no-fold"), "--no-fold is for stablehlo and onnx; leave it"),
        (("--format=onnx", "--platforms", "cpu"), "--platforms is for stablehlo; leave it out"),
        (("--format=stablehlo", "--layout=transformers"), "--layout is for safetensors"),
        (("--format=stablehlo", "--batch=0"), "--batch must be at least 1 or dynamic, but it is 0"),
        (("--format=stablehlo", "--size=-1"), "--size must be at least 1 or dynamic, but it is -1"),
        (("--format=stablehlo", "--images=-1"), "--images must be at least 0"),
        (("--format=stablehlo", "--data=photos"), "--data is for --int8"),
        (("--format=safetensors", "--layout=transformers", "--int8"), "would ignore the scales"),
        (("--format=stablehlo", "--int8", "--calibration=x"), "--calibration is for onnx"),
        (("--format=onnx", "--calibration=x"), "--calibration is for --int8; leave it out"),
        (("--format=onnx", "--int8"), "name a folder of them with --calibration"),
        (("--format=onnx", "--int8", "--calibration=absent"), "absent: there is no such file"),
        (("--format=tflite",), "invalid choice 'tflite'"),
    ],
)
def test_mistakes_are_one_line(
    command: Command, repository: Path, options: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    code, out, err = command("export", repository, *options, "--output", tmp_path / "file")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert not (tmp_path / "file").exists()


def test_networks_that_a_layout_lacks_are_one_line(
    command: Command, repository: Path, tmp_path: Path
) -> None:
    output = tmp_path / "hub"
    code, _, err = command("export", repository, "--format=safetensors", "--output", output)
    assert (code, err.count("\n")) == (2, 1)
    assert "timm has no network with these fields" in err
    assert not output.exists()


def test_impossible_outputs_are_found_first(command: Command, tmp_path: Path) -> None:
    argv = ("export", tmp_path / "absent", "--format=stablehlo", "--output")
    assert "there is no directory" in command(*argv, tmp_path / "nowhere" / "file")[2]
    assert "is a directory; give the path of a file" in command(*argv, tmp_path)[2]
    (tmp_path / "file").touch()
    argv = ("export", tmp_path / "absent", "--format=safetensors", "--output")
    assert "is a file; give the path of a directory" in command(*argv, tmp_path / "file")[2]


def test_a_network_that_resamples_its_images_has_one_size(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preprocessing = dataclasses.replace(PREPROCESSING, image_size=20, upsample_size=32)
    network = tiny(preprocessing=preprocessing)
    monkeypatch.setattr(Classifier, "from_pretrained", lambda *_, **__: network)
    argv = ("export", "run", "--format=stablehlo", "--size=40", "--output", tmp_path / "file")
    code, _, err = command(*argv)
    assert (code, err.count("\n")) == (2, 1)
    assert "which resamples its images of 20 to 32 pixels; leave it out" in err


def test_a_missing_package_is_named(
    command: Command, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    argv = ("export", repository, "--format=stablehlo", "--output", tmp_path / "file")
    code, _, err = command(*argv)
    assert (code, err.count("\n")) == (2, 1)
    assert "flatbuffers, which is not installed: pip install 'resnet-linen[export]'" in err
    assert not (tmp_path / "file").exists()


def test_exports_and_networks_are_timed_side_by_side(
    command: Command, repository: Path, tmp_path: Path
) -> None:
    export, result = tmp_path / "one.stablehlo", tmp_path / "result.json"
    argv = ("export", repository, "--format=stablehlo", "--batch=1", "--platforms=cpu")
    assert command(*argv, "--output", export)[0] == 0
    code, out, err = command(
        *("benchmark", export, repository, "--batch-sizes", "1", "2", "--seconds=0.01"),
        *("--output", result),
    )
    assert (code, err) == (0, "")
    assert "images/s" in out
    timings = json.loads(result.read_text())["timings"]
    assert [(t["kind"], t["batch"]) for t in timings] == [
        ("StableHLO", 1),
        ("jax.jit", 1),
        ("jax.jit", 2),
    ]
    for timing in timings:
        assert len(timing["latencies"]) >= 3
        assert 0 < timing["p50"] <= timing["p90"] <= timing["p99"]
    assert timings[0]["size"] == export.stat().st_size


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ((), "name at least one export or network"),
        (("absent.stablehlo",), "absent.stablehlo: there is no such file; check the path"),
        (("file.stablehlo",), "is damaged, or no StableHLO export"),
        (("file.stablehlo", "--batch-sizes", "0"), "--batch-sizes must be positive numbers"),
        (("file.stablehlo", "--seconds=0"), "--seconds must be positive"),
        (("file.stablehlo", "--size=0"), "--size must be at least 1"),
    ],
)
def test_mistakes_in_a_benchmark_are_one_line(
    command: Command, argv: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file.stablehlo").write_text("text")
    code, out, err = command("benchmark", *argv)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_networks_are_called_in_turns() -> None:
    calls: list[str] = []

    def runner(name: str) -> Runner:
        def run(images: np.ndarray) -> np.ndarray:
            calls.append(name)
            return images

        return Runner(name, "test", run, (4, 4, 3), False, "float32", "dynamic", 0)

    timings = time_side_by_side([runner("a"), runner("b")], 2, seconds=1e-9)
    # The first calls compile; the order of every other round is the opposite one.
    assert "".join(calls) == "ab" + "ab" + "ba" + "ab"
    assert [len(timing.latencies) for timing in timings] == [3, 3]
    timing = dataclasses.replace(timings[0], latencies=(0.1, 0.3, 0.2))
    assert timing.percentile(50) == pytest.approx(0.2)
    assert timing.images_per_second == pytest.approx(2 * 3 / 0.6)


def test_accuracy_counts_the_images_of_every_class(photos: Path) -> None:
    from resnet_jax.data import open_labeled

    network = classifier(
        "resnet18", width=8, stage_sizes=(1, 1, 1, 1), class_names=("fox", "cat", "dog")
    )
    seen: list[int] = []

    def always_cat(images: np.ndarray) -> np.ndarray:
        seen.append(len(images))
        return np.eye(3)[np.ones(len(images), int)]

    found = accuracy(always_cat, network, open_labeled(str(photos)), batch=4)
    assert (found, found.top1) == (Accuracy(2, 6), 1 / 3)
    assert seen == [4, 4]
    assert accuracy(always_cat, network, open_labeled(str(photos)), most=3).images == 3
    assert evenly_spaced(6, 3).tolist() == [0, 2, 5]
    run = classifier_runner(network, "network").run
    expected = [
        network(np.asarray(Image.open(p)))[0].argmax() for p in sorted(photos.rglob("*.png"))
    ]
    right = sum(k == index for k, index in zip(expected, (1, 1, 2, 2, 0, 0), strict=True))
    assert accuracy(run, network, open_labeled(str(photos))).right == right

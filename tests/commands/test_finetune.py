"""The command that fine-tunes, run as a user runs it."""

import json
import logging
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resnet_jax import Classifier
from resnet_jax.commands.main import main
from resnet_jax.config import DigitsConfig, ModelConfig, SGDConfig, TrainConfig
from resnet_jax.models.variants import _VARIANTS
from resnet_jax.ops import host_memory
from resnet_jax.training import train
from resnet_jax.training.finetuning import plan
from resnet_jax.training.process import distributed
from tests.commands.test_train import Outcome
from tests.training.tiny_train import NETWORKS

pytestmark = pytest.mark.usefixtures("tiny_networks")

RunHere = Callable[..., Outcome]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 images of a bright or a dark class to train on, and as many to test on."""
    root = tmp_path_factory.mktemp("images") / "photos"
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name, low in (("bright", 128), ("dark", 0)):
            (root / split / name).mkdir(parents=True)
            for i in range(24):
                pixels = rng.integers(low, low + 128, (24, 30, 3), np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{i}.jpg")
    return root


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on gray digits of eight pixels, normalized by 0.5."""
    path = tmp_path_factory.mktemp("runs") / "digits"
    config = TrainConfig(
        model=ModelConfig("tiny_resnet", dtype="bfloat16"),
        data=DigitsConfig(image_size=8),
        optimizer=SGDConfig(learning_rate=0.05),
        batch_size=64,
        epochs=0.1,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(_VARIANTS, "tiny_resnet", NETWORKS["tiny_resnet"])
        train(config, path, quiet=True)
    return path


@pytest.fixture
def finetune(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> RunHere:
    """A function that runs `resnet-jax finetune` in this process, in a directory of its own."""
    # An error after the start of JAX ends the process at once.
    monkeypatch.setattr(distributed, "_exit", sys.exit)
    monkeypatch.setattr(logging.getLogger("absl"), "level", logging.WARNING)
    monkeypatch.setattr(host_memory, "keep_freed_memory", lambda: False)
    monkeypatch.chdir(tmp_path)

    def finetune(*arguments: object) -> Outcome:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["finetune", *map(str, arguments)])
        return Outcome(int(ended.value.code or 0), *capfd.readouterr())

    return finetune


def test_a_run_begins_where_another_ended_and_is_continued_and_used(
    finetune: RunHere,
    photos: Path,
    pretrained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weights = tmp_path / "digits"
    shutil.copytree(pretrained, weights)
    command = (photos, "--weights", weights, "--epochs=2", "--early-stopping=1", "--image-size=16")
    outcome = finetune(*command)
    assert outcome.returncode == 0, outcome.stderr
    (workdir,) = (tmp_path / "runs").iterdir()
    assert workdir.name == "photos-digits-epochs=2,image_size=16,early_stopping=1"
    assert f"predict {workdir.relative_to(tmp_path)} " in outcome.stdout.replace("'", "")
    (evaluation,) = re.findall(r"^  \S+ (evaluate .*)$", outcome.stdout, re.MULTILINE)
    config = TrainConfig.from_json(json.loads((workdir / "config.json").read_text()))
    assert (config.model.name, config.model.dtype) == ("tiny_resnet", "bfloat16")
    assert config.model.in_channels is None
    # The table names what was decided, and the analysis of the memory was asked.
    for text in ("2: bright, dark", "38 train, 10 validation", "test images are never used"):
        assert text in outcome.stdout
    assert "its step needs" in outcome.stdout
    result = json.loads((workdir / "result.json").read_text())
    assert result["split"] == "validation"
    classifier = Classifier.load(workdir)
    assert classifier.class_names == ("bright", "dark")
    source = json.loads((weights / "model.json").read_text())["preprocessing"]
    assert list(classifier.preprocessing.mean) == source["mean"]
    assert classifier.preprocessing.image_size == 16

    # The command that is printed at the end evaluates the same images, with the same result.
    with pytest.raises(SystemExit) as ended:
        main([*shlex.split(evaluation), "--output", "evaluation.json"])
    assert ended.value.code == 0
    evaluated = json.loads(Path("evaluation.json").read_text())
    assert evaluated["split"] == "validation"
    assert [row["images"] for row in evaluated["classes"]] == [5, 5]
    assert evaluated["measures"]["nll"] == pytest.approx(result["loss"], rel=1e-2)

    again = finetune(*command)
    assert again.returncode == 0
    assert f"is complete: top-1 {result['top1']:.2%}" in again.stdout

    other = finetune(*command, "--image-size=12", "--seed=1", "--workdir", workdir)
    assert other.returncode == 2
    assert other.stderr == (
        f"error: {workdir} belongs to another run (seed: 0 there, 1 here; image_size: 16 there, 12 "
        "here); use another run directory, or leave these options out to continue that run\n"
    )

    # As after a kill before the end, with other free memory and without the weights.
    (workdir / "result.json").unlink()
    shutil.rmtree(weights)
    monkeypatch.setattr(plan, "largest_batch_that_fits", None)
    outcome = finetune(*command)
    assert outcome.returncode == 0, outcome.stderr
    assert "Continuing from the checkpoint of step" in outcome.stdout
    images = [np.full((16, 16, 3), level, np.uint8) for level in (40, 220)]
    np.testing.assert_array_equal(Classifier.load(workdir)(images), classifier(images))


def test_a_dry_run_writes_nothing(
    finetune: RunHere, photos: Path, pretrained: Path, tmp_path: Path
) -> None:
    outcome = finetune(photos, "--weights", pretrained, "--batch-size", "8", "--dry-run")
    assert outcome.returncode == 0, outcome.stderr
    for text in ("head first", "early stopping", "learning rate", "Run directory: runs/"):
        assert text in outcome.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["PHOTOS"], "--weights"),
        (["absent", "--weights", "resnet50.a1_in1k"], "absent is not a directory"),
        (["EMPTY", "--weights", "resnet50.a1_in1k"], "has 0 folders"),
        (["PHOTOS", "--weights", "resnet50.a1_in1k", "--epoch", "2"], "did you mean --epochs?"),
        (["PHOTOS", "--weights", "nothing"], "unknown weights 'nothing'"),
        (["PHOTOS", "--weights", "EMPTY"], "there is no checkpoint in it"),
        (["PHOTOS", "--weights", "HALF"], "the run has no checkpoint yet"),
        (["PHOTOS", "--weights", "FOREIGN"], "does not say how its network is built"),
        (["PHOTOS", "--weights", "RUN", "--workdir", "HALF"], "is not a field of TrainConfig"),
        (["PHOTOS", "--weights", "RUN", "--workdir", "PHOTOS"], "holds no config.json of a run"),
        (["PHOTOS", "--weights", "RUN", "--workdir", "FILE"], "FILE is a file"),
        (["PHOTOS", "--weights", "RUN", "--epochs", "0"], "epochs must be above 0"),
        pytest.param(
            ["PHOTOS", "--weights", "RUN", "--workdir", "/sys/run"],
            "/sys/run cannot be written",
            marks=pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="needs Linux"),
        ),
    ],
)
def test_a_mistake_gets_one_line_and_leaves_nothing(
    arguments: list[str],
    message: str,
    finetune: RunHere,
    photos: Path,
    pretrained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plan, "largest_batch_that_fits", None)
    empty, half, foreign, file = (tmp_path / name for name in ("empty", "half", "foreign", "FILE"))
    empty.mkdir()
    half.mkdir()
    (half / "config.json").write_text('{"schema_version": 2, "colour": "red"}')
    (foreign / "checkpoints").mkdir(parents=True)
    shutil.copytree(pretrained / "checkpoints", foreign / "checkpoints", dirs_exist_ok=True)
    for metadata in foreign.glob("checkpoints/*/_CHECKPOINT_METADATA"):
        metadata.write_text(metadata.read_text().replace('"model"', '"modell"'))
    file.touch()
    places = {"PHOTOS": photos, "RUN": pretrained, "EMPTY": empty, "HALF": half}
    places |= {"FOREIGN": foreign, "FILE": file}
    before = sorted(tmp_path.rglob("*"))
    outcome = finetune(*(places.get(word, word) for word in arguments))
    assert outcome.returncode == 2
    assert outcome.stderr.startswith("error: ")
    assert message in outcome.stderr
    assert outcome.stderr.count("\n") == 1
    assert outcome.stdout == ""
    assert sorted(tmp_path.rglob("*")) == before


def test_ctrl_c_before_the_training_leaves_nothing(
    finetune: RunHere,
    photos: Path,
    pretrained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(plan, "largest_batch_that_fits", interrupted)
    outcome = finetune(photos, "--weights", pretrained)
    assert outcome.returncode == 130
    assert outcome.stderr == "interrupted before the training; nothing was written\n"
    assert list(tmp_path.iterdir()) == []

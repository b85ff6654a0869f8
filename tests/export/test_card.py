"""Model cards say what the records say, and what they lack."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from resnet_jax.commands.main import main
from resnet_jax.export.card import Publication, model_card
from resnet_jax.export.run_records import read_records
from resnet_jax.models.variants import _VARIANTS
from tests.export.runs import evaluation, write_run
from tests.training.tiny_train import NETWORKS


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        for name, fields in NETWORKS.items():
            patch.setitem(_VARIANTS, name, fields)
        yield write_run(tmp_path_factory.mktemp("runs") / "noise")


@pytest.fixture
def own(complete: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may change."""
    return Path(shutil.copytree(complete, tmp_path / "noise"))


def edit(file: Path, **changes: Any) -> None:
    """Replace values of a JSON file. None removes one."""
    content = json.loads(file.read_text()) | changes
    content = {name: value for name, value in content.items() if value is not None}
    file.write_text(json.dumps(content))


def section(card: str, title: str) -> str:
    return card.partition(f"## {title}\n")[2].partition("\n## ")[0]


def test_the_numbers_are_those_of_the_records(complete: Path) -> None:
    records = read_records(complete)
    card = model_card(records)
    measures = json.loads((complete / "result.json").read_text())["measures"]
    low, high = measures["intervals"]["top1"]
    row = (
        f"| top-1 accuracy | {100 * measures['top1']:.2f} % | {100 * low:.2f} % to "
        f"{100 * high:.2f} % |"
    )
    assert row in section(card, "Results")
    assert f"{measures['nll']:.4f} nats" in section(card, "Results")
    assert "top-5" not in card, "there are only three classes"
    assert "the 12 images of the split `test` of `synthetic` after step 1" in card
    assert "| training images | 16 |" in section(card, "Data")
    assert f"{records.parameters:,} parameters" in card
    assert "2.5000" in section(card, "Calibration")
    assert "at least 95 % of the certain predictions" in section(card, "Calibration")
    assert "| devices | 1 x cpu |" in section(card, "Training")
    assert "| `batch_size` | `8` | `128` |" in section(card, "Training")


def test_no_directory_is_disclosed(complete: Path) -> None:
    card = model_card(read_records(complete))
    assert "ada" not in card
    assert "secret" not in card
    assert "`photos`" in section(card, "Calibration")


def test_the_hub_can_read_the_metadata(complete: Path) -> None:
    publication = Publication("ada/noise", timm=True, license="apache-2.0")
    card = ModelCard(model_card(read_records(complete), publication))
    metadata = card.data.to_dict()
    assert metadata["library_name"] == "timm"
    assert metadata["pipeline_tag"] == "image-classification"
    assert metadata["license"] == "apache-2.0"
    (result,) = card.data.eval_results or []
    measures = json.loads((complete / "result.json").read_text())["measures"]
    assert (result.metric_type, result.dataset_split) == ("accuracy", "test")
    assert result.metric_value == measures["top1"]
    assert result.metric_args == {
        "images": 12,
        "confidence_interval_95": measures["intervals"]["top1"],
    }
    assert 'timm.create_model("hf-hub:ada/noise"' in card.text
    assert "license" not in section(card.text, "Limits")


def test_what_older_records_lack_is_said_to_be_missing(own: Path) -> None:
    edit(own / "result.json", measures=None, facts=None, train_images=None, parameters=None)
    (own / "calibration.json").unlink()
    expected = read_records(own).parameters
    card = model_card(read_records(own))
    assert "| top-1 accuracy | 50.00 % |  |" in section(card, "Results")
    assert "neither the number of these images nor confidence intervals" in card
    assert "| training images | not recorded |" in card
    assert "the date of the training are not recorded" in card
    assert "No temperature and no threshold were fitted" in card
    assert "state no license" in section(card, "Limits")
    assert f"{expected:,} parameters" in card
    assert expected == 3 * 3 * 3 * 8 + 2 * 3 * 3 * 8 * 8 + 3 * 2 * 8 + 3 * 8 + 3, "they are counted"


def test_an_unfinished_run_shows_the_evaluation_of_its_checkpoint(own: Path) -> None:
    (own / "result.json").unlink()
    record = {"step": 1, "epoch": 0.5, "kind": "test", "loss": 1.0, "top1": 0.25, "top5": 1.0}
    (own / "metrics.jsonl").write_text(
        "".join(json.dumps(record | {"step": step, "top1": step / 4}) + "\n" for step in (0, 1))
    )
    card = model_card(read_records(own))
    assert "**The run had not ended" in card
    assert "| top-1 accuracy | 25.00 % |  |" in card
    (own / "metrics.jsonl").unlink()
    card = model_card(read_records(own))
    assert "recorded no evaluation of its weights after step 1" in card
    assert "Nothing was measured on the weights" in card
    assert "model-index" not in yaml.safe_load(card.split("---\n")[1])


def test_later_evaluations_are_added(complete: Path, tmp_path: Path) -> None:
    file = tmp_path / "evaluation.json"
    file.write_text(json.dumps(evaluation(complete)))
    card = model_card(read_records(complete, [file]))
    assert "the 400 images of the split `test` of `other_photos`" in card
    assert "| top-1 accuracy | 81.25 % | 77.50 % to 85.00 % |" in card
    assert "The probabilities have the temperature 2.5000." in card
    results = ModelCard(card).data.eval_results or []
    assert [result.dataset_type for result in results] == ["synthetic", "other_photos"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist; write it with `resnet-jax evaluate"),
        ("[", "cannot be read"),
        ("[]", "holds a list instead of an object"),
        ("{}", "is not a result of `resnet-jax evaluate --output`"),
        (json.dumps(evaluation(Path("runs/b"))), "is an evaluation of runs/b, not of"),
    ],
)
def test_other_evaluations_are_refused(
    complete: Path, tmp_path: Path, content: str | None, message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    file = tmp_path / "evaluation.json"
    if content is not None:
        file.write_text(content)
    assert message in refused(capsys, "card", complete, "--evaluations", file)


def refused(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    with pytest.raises(SystemExit) as ended:
        main(list(map(str, argv)))
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line


def test_the_command_prints_or_writes_the_card(
    complete: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*argv: object) -> str:
        with pytest.raises(SystemExit) as ended:
            main(["card", *map(str, argv)])
        assert not ended.value.code
        return capsys.readouterr().out

    printed = run(complete)
    assert printed.startswith("---\n")
    output = tmp_path / "README.md"
    assert str(output) in run(complete, "--output", output)
    assert output.read_text() == printed
    assert "--overwrite" in refused(capsys, "card", complete, "--output", output)


def test_directories_that_are_no_run_are_refused(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "does not exist" in refused(capsys, "card", tmp_path / "absent")
    assert "is no run directory" in refused(capsys, "card", own / "checkpoints")
    (own / "model.json").write_text("[" * 100_000)
    assert "model.json cannot be read" in refused(capsys, "card", own)
    (own / "model.json").unlink()
    assert "continue the run once with this version" in refused(capsys, "card", own)


def test_names_of_classes_cannot_change_the_card(own: Path) -> None:
    names = ["a|b", "`<script>`\n# Heading", ""]
    edit(own / "model.json", class_names=names)
    card = model_card(read_records(own))
    assert "`a\\|b`, `'<script>' # Heading`, (empty)" in card
    assert "\n# Heading" not in card

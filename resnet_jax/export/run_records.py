"""What a run directory says about its run, for a model card."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from resnet_jax.config import TrainConfig
from resnet_jax.inference.calibration import CALIBRATION_FILE, Calibration
from resnet_jax.inference.rundir import MODEL_FILE, read_config
from resnet_jax.inference.spec import ModelSpec
from resnet_jax.metrics_file import read_metrics
from resnet_jax.one_line import one_line
from resnet_jax.weights.formats.checkpoints import chosen
from resnet_jax.weights.structure import structure


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Measures of a network on the images of a split.

    Attributes:
        data: Name of the data set, or an empty string for the data of the run.
        split: Name of the split.
        measures: Values by name: ``top1`` and ``top5`` as shares from 0 to 1, ``nll`` in nats,
            ``brier``, ``ece`` and ``ece_mass``. Some may be missing.
        intervals: 95 % confidence intervals of some of them.
        images: Number of images, or None if it was not recorded.
        temperature: Temperature of the probabilities that were measured.
    """

    data: str
    split: str
    measures: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    images: int | None
    temperature: float = 1.0


@dataclasses.dataclass(frozen=True)
class RunRecords:
    """What the files of a run say.

    Attributes:
        name: Name of the run directory.
        config: The experiment.
        spec: The network.
        step: Number of steps of the checkpoint that stands for the run.
        complete: Whether the run has ended, so that it has a result.
        outcome: The evaluation of that checkpoint, or None if the run did not evaluate it.
        evaluations: Later evaluations, by `resnet-jax evaluate`.
        parameters: Number of trainable numbers.
        train_images: Number of training images, or None if it was not recorded.
        facts: Descriptions of the run by name, such as ``"devices"``. Older versions of the library
            recorded none.
        calibration: The stored calibration, or None.
    """

    name: str
    config: TrainConfig
    spec: ModelSpec
    step: int
    complete: bool
    outcome: Outcome | None
    evaluations: Sequence[Outcome]
    parameters: int
    train_images: int | None
    facts: Mapping[str, str]
    calibration: Calibration | None


def read_records(run: Path, evaluations: Sequence[Path] = ()) -> RunRecords:
    """Read the records of a run. The weights are not read.

    Args:
        run: The run directory.
        evaluations: Files that `resnet-jax evaluate --output` wrote for this run.

    Raises:
        FileNotFoundError: The directory or a file does not exist.
        ValueError: It is no run directory, the run has no checkpoint yet, a file is damaged, or an
            evaluation is that of another network.
        ConfigError: The configuration is damaged, or a newer version of resnet_jax wrote it.
    """
    if not run.exists():
        raise FileNotFoundError(f"{run} does not exist; give a run directory")
    config = read_config(run) if (run / "config.json").is_file() else None
    if config is None:
        raise ValueError(
            f"{run} is no run directory with a config.json and checkpoints; give the directory "
            "that `resnet-jax train` has made"
        )
    if not (run / MODEL_FILE).is_file():
        raise ValueError(
            f"{run} has no {MODEL_FILE}, because an older version of resnet_jax wrote it; continue "
            "the run once with this version, which then writes the file"
        )
    spec = _parsed(run / MODEL_FILE, ModelSpec.from_json)
    has_result = (run / "result.json").is_file()
    result = _parsed(run / "result.json", _object) if has_result else {}
    step = int(result.get("step", -1)) if "step" in result else _step(run)
    calibration = None
    if (run / CALIBRATION_FILE).is_file():
        calibration = _parsed(run / CALIBRATION_FILE, Calibration.from_json)
    return RunRecords(
        name=run.absolute().name,
        config=config,
        spec=spec,
        step=step,
        complete=has_result,
        outcome=_of_result(result) if has_result else _of_metrics(run, step),
        evaluations=[_evaluation(file, run) for file in evaluations],
        parameters=result.get("parameters") or _parameters(spec),
        train_images=result.get("train_images"),
        facts=result.get("facts", {}),
        calibration=calibration,
    )


def _step(run: Path) -> int:
    name = chosen(run).name
    return int(name.rpartition("_")[2])


def _parsed(file: Path, parse: Any) -> Any:
    """Return the parsed content of a JSON file.

    Raises:
        ValueError: The file is damaged. The message names it.
    """
    try:
        return parse(json.loads(file.read_text("utf-8")))
    except (RecursionError, TypeError, ValueError) as error:
        raise ValueError(
            one_line(f"{file} cannot be read ({error}); restore it from a copy")
        ) from None


def _object(plain: Any) -> dict[str, Any]:
    if not isinstance(plain, dict):
        raise ValueError(f"it holds a {type(plain).__name__} instead of an object")
    return plain


def _of_result(result: Mapping[str, Any]) -> Outcome:
    """Return the outcome in ``result.json``; before 0.2 it had neither intervals nor images."""
    if "measures" in result:
        return _of_measures("", result["split"], result["measures"])
    return _of_record(result["split"], result)


def _of_metrics(run: Path, step: int) -> Outcome | None:
    """Return the evaluation after a step of an unfinished run."""
    file = run / "metrics.jsonl"
    found = read_metrics(file) if file.is_file() else []
    for record in reversed(found):
        if record["kind"] != "train" and record["step"] == step:
            return _of_record(record["kind"], record)
    return None


def _of_record(split: str, record: Mapping[str, Any]) -> Outcome:
    names = {"top1": "top1", "top5": "top5", "loss": "nll"}
    measures = {ours: float(record[name]) for name, ours in names.items() if name in record}
    return Outcome("", split, measures, {}, None)


def _of_measures(
    data: str, split: str, plain: Mapping[str, Any], temperature: float = 1.0
) -> Outcome:
    measures = {
        name: float(value) for name, value in plain.items() if name not in ("images", "intervals")
    }
    intervals = {
        name: (float(low), float(high)) for name, (low, high) in plain["intervals"].items()
    }
    return Outcome(data, split, measures, intervals, int(plain["images"]), temperature)


def _evaluation(file: Path, run: Path) -> Outcome:
    if not file.is_file():
        raise FileNotFoundError(
            f"{file} does not exist; write it with `resnet-jax evaluate {run} --output {file}`"
        )
    plain = _parsed(file, _object)
    try:
        model, measures = plain["model"], plain["measures"]
        temperature = plain["calibration"]["temperature"]
        outcome = _of_measures(plain["data"], plain["split"], measures, temperature)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ValueError(
            f"{file} is not a result of `resnet-jax evaluate --output`; give such a file"
        ) from None
    parts = Path(str(model)).parts
    if run.absolute().name not in (parts[-1:] + parts[-3:-2]):
        raise ValueError(f"{file} is an evaluation of {model}, not of {run}; give one of {run}")
    return outcome


def _parameters(spec: ModelSpec) -> int:
    found = structure(spec.create(), spec.preprocessing.channels)["params"]
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(found))

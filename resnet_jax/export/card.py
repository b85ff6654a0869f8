"""Model cards: what a run's own records say about a network, for people and for the hub.

A card says nothing that the records do not say. What they lack is said to be missing.
"""

import dataclasses
import inspect
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from resnet_jax.config.data import DataConfig
from resnet_jax.config.serialization import changed_fields
from resnet_jax.data.preprocessing import Preprocessing
from resnet_jax.export.run_records import Outcome, RunRecords
from resnet_jax.inference.calibration import Calibration
from resnet_jax.inference.hub_layouts.ours import last_part

LIBRARY = "https://github.com/resnet-jax/resnet_jax"
"""Address of this library."""

# Classes that a card lists in full. The names of all are in config.json.
_MAX_CLASSES = 100
# Descriptions that a card leaves out: private paths, and what it says in other sections.
_OMITTED = ("workdir", "command", "data", "model", "skipped", "starts from", "teacher", "steps")
# Name, form and factor of each measure.
_MEASURES = {
    "top1": ("top-1 accuracy", "{:.2f} %", 100),
    "top5": ("top-5 accuracy", "{:.2f} %", 100),
    "nll": ("negative log-likelihood", "{:.4f} nats", 1),
    "brier": ("Brier score (0 to 2)", "{:.4f}", 1),
    "ece": ("calibration error, 15 bins of equal width", "{:.2f} %", 100),
    "ece_mass": ("calibration error, 15 bins of equal counts", "{:.2f} %", 100),
}


@dataclasses.dataclass(frozen=True)
class Publication:
    """Where a network is published, and what is published with it.

    Attributes:
        repository: Repository of the hub, such as ``"user/name"``, or None if it is not known.
        timm: Whether timm can load the weights.
        exports: Names of the files of exports beside the weights.
        license: Identifier of the license, such as ``"apache-2.0"``, or None.
    """

    repository: str | None = None
    timm: bool = False
    exports: Sequence[str] = ()
    license: str | None = None


def model_card(records: RunRecords, publication: Publication = Publication()) -> str:
    """Return a model card, Markdown after a block of YAML with the metadata of the hub.

    Local paths are shortened to their last part, so that a card does not disclose directories.

    Args:
        records: What the run has recorded.
        publication: Where the network is published.

    Raises:
        ImportError: huggingface_hub is not installed.
    """
    from huggingface_hub import ModelCard

    sections = [
        _introduction(records),
        _results(records),
        _calibration(records.calibration),
        _data(records),
        _recipe(records),
        _preprocessing(records.spec.preprocessing),
        _use(records, publication),
        _limits(records, publication),
    ]
    text = "\n\n".join("\n".join(section) for section in map(list, sections))
    metadata = _metadata(records, publication).to_yaml()
    # Reading the card checks that the hub can read its metadata, too.
    return str(ModelCard(f"---\n{metadata}\n---\n\n{text}\n"))


def _metadata(records: RunRecords, publication: Publication) -> Any:
    from huggingface_hub import EvalResult, ModelCardData

    data = _data_name(records.config.data)
    results = [
        EvalResult(
            task_type="image-classification",
            task_name="Image classification",
            dataset_type=_identifier(name),
            dataset_name=name,
            dataset_split=outcome.split,
            metric_type="accuracy",
            metric_name=_MEASURES[measure][0],
            metric_value=outcome.measures[measure],
            metric_args=_arguments(outcome, measure),
        )
        for outcome in _outcomes(records)
        for name in [last_part(outcome.data) or data]
        for measure in ("top1", *(("top5",) if records.spec.num_classes > 5 else ()))
        if measure in outcome.measures
    ]
    weights = records.config.model.weights or ""
    return ModelCardData(
        model_name=(publication.repository or records.name).rpartition("/")[2],
        library_name="timm" if publication.timm else "resnet_jax",
        license=publication.license,
        pipeline_tag="image-classification",
        tags=["image-classification", "resnet", "jax", "flax", "resnet_jax"],
        base_model=weights[5:].partition("@")[0] if weights.startswith("hf://") else None,
        metrics=["accuracy"],
        eval_results=results or None,
    )


def _arguments(outcome: Outcome, measure: str) -> dict[str, Any] | None:
    """Return the number of images and the interval of a measure, as far as they are known."""
    found: dict[str, Any] = {} if outcome.images is None else {"images": outcome.images}
    if measure in outcome.intervals:
        found["confidence_interval_95"] = list(outcome.intervals[measure])
    return found or None


def _outcomes(records: RunRecords) -> list[Outcome]:
    return [*([records.outcome] if records.outcome else []), *records.evaluations]


def _introduction(records: RunRecords) -> Iterator[str]:
    spec, size = records.spec, records.spec.preprocessing.image_shape
    kind = {1: "gray", 3: "RGB"}.get(size[2], f"{size[2]}-channel")
    yield f"# {spec.name} on {_data_name(records.config.data)}"
    yield ""
    yield (
        f"This network tells {spec.num_classes:,} classes of images apart. It is a `{spec.name}` "
        f"with {records.parameters:,} parameters, and it takes {kind} images of "
        f"{size[0]} x {size[1]} pixels. It was trained with [resnet_jax]({LIBRARY}) "
        f"{spec.library_version}."
    )
    if not records.complete:
        yield ""
        yield (
            f"**The run had not ended when this card was written.** The weights are those after "
            f"step {records.step:,}."
        )
    yield ""
    yield (
        "`resnet-jax card` wrote this card from the records of the training run. It says nothing "
        "that they do not say."
    )


def _results(records: RunRecords) -> Iterator[str]:
    yield "## Results"
    outcomes = _outcomes(records)
    if records.outcome is None:
        yield ""
        yield f"The run recorded no evaluation of its weights after step {records.step:,}."
    for outcome in outcomes:
        yield ""
        yield _measured_on(records, outcome)
        yield ""
        yield "| measure | value | 95 % confidence interval |"
        yield "|---|---:|---:|"
        for name, (title, form, factor) in _MEASURES.items():
            if name not in outcome.measures or (name == "top5" and records.spec.num_classes <= 5):
                continue
            low_high = outcome.intervals.get(name)
            interval = " to ".join(form.format(factor * end) for end in low_high or ())
            yield f"| {title} | {form.format(factor * outcome.measures[name])} | {interval} |"
    if any(outcome.intervals for outcome in outcomes):
        yield ""
        yield (
            "The intervals are percentiles of a bootstrap over the images. They cover the choice "
            "of the images, and neither the seed of the training nor images of another kind. "
            "Calibration errors have no interval, because a bootstrap overestimates them."
        )
    if any(not outcome.intervals for outcome in outcomes):
        yield ""
        yield (
            "The records of the run contain neither the number of these images nor confidence "
            "intervals. `resnet-jax evaluate --output` measures both, and `resnet-jax card "
            "--evaluations` adds them to this card."
        )


def _measured_on(records: RunRecords, outcome: Outcome) -> str:
    count = "the" if outcome.images is None else f"the {outcome.images:,}"
    data = _code(last_part(outcome.data) or _data_name(records.config.data))
    after = "" if outcome.data else f" after step {records.step:,}"
    words = [f"Measured on {count} images of the split {_code(outcome.split)} of {data}{after}."]
    if outcome.temperature != 1:
        words.append(f"The probabilities have the temperature {outcome.temperature:.4f}.")
    if not outcome.data and outcome.split == "validation":
        config = records.config
        if config.early_stopping.patience:
            words.append(
                "The run stopped early and kept the checkpoint that was best on these images, so "
                "the values are too good on average."
            )
        else:
            words.append("These images were held out of the training.")
    return " ".join(words)


def _calibration(calibration: Calibration | None) -> Iterator[str]:
    yield "## Calibration"
    yield ""
    if calibration is None:
        yield (
            "No temperature and no threshold were fitted. The probabilities are the softmax of the "
            "logits, and may be too high or too low."
        )
        return
    fitted = calibration.temperature_fitted_on
    if fitted:
        yield (
            f"The logits are divided by the temperature {calibration.temperature:.4f} before the "
            f"softmax. It was fitted on the {fitted.images:,} images of the split "
            f"{_code(fitted.split)} of {_code(last_part(fitted.data))}, on {fitted.date[:10]}."
        )
    else:
        yield "No temperature was fitted. The probabilities are the softmax of the logits."
    chosen = calibration.threshold_fitted_on
    if calibration.threshold is not None and chosen:
        yield ""
        yield (
            f"A prediction counts as certain if its probability is at least "
            f"{calibration.threshold:.4f}. This threshold was fitted on the {chosen.images:,} "
            f"images of the split {_code(chosen.split)} of {_code(last_part(chosen.data))}"
            + (
                f", such that at least {100 * calibration.accuracy:.4g} % of the certain "
                "predictions are right there."
                if calibration.accuracy is not None
                else "."
            )
        )


def _data(records: RunRecords) -> Iterator[str]:
    config, outcome = records.config.data, records.outcome
    missing = "not recorded"
    kind = (inspect.getdoc(type(config)) or "").partition("\n")[0]
    yield "## Data"
    yield ""
    yield "| fact | value |"
    yield "|---|---|"
    yield f"| data set | {_code(_data_name(config))} |"
    yield f"| kind | {kind} |"
    images = records.train_images
    yield f"| training images | {missing if images is None else f'{images:,}'} |"
    if outcome is not None:
        count = missing if outcome.images is None else f"{outcome.images:,}"
        yield f"| images of the split {_code(outcome.split)} | {count} |"
    if "skipped" in records.facts:
        yield f"| skipped images | {_cell(records.facts['skipped'].partition(',')[0])} |"
    names = records.spec.class_names
    yield ""
    if len(names) <= _MAX_CLASSES:
        yield f"The {len(names)} classes are {', '.join(map(_code, names))}."
    else:
        yield (
            f"There are {len(names):,} classes, from {_code(names[0])} to {_code(names[-1])}. "
            "`config.json` lists all of them in the order of the outputs."
        )
    yield ""
    yield (
        "Where the images come from, who took and labeled them, and under which license they are "
        "is not recorded."
    )


def _recipe(records: RunRecords) -> Iterator[str]:
    config = records.config
    yield "## Training"
    yield ""
    start = config.model.weights
    yield (
        f"The training started from {_code(_public(start))}"
        if start
        else "The training started from random parameters"
    ) + f" and took {records.step:,} steps; {config.epochs:g} epochs were planned."
    if records.facts:
        yield ""
        yield "| fact | value |"
        yield "|---|---|"
        for name, value in records.facts.items():
            if name not in _OMITTED:
                yield f"| {_cell(name)} | {_cell(value)} |"
    else:
        yield ""
        yield "The hardware, the software and the date of the training are not recorded."
    yield ""
    yield "These settings differ from their defaults or have none:"
    yield ""
    yield "| setting | value | default |"
    yield "|---|---|---|"
    for field in changed_fields(config):
        default = "" if field.required else _code(_value(field.default))
        yield f"| `{field.name}` | {_code(_value(field.value))} | {default} |"


def _preprocessing(preprocessing: Preprocessing) -> Iterator[str]:
    yield "## Preprocessing"
    yield ""
    yield "| field | value |"
    yield "|---|---|"
    for name, value in preprocessing.to_json().items():
        if value is not None:
            yield f"| {name.replace('_', ' ')} | {_code(_value(value))} |"


def _use(records: RunRecords, publication: Publication) -> Iterator[str]:
    repository = publication.repository
    source = f"hf://{repository}" if repository else f"runs/{records.name}"
    yield "## Use"
    yield ""
    extra = "weights" if repository else "train"
    yield f"In JAX, after `pip install 'resnet-linen[{extra}]'`:"
    yield ""
    yield "```python"
    yield "from resnet_jax import Classifier"
    yield ""
    yield f"classifier = Classifier.from_pretrained({json.dumps(source)})"
    yield 'for prediction in classifier.predict("image.jpg")[0]:'
    yield "    print(prediction.class_name, prediction.probability)"
    yield "```"
    yield ""
    if publication.timm and repository:
        yield "In PyTorch, with timm:"
        yield ""
        yield "```python"
        yield "import timm"
        yield ""
        yield f'model = timm.create_model("hf-hub:{repository}", pretrained=True).eval()'
        yield "config = timm.data.resolve_model_data_config(model, use_test_size=True)"
        yield "transform = timm.data.create_transform(**config, is_training=False)"
        yield "```"
        preprocessing = records.spec.preprocessing
        if preprocessing.interpolation == "linear" or preprocessing.upsample_size is not None:
            yield ""
            yield (
                "timm resizes images in another way than this network was trained with, so its "
                "results differ a little."
            )
        if records.calibration is not None and records.calibration.temperature != 1:
            yield ""
            yield (
                "timm does not know the temperature: divide the logits by "
                f"{records.calibration.temperature:.4f} before the softmax."
            )
    elif not publication.timm:
        yield "timm has no network that takes these weights, so it cannot load them."
    else:
        yield "timm loads the weights from the repository that `resnet-jax push` makes."
    yield ""
    yield from _use_onnx(records, publication, source)


def _use_onnx(records: RunRecords, publication: Publication, source: str) -> Iterator[str]:
    height, width, channels = records.spec.preprocessing.image_shape
    found = next((name for name in publication.exports if name.endswith(".onnx")), None)
    if found:
        yield f"With ONNX Runtime, the file `{found}` of this repository needs no other library:"
    else:
        yield "With ONNX Runtime, after an export:"
        yield ""
        yield "```bash"
        yield f"resnet-jax export {source} --format onnx --output model.onnx"
        yield "```"
    yield ""
    yield "```python"
    yield "import onnxruntime"
    yield ""
    yield f'session = onnxruntime.InferenceSession("{found or "model.onnx"}")'
    yield f"# uint8[batch, {height}, {width}, {channels}], resized and cropped as above"
    yield '(probabilities,) = session.run(None, {"images": images})'
    yield "```"
    if others := [name for name in publication.exports if name != found]:
        yield ""
        yield f"The repository also contains {', '.join(map(_code, others))}."


def _limits(records: RunRecords, publication: Publication) -> Iterator[str]:
    yield "## Limits"
    yield ""
    yield (
        f"- Every image gets one of the {records.spec.num_classes:,} classes, even an image that "
        "shows something else."
    )
    outcomes = _outcomes(records)
    names = {last_part(outcome.data) or _data_name(records.config.data) for outcome in outcomes}
    if names:
        yield (
            f"- The measures hold for images like those of {' and '.join(map(_code, names))}. "
            "Other cameras, places and times were not measured."
        )
    else:
        yield "- Nothing was measured on the weights that are published here."
    yield (
        "- The records contain no measures for groups of people, and none for deliberately "
        "changed images."
    )
    if publication.license is None:
        yield "- The records state no license, neither of the weights nor of the images."


def _data_name(config: DataConfig) -> str:
    """Return the name of a data set without the directories that lead to it."""
    name = getattr(config, "name", None)
    place = getattr(config, "path", None) or getattr(config, "directory", None)
    return name or last_part(place or "") or config.kind


def _public(value: str) -> str:
    """Return a value without the directories of a path. Names of repositories are kept."""
    return value if value.startswith("hf://") else last_part(value)


def _value(value: Any) -> str:
    """Return a value of a configuration in one line, without directories."""
    if isinstance(value, str):
        return _public(value)
    if isinstance(value, list | tuple):
        return f"({', '.join(map(_value, value))})"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _identifier(name: str) -> str:
    """Return a name as the hub writes those of data sets."""
    return re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-") or "unknown"


def _cell(text: str) -> str:
    """Return a text that a cell of a table can contain, and that is not read as HTML."""
    text = " ".join(text.split())
    for character, replacement in (("&", "&amp;"), ("<", "&lt;"), ("|", "\\|")):
        text = text.replace(character, replacement)
    return text


def _code(text: str) -> str:
    """Return a text as code that a cell of a table can contain."""
    text = " ".join(text.replace("`", "'").split()).replace("|", "\\|")
    return f"`{text}`" if text else "(empty)"

"""What a run that starts from weights must know of them: the network and the preprocessing."""

import dataclasses
import functools
import os
from pathlib import Path
from typing import Any, NamedTuple

from resnet_jax.config import ConfigError, ModelConfig
from resnet_jax.data.preprocessing import Preprocessing
from resnet_jax.inference.pretrained import find
from resnet_jax.inference.rundir import read_run
from resnet_jax.models import ResNet, create_model, list_models
from resnet_jax.models.names import named_value
from resnet_jax.training.network import variable_shapes
from resnet_jax.weights import list_pretrained
from resnet_jax.weights.hub import weight_file

# Fields of a run's network that a run which starts from it keeps. The channels follow the images.
_KEPT = ("act", "norm", "small_input", "output_stride", "bn_epsilon", "scan", "dtype")


class StartingPoint(NamedTuple):
    """Weights to start from.

    Attributes:
        model: The network, with the weights.
        preprocessing: How an image becomes its input.
        num_classes: Number of classes of the weights.
        is_run: Whether they are those of a training run.
    """

    model: ModelConfig
    preprocessing: Preprocessing
    num_classes: int
    is_run: bool

    @property
    def has_batch_norm(self) -> bool:
        """Whether the network has BatchNorm layers."""
        fields = {name: getattr(self.model, name) for name in ("act", "norm")}
        overrides: Any = {
            name: named_value(name, value) for name, value in fields.items() if value is not None
        }
        return "batch_stats" in variable_shapes(create_model(self.model.name, **overrides))


def starting_point(weights: str | os.PathLike[str], model: str | None = None) -> StartingPoint:
    """Return the network and the preprocessing of weights; hub weights are not downloaded.

    Args:
        weights: A name of `resnet_jax.list_pretrained`, ``hf://OWNER/NAME``, a run directory, a
            checkpoint of a run, or a file of weights.
        model: Name of the network, for weights that do not say it. A name with a tag, such as
            ``"resnet50.tv2_in1k"``, brings the preprocessing of these published weights.

    Raises:
        ConfigError: The weights do not exist or cannot be read, or it is not known which network
            they belong to; in one line.
    """
    text = os.fspath(weights)
    path = Path(text).expanduser()
    try:
        if model is None and path.is_dir() and weight_file(path) is None:
            spec, _ = read_run(path)
            fields = {name: value for name, value in spec.fields.items() if name in _KEPT}
            config = ModelConfig(spec.name, weights=text, **fields)
            return StartingPoint(config, spec.preprocessing, spec.num_classes, is_run=True)
        if model is None and path.is_file():
            raise ConfigError(
                f"{text}: a file of weights does not name its network; give its name as well, as "
                "in --model resnet50"
            )
        found = find(text, model, "train", {})
    except (ImportError, OSError, ValueError) as error:
        raise ConfigError(" ".join(str(error).split())) from error
    published = {entry.name: entry.source for entry in list_pretrained()}
    source = text if path.exists() else published.get(text, text)
    if source.startswith("http"):
        raise ConfigError(
            f"the weights {text} are at {source}; download them, and give the path of the file and "
            f"--model {text}"
        )
    config = ModelConfig(
        model.partition(".")[0] if model else _name_of(found.model, text),
        weights=source,
        output_stride=found.model.output_stride,
    )
    return StartingPoint(config, found.preprocessing, found.model.num_classes, is_run=False)


def _name_of(model: ResNet, weights: str) -> str:
    """Return the name under which `create_model` builds a network.

    Raises:
        ConfigError: It builds no such network.
    """
    wanted = _comparable(model)
    for name in list_models():
        candidate = create_model(
            name,
            num_classes=model.num_classes,
            in_channels=model.in_channels,
            output_stride=model.output_stride,
        )
        if _comparable(candidate) == wanted:
            return name
    raise ConfigError(
        f"{weights}: its network is none of those that `resnet-jax models` lists, which alone can "
        "be trained by their names"
    )


def _comparable(value: Any) -> Any:
    """Return a network or one of its fields with partials that are equal if their parts are."""
    if isinstance(value, ResNet):
        return {
            field.name: _comparable(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if field.name not in ("parent", "name")
        }
    if isinstance(value, functools.partial):
        keywords = {name: _comparable(part) for name, part in value.keywords.items()}
        return value.func, tuple(map(_comparable, value.args)), tuple(sorted(keywords.items()))
    return tuple(map(_comparable, value)) if isinstance(value, tuple) else value

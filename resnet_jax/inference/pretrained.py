"""Finding a network, its weights, its preprocessing and its class names from one name."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from resnet_jax.data.preprocessing import Preprocessing
from resnet_jax.inference.calibration import Calibration
from resnet_jax.inference.hub_layouts.description import Description, names_of
from resnet_jax.inference.hub_layouts.repository import read_description
from resnet_jax.inference.hub_layouts.timm import timm_preprocessing
from resnet_jax.inference.rundir import read_run
from resnet_jax.models import Overrides, ResNet, create_model, list_models
from resnet_jax.suggestions import did_you_mean, nearest
from resnet_jax.weights import Pretrained, list_pretrained
from resnet_jax.weights.hub import WEIGHT_FILES, fetch, fetch_first
from resnet_jax.weights.load import find_network
from resnet_jax.weights.sources import Source

ImageSize = Literal["test", "train"] | int | tuple[int, int]
"""Size of the input images: the one that the accuracy of the weights is measured with, timm's
default, which is usually that of training, or a number of pixels."""

# A name that ends like this is meant as the path of a file.
_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".npz", ".tar", ".msgpack")


class Found(NamedTuple):
    """What a name stands for.

    Attributes:
        model: The network.
        weights: The weights, for `resnet_jax.load_weights`.
        preprocessing: How an image becomes its input.
        class_names: One name for each logit.
        prefix: The prefix of the weights, for `resnet_jax.load_weights`.
        calibration: The calibration that a repository describes. That of a run is in a file.
    """

    model: ResNet
    weights: Source
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    prefix: str | None = None
    calibration: Calibration = Calibration()


def find(
    source: Source | os.PathLike[str],
    model: str | ResNet | None,
    image_size: ImageSize,
    overrides: Overrides,
    prefix: str | None = None,
) -> Found:
    """Return what `resnet_jax.Classifier.from_pretrained` needs, without reading the weights twice.

    Args:
        source: Name of published weights, repository, file, directory or tensors.
        model: The network or its name, for weights that do not say it.
        image_size: Size of the input images.
        overrides: Changes of the network.
        prefix: Which weights to use of a source with several networks.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The source is unknown or cannot be read.
        ImportError: The source needs a package that is not installed.
    """
    text = "the tensors" if isinstance(source, Mapping) else os.fspath(source)
    if model is not None:
        found = _with_network(source, text, model, image_size, prefix)
    elif isinstance(source, Mapping):
        raise ValueError(
            "tensors do not name their network; give its name as well, for example "
            "Classifier.from_pretrained(tensors, 'resnet50')"
        )
    elif text.startswith("hf:"):
        found = _from_hub(text, image_size)
    elif (path := Path(text).expanduser()).exists():
        found = _from_path(path, image_size)
    elif "://" in text:
        raise ValueError(
            f"{text}: web addresses are not supported; download the file, or give hf://OWNER/NAME"
        )
    elif text.endswith(_SUFFIXES) or "/" in text or os.sep in text:
        hub = f", or give hf://{text} for a repository of the hub" if text.count("/") == 1 else ""
        raise FileNotFoundError(f"{text}: there is no such file or directory; check the path{hub}")
    else:
        found = _from_catalogue(_entry(text), image_size)
    if found.prefix is None:
        found = found._replace(prefix=prefix)
    found = found._replace(preprocessing=_resized(found.preprocessing, image_size))
    classes = overrides.get("num_classes", found.model.num_classes)
    if classes not in (0, found.model.num_classes):
        raise ValueError(
            f"{text} has {found.model.num_classes} classes, not {classes}; leave num_classes out, "
            "or train a new head, starting with load_weights(..., new_head=True)"
        )
    names = found.class_names if classes else ()
    return found._replace(model=found.model.clone(**overrides), class_names=names)


def _resized(preprocessing: Preprocessing, image_size: ImageSize) -> Preprocessing:
    if isinstance(image_size, int | tuple):
        return dataclasses.replace(preprocessing, image_size=image_size)
    if image_size not in ("test", "train"):
        raise ValueError(
            f"image_size must be 'test', 'train' or a number of pixels, but it is {image_size!r}"
        )
    return preprocessing


def _entry(name: str) -> Pretrained:
    """Return the entry of the catalogue with this name."""
    entries = {entry.name: entry for entry in list_pretrained()}
    if name in entries:
        return entries[name]
    if of_network := [entry for entry in entries.values() if entry.model == name]:
        best = max(of_network, key=lambda entry: entry.top1 or 0)
        raise ValueError(
            f"{name} is the name of a network with {len(of_network)} published weights; name one "
            f"of them, such as {best.name}, or list them with list_pretrained('{name}.*')"
        )
    if name in list_models():
        raise ValueError(
            f"{name} is the name of a network without published weights; give a file of weights "
            f"first: Classifier.from_pretrained('weights.safetensors', {name!r})"
        )
    hint = did_you_mean(nearest(name, entries), otherwise="see list_pretrained()")
    raise ValueError(f"unknown weights {name!r}, and there is no such file: {hint}")


def _from_catalogue(entry: Pretrained, image_size: ImageSize) -> Found:
    return Found(
        create_model(entry.model, num_classes=entry.num_classes),
        entry.source,
        _catalogue_preprocessing(entry, image_size),
        names_of(entry.num_classes),
    )


def _catalogue_preprocessing(entry: Pretrained, image_size: ImageSize) -> Preprocessing:
    facts = {
        "input_size": (3, entry.input_size, entry.input_size),
        "test_input_size": (3, entry.test_size, entry.test_size),
        "crop_pct": entry.input_crop_fraction,
        "test_crop_pct": entry.crop_fraction,
        "interpolation": entry.interpolation,
        "mean": entry.mean,
        "std": entry.std,
    }
    return timm_preprocessing(facts, test_size=image_size != "train")


def _from_hub(reference: str, image_size: ImageSize) -> Found:
    # Without a revision, the catalogue has the same facts, and nothing more is downloaded.
    for entry in list_pretrained():
        if entry.source == reference:
            return _from_catalogue(entry, image_size)
    config = fetch_first(reference, ["config.json"])
    if config is None:
        raise ValueError(
            f"{reference}: the repository has no config.json; give the name of its network as well"
        )
    try:
        preprocessor = fetch_first(reference, ["preprocessor_config.json"])
    except ValueError:  # The hub cannot be reached, and the cache has the configuration only.
        preprocessor = None
    description = read_description(reference, config, preprocessor)
    return _found(description, fetch(reference), image_size)


def _from_path(path: Path, image_size: ImageSize) -> Found:
    if not path.is_dir():
        raise ValueError(
            f"{path}: a file of weights does not name its network; give its name as well: "
            f"Classifier.from_pretrained({str(path)!r}, 'resnet50')"
        )
    for name in WEIGHT_FILES:
        if (path / name).is_file():
            config, preprocessor = path / "config.json", path / "preprocessor_config.json"
            if not config.exists():
                raise ValueError(
                    f"{path} has no config.json; give the name of the network as well, with "
                    f"{path / name}"
                )
            description = read_description(str(path), config, preprocessor)
            return _found(description, path / name, image_size)
    spec, variables = read_run(path)
    try:
        return Found(spec.create(), variables, spec.preprocessing, spec.class_names)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None


def _found(description: Description, weights: Path, image_size: ImageSize) -> Found:
    preprocessing = description.preprocessing
    if image_size == "train":
        preprocessing = description.training_preprocessing
    return Found(
        description.model,
        weights,
        preprocessing,
        description.class_names,
        calibration=description.calibration,
    )


def _with_network(
    source: Source | os.PathLike[str],
    text: str,
    model: str | ResNet,
    image_size: ImageSize,
    prefix: str | None,
) -> Found:
    """Return weights for a network that is given; its classes are counted in the weights."""
    preprocessing = timm_preprocessing({"interpolation": "bilinear"}, test_size=True)
    if isinstance(model, str) and "." in model:
        entry = _entry(model)
        preprocessing = _catalogue_preprocessing(entry, image_size)
        model = entry.model
    network = create_model(model) if isinstance(model, str) else model
    weights: Source = source if isinstance(source, Mapping) else text
    if not (isinstance(source, Mapping) or text.startswith("hf:") or "://" in text):
        weights = Path(text).expanduser()
        if not weights.exists():
            raise FileNotFoundError(f"{text}: there is no such file; check the path")
    if isinstance(model, str):
        weights, prefix, num_classes = find_network(network, weights, prefix)
        network = network.clone(num_classes=num_classes)
    return Found(network, weights, preprocessing, names_of(network.num_classes), prefix)

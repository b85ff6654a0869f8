"""The files of a repository of the hub: card, weights in timm's layout, and exports."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from resnet_jax.export.card import Publication, model_card
from resnet_jax.export.program import abstract_images, build_program, describe
from resnet_jax.export.run_records import RunRecords, read_records
from resnet_jax.export.timm import timm_architecture, write_timm
from resnet_jax.inference.calibration import Calibration
from resnet_jax.inference.classifier import Classifier
from resnet_jax.inference.hub_layouts.ours import KEY, our_fields
from resnet_jax.models import ResNet
from resnet_jax.weights import save_weights

Export = Literal["onnx", "stablehlo"]
"""Formats of the exports that a repository can contain."""

CARD = "README.md"
"""Name of the model card, which the hub shows."""


def write_repository(
    run: Path,
    directory: Path,
    repository: str,
    *,
    exports: Sequence[Export] = (),
    evaluations: Sequence[Path] = (),
    license_id: str | None = None,
) -> None:
    """Write the files of a repository.

    `Classifier.from_pretrained` loads the directory, and the repository, with the preprocessing,
    the class names and the calibration of the run. If timm has the network, timm loads both as
    well. The files depend on the run alone, so that the same run gives the same files; only exports
    contain the date.

    Args:
        run: The run directory.
        directory: An empty directory for the files.
        repository: Name of the repository, such as ``"user/name"``, for the card.
        exports: Formats of exports to add.
        evaluations: Results of `resnet-jax evaluate` for the card.
        license_id: Identifier of the license of the weights.

    Raises:
        FileNotFoundError: The run or an evaluation does not exist.
        ValueError: The run has no checkpoint, it is damaged, or it cannot be exported.
        ImportError: A package is not installed.
    """
    records = read_records(run, evaluations)
    classifier = Classifier.load(run)
    if classifier.calibration == Calibration():
        # It was fitted with other weights, and the classifier has warned of it.
        records = dataclasses.replace(records, calibration=None)
    in_timm = _write_weights(records, classifier, directory)
    names = [_export(classifier, kind, directory) for kind in exports]
    publication = Publication(repository, timm=in_timm, exports=names, license=license_id)
    (directory / CARD).write_text(model_card(records, publication), "utf-8")


def is_in_timm(model: ResNet) -> bool:
    """Return whether timm has a network that takes the weights of a network."""
    try:
        timm_architecture(model)
    except ValueError:
        return False
    return True


def _write_weights(records: RunRecords, classifier: Classifier, directory: Path) -> bool:
    """Write the weights and ``config.json``, and return whether timm can load them."""
    model = classifier.model
    in_timm = is_in_timm(model)
    config: dict[str, Any]
    if in_timm:
        config = write_timm(classifier, directory)
    else:
        save_weights(model, classifier.variables, directory / "model.safetensors")
        names = list(classifier.class_names)
        config: dict[str, Any] = {"num_classes": model.num_classes, "label_names": names}
    theirs = {name: value for name, value in config.get(KEY, {}).items() if name != "date"}
    ours = our_fields(records.spec, classifier.calibration)
    config[KEY] = {**theirs, **ours[KEY]}
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    return in_timm


def _export(classifier: Classifier, kind: Export, directory: Path) -> str:
    """Write an export for batches of any size, and return the name of its file."""
    name = f"model.{kind}"
    if kind == "stablehlo":
        from resnet_jax.export.stablehlo import write_stablehlo

        program = build_program(classifier, by_platform=True)
        write_stablehlo(program, directory / name, metadata=describe(classifier))
    else:
        from resnet_jax.export.onnx import write_onnx

        program = build_program(classifier)
        arguments = program.variables, abstract_images(program)
        write_onnx(program.function, arguments, directory / name, metadata=describe(classifier))
    return name

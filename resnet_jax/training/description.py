"""Descriptions of a run for people."""

import dataclasses
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

import resnet_jax
from resnet_jax.config import (
    AugmentConfig,
    DigitsConfig,
    ModelConfig,
    SyntheticConfig,
    TfdsArraysConfig,
    TrainConfig,
)
from resnet_jax.training.early_stopping import BestEvaluation
from resnet_jax.training.network import frozen_statistics
from resnet_jax.training.rundir.workdir import Workdir
from resnet_jax.training.setup import Run


def describe(run: Run, workdir: Workdir) -> dict[str, str]:
    """Return what is trained, on what and how, by name, for people."""
    config, dataset = run.config, run.dataset
    devices = run.mesh.devices.flatten()
    batch_size = run.phases.phases[0].batch_size
    num_train, num_evaluation = len(dataset.train), len(dataset.evaluation)
    return {
        "model": f"{config.model.name}, {run.num_params:,} parameters, {config.model.dtype}",
        **({"starts from": _weights(config.model)} if config.model.weights else {}),
        "devices": f"{len(devices)} x {devices[0].device_kind}"
        + (f" in {jax.process_count()} processes" if jax.process_count() > 1 else ""),
        "mesh": ", ".join(f"{axis}={size}" for axis, size in run.mesh.shape.items()),
        "BatchNorm": _batch_norm(run),
        **({"averages": _averages(config)} if config.averaging.decay else {}),
        **({"head first": _head_first(run)} if run.head_steps else {}),
        **({"early stopping": _early_stopping(config)} if config.early_stopping.patience else {}),
        "batch": f"{batch_size} images, {batch_size // len(devices)} a device",
        **({"resizing": _resizing(run)} if run.phases.resize else {}),
        "optimizer": _words(config.optimizer, omit=("learning_rate",)),
        "learning rate": f"{config.optimizer.learning_rate:g} at its peak; "
        f"{_words(config.schedule)}",
        "augmentation": _augmentation(config),
        "seed": str(config.seed),
        "steps": f"{run.total_steps:,} ({config.epochs:g} epochs of {num_train:,} images)",
        "data": f"{dataset.name}: {num_train:,} train, {num_evaluation:,} "
        f"{dataset.evaluation_split}, {len(dataset.class_names)} classes",
        "workdir": str(workdir.path),
        "software": ", ".join(f"{name} {version(name)}" for name in ("jax", "flax", "optax")),
    }


def provenance(command: Sequence[str]) -> dict[str, str]:
    """Return when and by what a run was made, by name, for people.

    Args:
        command: The words of the command line; empty if there was none.
    """
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "library": f"resnet_jax {resnet_jax.__version__}{_commit()}",
        **({"command": shlex.join(command)} if command else {}),
    }


def _commit() -> str:
    """Return the commit of the library if it is used from a clone, with a leading comma."""
    clone = Path(resnet_jax.__file__).parents[1]
    if not (clone / ".git").exists() or shutil.which("git") is None:
        return ""
    process = subprocess.run(
        ["git", "-C", str(clone), "describe", "--always", "--dirty", "--abbrev=10", "--exclude=*"],
        capture_output=True,
        text=True,
        check=False,
    )
    commit, _, changed = process.stdout.strip().partition("-")
    return f", commit {commit}{' with changes' if changed else ''}" if commit else ""


def shortened_warmup(config: TrainConfig) -> str | None:
    """Return a line that says how the warm-up was shortened, or None if it was not."""
    schedule, epochs = config.schedule, config.schedule_epochs
    warmup = schedule.warmup(epochs)
    if warmup == schedule.warmup_epochs:
        return None
    whole = "schedule" if config.finetune.head_epochs else "run"
    return (
        f"The warm-up takes {warmup:g} epochs instead of {schedule.warmup_epochs:g}, because the "
        f"{whole} has only {epochs:g}."
    )


def early_stop(run: Run, step: int, best: BestEvaluation) -> str:
    """Return a line that says after which step a run has ended, and which step is used."""
    early = run.config.early_stopping
    why = (
        f"Stopped after step {step} of {run.total_steps}, because {best.waited} evaluations in a "
        f"row had no better {early.metric}."
        if best.ends(early)
        else f"The last of {run.total_steps} steps is not the best one."
    )
    return f"{why} The checkpoint of step {best.step} is used."


def _head_first(run: Run) -> str:
    return (
        f"{run.head_steps:,} steps ({run.config.finetune.head_epochs:g} epochs), BatchNorm frozen"
    )


def _resizing(run: Run) -> str:
    first, *later = run.phases.phases
    sizes = [
        f"{phase.image_size} from step {phase.first_step + 1:,} on"
        + (f" in batches of {phase.batch_size}" if phase.batch_size != before.batch_size else "")
        for before, phase in zip([first, *later], later, strict=False)
    ]
    return ", ".join([f"training images of {first.image_size} pixels", *sizes])


def _early_stopping(config: TrainConfig) -> str:
    early = config.early_stopping
    return f"after {early.patience} evaluations in a row without a better validation {early.metric}"


def _averages(config: TrainConfig) -> str:
    averaging = config.averaging
    warmup = "" if averaging.warmup == "none" else f", {averaging.warmup} warm-up"
    return f"of parameters and statistics, decay {averaging.decay}{warmup}; they are evaluated"


def _weights(config: ModelConfig) -> str:
    prefix = config.weights_prefix
    return f"{config.weights}, {prefix!r}" if prefix else f"{config.weights}"


def _batch_norm(run: Run) -> str:
    config = run.config
    if config.model.freeze_bn:
        return "frozen"
    frozen = frozen_statistics(run.abstract_state.variables, config.finetune)
    size = config.statistics_size(run.mesh.size)
    each_device = ", each device by itself" if config.model.bn_group_size == "device" else ""
    statistics = (
        f"statistics of groups of {size}{each_device}" if size else "statistics of the batch"
    )
    patterns = ", ".join(config.finetune.freeze)
    return f"{statistics}, frozen in layers that match {patterns}" if frozen else statistics


def _words(config: Any, *, omit: Sequence[str] = (), unchanged: Any = None) -> str:
    """Return the kind of a configuration and the values of its fields.

    Args:
        config: A dataclass.
        omit: Fields to leave out.
        unchanged: Leave out the fields that have the same value here.
    """
    words = [config.kind] if hasattr(config, "kind") else []
    for field in dataclasses.fields(config):
        name, value = field.name.replace("_", " "), getattr(config, field.name)
        if field.name in omit or (unchanged and value == getattr(unchanged, field.name)):
            continue
        if isinstance(value, bool):
            words += [name] if value else []
        elif isinstance(value, tuple):
            words.append(f"{name} {' to '.join(f'{item:g}' for item in value)}")
        else:
            words.append(f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}")
    return ", ".join(words)


def _augmentation(config: TrainConfig) -> str:
    data = config.data
    if isinstance(data, DigitsConfig):
        return (
            f"rotation up to {data.max_rotation:g} degrees, scaling up to {data.max_scaling:.0%}, "
            f"shift up to {data.max_shift:g} pixels"
        )
    if isinstance(data, SyntheticConfig):
        return "none"
    augment = data.augment if isinstance(data, TfdsArraysConfig) else data.images.augment
    crops = []
    if not isinstance(data, TfdsArraysConfig):
        low, high = data.images.crop_scale
        crops = [f"random crops of {low:.0%} to {high:.0%} of the image"]
    words = _words(augment, omit=("mean", "std", "fill"), unchanged=AugmentConfig(flip=0.0))
    return ", ".join([*crops, *([words] if words else [])]) or "none"

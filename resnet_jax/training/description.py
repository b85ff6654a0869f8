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
    ArraysConfig,
    AugmentConfig,
    ClipConfig,
    DigitsConfig,
    FolderConfig,
    IdxConfig,
    ModelConfig,
    SamplingConfig,
    ScheduleConfig,
    SyntheticConfig,
    TfdsArraysConfig,
    TfdsConfig,
    TrainConfig,
)
from resnet_jax.config.schedules import WarmupConfig
from resnet_jax.config.train import SCALING_BATCH_SIZE
from resnet_jax.training.early_stopping import BestEvaluation
from resnet_jax.training.network import frozen_statistics
from resnet_jax.training.rundir.workdir import Workdir
from resnet_jax.training.setup import Run


def describe(run: Run, workdir: Workdir | None = None) -> dict[str, str]:
    """Return what is trained, on what and how, by name, for people.

    Args:
        run: The run.
        workdir: The run directory, if there is one.
    """
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
        **({"averages": _averages(config)} if config.averaging.enabled else {}),
        **({"sharpness": _words(config.sam)} if config.sam.rho else {}),
        **({"guard": _guard(config)} if config.skips_steps else {}),
        **({"head first": _head_first(run)} if run.head_steps else {}),
        **({"early stopping": _early_stopping(config)} if config.early_stopping.patience else {}),
        "batch": f"{batch_size} images, {batch_size // len(devices)} a device"
        + (f", in {config.accumulate_steps} microbatches" if config.accumulate_steps > 1 else ""),
        **({"resizing": _resizing(run)} if run.phases.resize else {}),
        "optimizer": _optimizer(config),
        **({"clipping": _clipping(config)} if _clipping(config) else {}),
        "learning rate": f"{_peak(config)} at its peak; {_schedule(config.schedule)}",
        "loss": _loss(config),
        **({"teacher": _teacher(config)} if config.distillation.teacher else {}),
        "augmentation": _augmentation(config),
        **({"evaluation": "each image and its mirror image"} if config.tta == "flip" else {}),
        "seed": str(config.seed),
        "steps": f"{run.total_steps:,} ({config.epochs:g} epochs of "
        f"{dataset.train.epoch_size:,} images)",
        "data": f"{dataset.name}: {num_train:,} train, {num_evaluation:,} "
        f"{dataset.evaluation_split}, {len(dataset.class_names)} classes",
        **({"sampling": _sampling(config)} if _sampling(config) else {}),
        **({"workdir": str(workdir.path)} if workdir else {}),
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
    # Nothing in the command comes from outside, and it is the git that the user would start.
    process = subprocess.run(  # noqa: S603
        ["git", "-C", str(clone), "describe", "--always", "--dirty", "--abbrev=10", "--exclude=*"],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )
    commit, _, changed = process.stdout.strip().partition("-")
    return f", commit {commit}{' with changes' if changed else ''}" if commit else ""


def shortened_warmup(run: Run) -> str | None:
    """Return a line that says how the warm-up was shortened, or None if it was not."""
    config, schedule = run.config, run.config.schedule
    if not isinstance(schedule, WarmupConfig):
        return None
    if schedule.warmup_steps is None:
        asked, unit, length = schedule.warmup_epochs, "epochs", config.schedule_epochs
    else:
        asked, unit, length = schedule.warmup_steps, "steps", run.total_steps - run.head_steps
    warmup = schedule.shortened(asked, length)
    if warmup == asked:
        return None
    whole = "schedule" if config.finetune.head_epochs else "run"
    return (
        f"The warm-up takes {warmup:g} {unit} instead of {asked:g}, because the {whole} has only "
        f"{length:g}."
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


def _peak(config: TrainConfig) -> str:
    """Return the peak learning rate, with how it follows from the batch size."""
    rate, peak = f"{config.optimizer.learning_rate:g}", f"{config.peak_learning_rate:g}"
    share = f"{config.batch_size}/{SCALING_BATCH_SIZE}"
    match config.learning_rate_scaling:
        case "linear":
            return f"{rate} x {share} = {peak}"
        case "square_root":
            return f"{rate} x sqrt({share}) = {peak}"
        case _:
            return peak


# Fields of schedules that are described even if they have their default values.
_DESCRIBED = ("warmup_epochs", "decay_epochs", "decay_factor", "peak_at", "power")


def _schedule(schedule: ScheduleConfig) -> str:
    """Return the kind of a schedule, its main fields, and those that are not the defaults."""
    omit = {
        field.name
        for field in dataclasses.fields(schedule)
        if getattr(schedule, field.name) == field.default and field.name not in _DESCRIBED
    }
    if isinstance(schedule, WarmupConfig) and schedule.warmup_steps is not None:
        omit.add("warmup_epochs")
    words = _words(schedule, omit=tuple(omit))
    return words if getattr(schedule, "warmup_prefix", True) else f"{words}, no warmup prefix"


def _head_first(run: Run) -> str:
    epochs = run.config.finetune.head_epochs
    plural = "" if epochs == 1 else "s"
    return f"{run.head_steps:,} steps ({epochs:g} epoch{plural}), BatchNorm frozen"


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
    if averaging.equal_weights:
        words = ["equal weights"]
    elif averaging.decay:
        words = [f"decay {averaging.decay}"]
    else:
        words = [f"half-life {averaging.half_life_steps:g} steps"]
    if averaging.warmup != "none":
        words.append(f"{averaging.warmup} warm-up")
    if averaging.every_steps == "epoch":
        words.append("after each epoch")
    elif averaging.every_steps > 1:
        words.append(f"every {averaging.every_steps} steps")
    if averaging.start_epoch:
        words.append(f"from epoch {averaging.start_epoch:g} on")
    what = {
        "averaged": "of parameters and statistics",
        "copied": "of parameters, with the latest statistics",
        "recomputed": f"of parameters, with statistics of {averaging.recompute_batches} batches",
    }[averaging.statistics]
    return f"{what}, {', '.join(words)}; they are evaluated"


def _guard(config: TrainConfig) -> str:
    scaling = ", dynamic loss scaling" if config.model.dtype == "float16" else ""
    return (
        "steps whose loss or gradients are not finite are skipped, fewer than "
        f"{config.guard.max_in_a_row} in a row{scaling}"
    )


def _optimizer(config: TrainConfig) -> str:
    """Return the kind of the optimizer, its numbers, and the choices that are not the default."""
    optimizer = config.optimizer
    usual = [
        field.name
        for field in dataclasses.fields(optimizer)
        if isinstance(field.default, str) and getattr(optimizer, field.name) == field.default
    ]
    return _words(optimizer, omit=("learning_rate", *usual))


def _clipping(config: TrainConfig) -> str:
    return _words(config.clip, unchanged=ClipConfig())


def _sampling(config: TrainConfig) -> str:
    """Return what an epoch draws if it does not draw every image once; otherwise nothing."""
    sampling = getattr(config.data, "sampling", SamplingConfig())
    words = [_words(sampling, unchanged=SamplingConfig())]
    if isinstance(config.data, FolderConfig | TfdsConfig) and config.data.images.repeats > 1:
        words.append(f"each drawn image {config.data.images.repeats} times in a row")
    return ", ".join(filter(None, words))


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
        f"statistics of groups of {size}{each_device}"
        if size
        else f"statistics of {'the batch' if config.accumulate_steps == 1 else 'each microbatch'}"
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
        elif value is None:
            words.append(f"no {name}")
        elif isinstance(value, tuple):
            words.append(f"{name} {' to '.join(map(_item, value))}")
        else:
            words.append(f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}")
    return ", ".join(words)


def _item(value: Any) -> str:
    """Return a number, or a tuple of numbers in parentheses."""
    if isinstance(value, tuple):
        return f"({', '.join(map(_item, value))})"
    return f"{value:g}"


def _teacher(config: TrainConfig) -> str:
    teaching = config.distillation
    return (
        f"{teaching.teacher}, {teaching.weight:.0%} of the loss, temperature "
        f"{teaching.temperature:g}"
    )


def _loss(config: TrainConfig) -> str:
    loss = config.loss
    words = _words(loss, omit=("class_weights",), unchanged=type(loss)())
    weights = loss.class_weights
    if isinstance(weights, tuple):
        return f"{words}, class weights from {min(weights):g} to {max(weights):g}"
    return words if weights == "none" else f"{words}, class weights {weights}"


def _augmentation(config: TrainConfig) -> str:
    data = config.data
    if isinstance(data, DigitsConfig):
        return (
            f"rotation up to {data.max_rotation:g} degrees, scaling up to {data.max_scaling:.0%}, "
            f"shift up to {data.max_shift:g} pixels"
        )
    if isinstance(data, SyntheticConfig):
        return "none"
    crops = []
    if isinstance(data, TfdsArraysConfig | IdxConfig | ArraysConfig):
        augment = data.augment
    else:
        augment = data.images.augment
        low, high = data.images.crop_scale
        crops = [f"random crops of {low:.0%} to {high:.0%} of the image"]
    words = _words(augment, omit=("mean", "std", "fill"), unchanged=AugmentConfig(flip=0.0))
    return ", ".join([*crops, *([words] if words else [])]) or "none"

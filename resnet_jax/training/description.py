"""Descriptions of a run for people."""

from importlib.metadata import version

import jax

from resnet_jax.config import ModelConfig, TrainConfig
from resnet_jax.training.early_stopping import BestEvaluation
from resnet_jax.training.network import frozen_statistics
from resnet_jax.training.rundir.workdir import Workdir
from resnet_jax.training.setup import Run


def describe(run: Run, workdir: Workdir) -> dict[str, str]:
    """Return what is trained, on what and how, by name, for people."""
    config, dataset = run.config, run.dataset
    devices = run.mesh.devices.flatten()
    num_train, num_evaluation = len(dataset.train), len(dataset.evaluation)
    return {
        "model": f"{config.model.name}, {run.num_params:,} parameters, {config.model.dtype}",
        **({"starts from": _weights(config.model)} if config.model.weights else {}),
        "devices": f"{len(devices)} x {devices[0].device_kind}"
        + (f" in {jax.process_count()} processes" if jax.process_count() > 1 else ""),
        "mesh": ", ".join(f"{axis}={size}" for axis, size in run.mesh.shape.items()),
        "BatchNorm": _batch_norm(run),
        **({"averages": _averages(config)} if config.ema_decay else {}),
        **({"head first": _head_first(run)} if run.head_steps else {}),
        **({"early stopping": _early_stopping(config)} if config.early_stopping.patience else {}),
        "batch": f"{config.batch_size} images, {config.batch_size // len(devices)} a device",
        "steps": f"{run.total_steps:,} ({config.epochs:g} epochs of {num_train:,} images)",
        "data": f"{dataset.name}: {num_train:,} train, {num_evaluation:,} "
        f"{dataset.evaluation_split}, {len(dataset.class_names)} classes",
        "workdir": str(workdir.path),
        "software": ", ".join(f"{name} {version(name)}" for name in ("jax", "flax", "optax")),
    }


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


def _early_stopping(config: TrainConfig) -> str:
    early = config.early_stopping
    return f"after {early.patience} evaluations in a row without a better validation {early.metric}"


def _averages(config: TrainConfig) -> str:
    warmup = ", with warm-up" if config.ema_warmup else ""
    return f"of parameters and statistics, decay {config.ema_decay}{warmup}; they are evaluated"


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

"""The training loop: step, record, evaluate, save."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Any, TypeVar

import jax
import numpy as np
from rich.console import Console

from resnet_jax.config import ProfileConfig, TrainConfig
from resnet_jax.data import DataError
from resnet_jax.models import BatchNorm
from resnet_jax.training.evaluate import evaluate
from resnet_jax.training.metrics import Metrics, mean_metrics
from resnet_jax.training.prefetch import Prefetch
from resnet_jax.training.process.distributed import gather, is_primary
from resnet_jax.training.process.goodput import Goodput
from resnet_jax.training.process.preemption import PreemptedError, Preemption
from resnet_jax.training.process.profiling import Operation, Profile, top_operations
from resnet_jax.training.process.watchdog import Watchdog
from resnet_jax.training.rundir.checkpoints import CheckpointError, Checkpoints
from resnet_jax.training.rundir.console import ProgressLine, print_header
from resnet_jax.training.rundir.metric_log import MetricWriter
from resnet_jax.training.rundir.workdir import Workdir
from resnet_jax.training.setup import Run
from resnet_jax.training.state import TrainState
from resnet_jax.training.step import TrainStep

Evaluation = tuple[dict[str, float], np.ndarray]
Result = TypeVar("Result")


class TrainingDivergedError(Exception):
    """The loss is no longer a finite number."""


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """What a run came to.

    Attributes:
        run: the run.
        metrics: ``loss``, ``top1``, ``top5`` on the evaluation split, after the last step.
        logits: float32[N, K] of the evaluation split, in its order.
        compile_seconds: spent on tracing and compiling the two steps, partly while the state was
            made and the first images were read.
        operations: what took longest in the traced steps; without a trace, none.
    """

    run: Run
    metrics: dict[str, float]
    logits: np.ndarray
    compile_seconds: float
    operations: list[Operation]


def train(
    run: Run,
    workdir: Workdir,
    console: Console,
    *,
    goodput: Goodput,
    profile: ProfileConfig | None = None,
    watchdog_timeout: float = 600.0,
) -> TrainResult:
    """Trains until the last step, from the last checkpoint on if there is one.

    Cut off and continued, a run gives bit for bit what it would have given uninterrupted, on the
    same devices and versions.

    Args:
        run: the experiment with its data and devices.
        workdir: of this configuration.
        console: for the header and the progress.
        goodput: it is told where the time goes.
        profile: which steps to trace.
        watchdog_timeout: in seconds; see `Watchdog`.

    Raises:
        CheckpointError: the last checkpoint is of other shapes or other data.
        ConfigError: it starts from weights that cannot be read, or are of another network.
        DataError: an image cannot be read, or the processes do not have the same ones.
        PreemptedError: SIGTERM came; the last step is saved.
        TrainingDivergedError: the loss is no longer finite; no checkpoint of it is written.
    """
    print_header(
        console,
        f"Training {run.config.model.name} on {run.dataset.name}",
        describe(run, workdir),
    )
    _require_the_same_images(run)
    with Checkpoints(workdir.checkpoints, run.config.checkpoint) as checkpoints:
        # While it compiles, the state is made or read, and the first batches too.
        compiler = ThreadPoolExecutor(1, thread_name_prefix="compile")
        compiling = compiler.submit(_timed(run.compile))
        # The thread ends with its task, for which an error or Ctrl-C in the meantime does not wait.
        compiler.shutdown(wait=False)
        with goodput.spent_on("checkpoint" if checkpoints.latest_step else "compile"):
            state = _first_state(run, checkpoints, console)
            start_step = int(state.step)
        drawn = run.dataset.train.train_batches(
            run.config.batch_size,
            seed=run.config.seed,
            start_step=start_step,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        with Prefetch(drawn, run.mesh) as batches:
            with goodput.spent_on("compile"):
                (train_step, eval_step), compile_seconds = compiling.result()
            console.print(f"Compiled in {compile_seconds:.1f} s.")

            def evaluate_state(state: TrainState, watchdog: Watchdog) -> Evaluation:
                with goodput.spent_on("evaluation"):
                    return evaluate(
                        eval_step,
                        state,
                        run.dataset.evaluation,
                        batch_size=run.config.batch_size,
                        mesh=run.mesh,
                        watch=watchdog.watch,
                    )

            evaluation = None
            with Watchdog(watchdog_timeout) as watchdog:
                if start_step < run.total_steps:
                    evaluation = _train_steps(
                        run,
                        state,
                        batches,
                        train_step,
                        evaluate_state,
                        checkpoints,
                        workdir,
                        console,
                        goodput,
                        profile or ProfileConfig(),
                        watchdog,
                    )
                metrics, logits = evaluation or evaluate_state(state, watchdog)
        with goodput.spent_on("checkpoint"):
            checkpoints.wait()
    operations = top_operations(workdir.profile, train_step)
    return TrainResult(run, metrics, logits, compile_seconds, operations)


def _timed(function: Callable[[], Result]) -> Callable[[], tuple[Result, float]]:
    """The function, which also returns the seconds that it took."""

    def call() -> tuple[Result, float]:
        started = time.perf_counter()
        return function(), time.perf_counter() - started

    return call


def _require_the_same_images(run: Run) -> None:
    """Each process reads its share of every batch, so all must have the same data set."""
    fingerprints = gather("fingerprint", run.dataset.fingerprint)
    others = [i for i, found in enumerate(fingerprints) if found != fingerprints[0]]
    if others:
        raise DataError(
            f"the images of {run.dataset.name} that process {others[0]} has are not those of "
            "process 0; give all of them the same"
        )


def _first_state(run: Run, checkpoints: Checkpoints, console: Console) -> TrainState:
    """The newest checkpoint's state, or a new one."""
    if checkpoints.latest_step is None:
        return run.create_state()
    state, metadata = checkpoints.restore(run.abstract_state)
    if metadata["data"]["fingerprint"] != run.dataset.fingerprint:
        raise CheckpointError(
            f"the images of {run.dataset.name} are not those that this run began with; "
            "bring them back, or start anew in another --workdir"
        )
    console.print(f"Continuing from the checkpoint of step {checkpoints.latest_step}.")
    return state


def _train_steps(
    run: Run,
    state: TrainState,
    batches: Iterator[Any],
    train_step: TrainStep,
    evaluate_state: Callable[[TrainState, Watchdog], Evaluation],
    checkpoints: Checkpoints,
    workdir: Workdir,
    console: Console,
    goodput: Goodput,
    profile: ProfileConfig,
    watchdog: Watchdog,
) -> Evaluation:
    """The remaining steps with all that is due between them, and the last evaluation."""
    config, dataset, step_key = run.config, run.dataset, run.step_key
    start_step = int(state.step)
    since_record: list[Metrics] = []
    since_save: list[Metrics] = []
    evaluation: Evaluation = ({"top1": 0.0}, np.empty(0))
    with (
        Profile(workdir.profile, profile) as profiler,
        MetricWriter(
            workdir.metrics, workdir.tensorboard, start_step=start_step, active=is_primary()
        ) as writer,
        ProgressLine(console, total_steps=run.total_steps, start_step=start_step) as progress,
        Preemption() as preemption,
    ):
        clock = time.perf_counter()
        for step in range(start_step + 1, run.total_steps + 1):
            with goodput.spent_on("data"):
                batch = next(batches)
            with goodput.spent_on("step"):
                profiler.before(step, state)
                state, metrics = train_step(state, batch, step_key)
                profiler.after(step, state)
            watchdog.watch(metrics)
            since_record.append(metrics)

            last = step == run.total_steps
            # Asked once a step: the signal may come at any moment.
            preempted = preemption.ends_after(step)
            evaluation_due = run.evaluation_due(step)
            save_due = last or preempted or step % config.checkpoint.every_steps == 0
            record_due = evaluation_due or save_due or step % config.log_every_steps == 0
            if not record_due:
                continue

            # Fetching the metrics waits for the devices: only here, and before anything else
            # that waits, so that the throughput is that of training alone.
            with goodput.spent_on("step"):
                fetched = jax.device_get(since_record)
            values = mean_metrics(fetched)
            if not math.isfinite(values["loss"]):
                raise TrainingDivergedError(
                    f"the loss became {values['loss']} by step {step}; the last checkpoint is of "
                    f"step {checkpoints.latest_step}; lower optimizer.learning_rate or lengthen "
                    "schedule.warmup_epochs"
                )
            seconds_per_step = (time.perf_counter() - clock) / len(since_record)
            since_record.clear()
            since_save += fetched
            values |= {
                "learning_rate": float(jax.device_get(run.schedule(step - 1))),
                "images_per_second": config.batch_size / seconds_per_step,
                "epoch": run.epochs_done(step),
            }
            writer.write(step, "train", values)
            progress.train(step, values, eta_seconds=seconds_per_step * (run.total_steps - step))

            if evaluation_due and (last or not preempted):
                evaluation = evaluate_state(state, watchdog)
                writer.write(step, dataset.evaluation_split, evaluation[0])
                progress.evaluation(step, dataset.evaluation_split, evaluation[0])
            if save_due:
                badness = (
                    1 - evaluation[0]["top1"]
                    if dataset.evaluation_split == "validation"
                    else mean_metrics(since_save)["loss"]
                )
                since_save.clear()
                with goodput.spent_on("checkpoint"):
                    checkpoints.save(
                        state,
                        badness=badness,
                        metadata={
                            "config": config.to_json(),
                            "data": {
                                "fingerprint": dataset.fingerprint,
                                "next_batch": step,
                            },
                        },
                    )
                watchdog.done()
            if preempted and not last:
                raise PreemptedError(
                    f"ended by SIGTERM after step {step} of {run.total_steps}, which is saved; the "
                    "same command continues from there"
                )
            clock = time.perf_counter()
    return evaluation


def describe(run: Run, workdir: Workdir) -> dict[str, str]:
    """What is run, by name, for people."""
    config, dataset = run.config, run.dataset
    devices = run.mesh.devices.flatten()
    num_train, num_evaluation = len(dataset.train), len(dataset.evaluation)
    return {
        "model": f"{config.model.name}, {run.num_params:,} parameters, {config.model.dtype}",
        **({"starts from": config.model.weights} if config.model.weights else {}),
        "devices": f"{len(devices)} x {devices[0].device_kind}"
        + (f" in {jax.process_count()} processes" if jax.process_count() > 1 else ""),
        "mesh": ", ".join(f"{axis}={size}" for axis, size in run.mesh.shape.items()),
        "BatchNorm": _batch_norm(run),
        **({"averages": _averages(config)} if config.ema_decay else {}),
        "batch": f"{config.batch_size} images, {config.batch_size // len(devices)} a device",
        "steps": f"{run.total_steps:,} ({config.epochs:g} epochs of {num_train:,} images)",
        "data": f"{dataset.name}: {num_train:,} train, {num_evaluation:,} "
        f"{dataset.evaluation_split}, {len(dataset.class_names)} classes",
        "workdir": str(workdir.path),
        "software": ", ".join(f"{name} {version(name)}" for name in ("jax", "flax", "optax")),
    }


def _averages(config: TrainConfig) -> str:
    warmup = ", with warm-up" if config.ema_warmup else ""
    return f"of parameters and statistics, decay {config.ema_decay}{warmup}; they are evaluated"


def _batch_norm(run: Run) -> str:
    if run.config.model.freeze_bn:
        return "frozen"
    norm = run.model.unbound_norm
    size = norm.group_size if isinstance(norm, BatchNorm) else None
    each_device = ", each device by itself" if run.config.model.bn_group_size == "device" else ""
    return f"statistics of groups of {size}{each_device}" if size else "statistics of the batch"

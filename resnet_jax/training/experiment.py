"""A whole run in one call: check, train, evaluate, report."""

import dataclasses
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from resnet_jax.config import ProfileConfig, TrainConfig
from resnet_jax.inference.explain import explainer
from resnet_jax.inference.measures import measure
from resnet_jax.report import EvaluationRecord, RunRecord, read_metrics, write_report
from resnet_jax.training.description import describe, provenance
from resnet_jax.training.hooks import EndEvent, Hook, RunHooks, check_hooks
from resnet_jax.training.learning_rate import learning_rate_curve
from resnet_jax.training.loop import TrainResult
from resnet_jax.training.loop import train as train_steps
from resnet_jax.training.opening import open_run
from resnet_jax.training.process.distributed import gather, is_primary, primary_first
from resnet_jax.training.process.goodput import ACTIVITIES, Goodput, in_words
from resnet_jax.training.process.preemption import PreemptedError
from resnet_jax.training.rundir.workdir import Workdir
from resnet_jax.training.setup import Run
from resnet_jax.training.sharding import fetch


def train(
    config: TrainConfig,
    workdir: str | os.PathLike[str] | None = None,
    *,
    arrays: Mapping[str, np.ndarray] | None = None,
    hooks: Sequence[Hook] = (),
    command: Sequence[str] = (),
    profile: ProfileConfig | None = None,
    watchdog_timeout: float = 600.0,
    quiet: bool = False,
    started: float | None = None,
) -> TrainResult | None:
    """Train an experiment and leave its report in the run directory.

    Args:
        config: The experiment.
        workdir: The run directory. It is created if needed, and a run in it is continued. None
            makes a temporary directory, which is not deleted.
        arrays: NumPy arrays by their names, if ``config.data`` is an `ArraysConfig` without a path.
            A run is only continued with the arrays that it began with.
        hooks: Called at the start, after steps whose metrics are recorded, after evaluations and
            at the end, in process 0 only; see `Hook`.
        command: Words of the command line, for the report.
        profile: Steps to trace; by default none.
        watchdog_timeout: Seconds without a completed step after which the process is ended.
        quiet: Print nothing.
        started: When the program began, by `time.perf_counter`; by default now.

    Returns:
        The result, or None if the run in the directory was complete before.

    Raises:
        CheckpointError: The checkpoints of the run cannot be read or written.
        ConfigError: The experiment cannot work; the message says what to change.
        DataError: The images cannot be read.
        Exception: A hook has raised an error. The same call continues from the last checkpoint.
        PreemptedError: SIGTERM or Ctrl-C came. The state is saved, and the same call continues.
        TrainingDivergedError: The loss is no longer finite.
        TypeError: A hook lacks a method.
        WorkdirError: The directory belongs to another run or cannot be written.
    """
    check_hooks(hooks)
    started = time.perf_counter() if started is None else started
    path = Path(tempfile.mkdtemp(prefix="resnet_jax-") if workdir is None else workdir)
    profile = profile or ProfileConfig()
    # Output that goes to a file is not wrapped at the width of a screen.
    console = Console(width=None if sys.stdout.isatty() else 200, quiet=quiet or not is_primary())
    # A run that is continued does not need its starting weights.
    run = open_run(config, read_weights=not (path / "checkpoints").exists(), arrays=arrays)
    profile.check_steps(run.total_steps)
    with primary_first("workdir"):
        directory = Workdir(path, config, claim=is_primary())
    with directory:
        if is_primary():
            directory.describe(run.spec.to_json())
        if directory.result:
            console.print(
                f"The run in {path} is complete: top-1 {directory.result['top1']:.2%}.  "
                f"Report: {directory.report}"
            )
            return None
        # A directory that the user has chosen, in the environment or in Python, is left alone.
        variable, option = "JAX_COMPILATION_CACHE_DIR", "jax_compilation_cache_dir"
        if variable not in os.environ and getattr(jax.config, option) is None:
            jax.config.update(option, str(directory.compilation.absolute()))
        goodput, run_hooks = Goodput(started), RunHooks(hooks, run, path)
        try:
            result = train_steps(
                run,
                directory,
                console,
                goodput=goodput,
                profile=profile,
                watchdog_timeout=watchdog_timeout,
                hooks=run_hooks,
            )
        except PreemptedError:
            console.print(f"Wall time: {in_words(goodput.shares)}")
            raise
        skipped = _skipped(run)
        variables = fetch(result.variables, run.mesh)
        if is_primary():
            seconds = time.perf_counter() - started
            facts = describe(run, directory) | provenance(command)
            if skipped:
                name, reason = next(iter(skipped.items()))
                facts["skipped"] = f"{len(skipped)} unreadable images, such as {name}: {reason}"
                console.print(f"Skipped {facts['skipped']}.", style="yellow", soft_wrap=True)
            record = _record(result, variables, directory, seconds, goodput)
            write_report(directory.report, dataclasses.replace(record, facts=facts))
            run_hooks.end(_end(result, variables, directory, seconds))
            _finish(result, facts, directory, console, seconds, goodput)
    return result


def _end(
    result: TrainResult, variables: dict[str, Any], directory: Workdir, seconds: float
) -> EndEvent:
    """Return what hooks are told at the end of a run."""
    return EndEvent(
        step=result.step,
        epoch=result.run.epochs_done(result.step),
        split=result.run.dataset.evaluation_split,
        metrics=dict(result.metrics),
        variables=lambda: variables,
        workdir=directory.path,
        report=directory.report,
        seconds=seconds,
    )


def _skipped(run: Run) -> dict[str, str]:
    """Return the names of the images that any process has skipped, with the reasons."""
    splits = (run.dataset.train, run.dataset.evaluation)
    ours = {name: why for split in splits for name, why in split.unreadable.items()}
    skipped = {}
    for theirs in gather("unreadable", json.dumps(ours)):
        skipped |= json.loads(theirs)
    return skipped


def _record(
    result: TrainResult,
    variables: dict[str, Any],
    directory: Workdir,
    seconds: float,
    goodput: Goodput,
) -> RunRecord:
    """Return what the report of a run shows, without the facts about it."""
    run, dataset, evaluation = result.run, result.run.dataset, result.evaluation
    split, records = dataset.evaluation_split, read_metrics(directory.metrics)
    last_step = records[-1]["step"] if records else result.step
    return RunRecord(
        title=f"{run.config.model.name} on {os.path.basename(dataset.name.rstrip('/'))}",
        headline={
            f"{split} top-1": f"{result.metrics['top1']:.2%}",
            **(
                {f"{split} top-5": f"{result.metrics['top5']:.2%}"}
                if len(dataset.class_names) > 5
                else {}
            ),
            f"{split} loss": f"{result.metrics['loss']:.4f}",
            **(
                {f"{split} top-1, raw weights": f"{result.metrics['raw_top1']:.2%}"}
                if "raw_top1" in result.metrics
                else {}
            ),
            "parameters": f"{run.num_params:,}",
            "wall time, this process": f"{seconds:.1f} s",
            "of which compilation": f"{result.compile_seconds:.1f} s",
        },
        records=records,
        learning_rate=learning_rate_curve(run, last_step),
        config=run.config.to_json(),
        goodput={ACTIVITIES[activity]: share for activity, share in goodput.shares.items()},
        operations=result.operations,
        evaluation=EvaluationRecord(
            split=split,
            class_names=dataset.class_names,
            labels=evaluation.labels,
            logits=evaluation.logits,
            mask=evaluation.mask,
            image=dataset.evaluation.image,
            name=dataset.evaluation.name,
            explain=explainer(run.model, variables, dataset.prepare),
        ),
        kernels=_first_kernels(variables["params"]),
    )


def _first_kernels(params: dict[str, Any]) -> np.ndarray | None:
    """Return the kernels of the first convolution, float32[H, W, C, K], if the stem has one."""
    stem = params.get("stem", {})
    for name in ("conv", "conv1"):
        if name in stem:
            return np.asarray(stem[name]["kernel"])
    return None


def _finish(
    result: TrainResult,
    facts: dict[str, str],
    directory: Workdir,
    console: Console,
    seconds: float,
    goodput: Goodput,
) -> None:
    """Mark a run as complete, and print the outcome."""
    split, shares = result.run.dataset.evaluation_split, goodput.shares
    evaluation = result.evaluation
    measures = measure(evaluation.logits[evaluation.mask], evaluation.labels[evaluation.mask])
    directory.complete(
        {
            "split": split,
            "step": result.step,
            **result.metrics,
            "seconds": seconds,
            "goodput": shares,
            "train_images": len(result.run.dataset.train),
            "parameters": result.run.num_params,
            "measures": measures._asdict(),
            "facts": facts,
        }
    )
    console.print(f"Wall time: {in_words(shares)}")
    console.print(
        f"[bold]{split} top-1 {result.metrics['top1']:.2%}[/bold] in {seconds:.1f} s, of which "
        f"compilation {result.compile_seconds:.1f} s.  Report: {directory.report}"
    )

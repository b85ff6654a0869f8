"""A whole run in one call: check, train, evaluate, report."""

import json
import os
import sys
import time
from pathlib import Path

import jax
import numpy as np
from rich.console import Console

from resnet_jax.config import ConfigError, ProfileConfig, TrainConfig
from resnet_jax.report import RunRecord, write_report
from resnet_jax.training.loop import TrainResult, describe
from resnet_jax.training.loop import train as train_steps
from resnet_jax.training.process.distributed import gather, is_primary, primary_first
from resnet_jax.training.process.goodput import ACTIVITIES, Goodput, in_words
from resnet_jax.training.process.preemption import PreemptedError
from resnet_jax.training.rundir.metric_log import read_metrics
from resnet_jax.training.rundir.workdir import Workdir
from resnet_jax.training.setup import Run, check, starting_variables


def train(
    config: TrainConfig,
    path: Path,
    *,
    title: str,
    profile: ProfileConfig | None = None,
    watchdog_timeout: float = 600.0,
    started: float | None = None,
) -> TrainResult | None:
    """Train an experiment and leave its report in the run directory.

    Args:
        config: the experiment.
        path: the run directory. It is created if needed, and a run in it is continued.
        title: title of the report.
        profile: which steps to trace.
        watchdog_timeout: seconds without a completed step after which the run is ended.
        started: when the program began, by `time.perf_counter`; by default now.

    Returns:
        What the run came to, or None if it was complete before.
    """
    started = time.perf_counter() if started is None else started
    profile = profile or ProfileConfig()
    # A file has no edge to wrap at.
    console = Console(width=None if sys.stdout.isatty() else 200, quiet=not is_primary())
    try:
        model, _ = check(config)
        # A run that is continued needs its weights no more.
        if config.model.weights and not (path / "checkpoints").exists():
            starting_variables(config, model)
        run = Run.create(config)
        profile.check_steps(run.total_steps)
    except (ImportError, ValueError) as error:
        raise ConfigError(str(error)) from error
    with primary_first("workdir"):
        workdir = Workdir(path, config, claim=is_primary())
    if workdir.result:
        console.print(
            f"The run in {workdir.path} is complete: "
            f"top-1 {workdir.result['top1']:.2%}.  Report: {workdir.report}"
        )
        return None
    # JAX's own variables, JAX_COMPILATION_CACHE_DIR and JAX_ENABLE_COMPILATION_CACHE, go first.
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(workdir.compilation.absolute()))
    goodput = Goodput(started)
    try:
        result = train_steps(
            run,
            workdir,
            console,
            goodput=goodput,
            profile=profile,
            watchdog_timeout=watchdog_timeout,
        )
    except PreemptedError:
        console.print(f"Wall time: {in_words(goodput.shares)}")
        raise
    dataset = result.run.dataset
    skipped = {}
    for found in gather(
        "unreadable", json.dumps({**dataset.train.unreadable, **dataset.evaluation.unreadable})
    ):
        skipped |= json.loads(found)
    if not is_primary():
        return result
    split = dataset.evaluation_split
    seconds, shares = time.perf_counter() - started, goodput.shares
    facts = describe(result.run, workdir)
    if skipped:
        unreadable, reason = next(iter(skipped.items()))
        facts["skipped"] = f"{len(skipped)} unreadable images, such as {unreadable}: {reason}"
        console.print(f"Skipped {facts['skipped']}.", style="yellow", soft_wrap=True)
    record = RunRecord(
        title=title,
        facts=facts,
        headline={
            f"{split} top-1": f"{result.metrics['top1']:.2%}",
            f"{split} loss": f"{result.metrics['loss']:.4f}",
            "parameters": f"{result.run.num_params:,}",
            "wall time, this process": f"{seconds:.1f} s",
            "of which compilation": f"{result.compile_seconds:.1f} s",
        },
        records=read_metrics(workdir.metrics),
        split=split,
        class_names=dataset.class_names,
        image=dataset.evaluation.image,
        labels=dataset.evaluation.labels,
        logits=result.logits,
        mask=np.ones(len(result.logits), bool),
        config=config.to_json(),
        goodput={ACTIVITIES[activity]: share for activity, share in shares.items()},
        operations=result.operations,
    )
    write_report(workdir.report, record)
    workdir.complete({"split": split, **result.metrics, "seconds": seconds, "goodput": shares})
    console.print(f"Wall time: {in_words(shares)}")
    console.print(
        f"[bold]{split} top-1 {result.metrics['top1']:.2%}[/bold] in {seconds:.1f} s, "
        f"of which compilation {result.compile_seconds:.1f} s.  Report: {workdir.report}"
    )
    return result

"""Trains a residual network: `python train.py [EXPERIMENT] [OPTIONS]`.

Without arguments it trains `digits-resnet20`; `python train.py --help` explains every option.
"""

import dataclasses
import difflib
import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Annotated, NoReturn

import tyro
from rich.console import Console

from configs import DESCRIPTIONS, EXPERIMENTS
from resnet_jax.config import ConfigError, DistributedConfig, ProfileConfig, TrainConfig
from resnet_jax.ops.host_memory import keep_freed_memory


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What the command line gives."""

    config: Annotated[TrainConfig, tyro.conf.arg(name="")]
    workdir: Path
    """Directory of the run.  It is made if need be, and a run in it is continued."""
    distributed: DistributedConfig = dataclasses.field(default_factory=DistributedConfig)
    """Several processes."""
    profile: ProfileConfig = dataclasses.field(default_factory=ProfileConfig)
    """A trace of some steps."""
    watchdog_timeout: float = 600.0
    """In seconds; a run in which no step is completed for so long is ended."""

    def __post_init__(self) -> None:
        if self.watchdog_timeout <= 0:
            raise ConfigError(f"watchdog_timeout must be above 0, not {self.watchdog_timeout}")


def parse(argv: list[str]) -> tuple[str, Arguments]:
    """The experiment's name, and its configuration with the options applied.

    Raises:
        ConfigError: there is no such experiment, or a value is impossible.
        SystemExit: after the help, or after an option that does not exist.
    """
    named = bool(argv) and not argv[0].startswith("-")
    name = argv[0] if named else next(iter(EXPERIMENTS))
    if name not in EXPERIMENTS:
        near = difflib.get_close_matches(name, EXPERIMENTS, n=1, cutoff=0.3)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(EXPERIMENTS)}."
        raise ConfigError(f"unknown experiment {name!r}: {hint}")
    arguments = tyro.cli(
        Arguments,
        prog=f"train.py {name}",
        description=f"{DESCRIPTIONS[name]}\n\nExperiments: {', '.join(EXPERIMENTS)}.",
        default=Arguments(EXPERIMENTS[name], Path("runs") / name),
        args=argv[1:] if named else argv,
        # The kind of data belongs to the experiment; only its fields can be set.
        config=(tyro.conf.AvoidSubcommands, tyro.conf.FlagConversionOff),
    )
    return name, arguments


def refuse(message: object) -> NoReturn:
    """Ends the program with one line on the error stream."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def main() -> None:
    """The command line of training."""
    started = time.perf_counter()
    try:
        name, arguments = parse(sys.argv[1:])
    except ConfigError as error:
        refuse(error)

    keep_freed_memory()
    # Only now the slow imports: help and most mistakes are answered at once.
    from resnet_jax.data import DataError
    from resnet_jax.training.loop import TrainingDivergedError
    from resnet_jax.training.process.distributed import (
        DistributedError,
        connected,
        is_primary,
        leave,
        leave_after,
        of_a_peer,
    )
    from resnet_jax.training.process.preemption import EXIT_CODE, PreemptedError
    from resnet_jax.training.rundir.checkpoints import CheckpointError
    from resnet_jax.training.rundir.workdir import WorkdirError

    # Orbax tells every detail of every save, and of every signal.
    logging.getLogger("absl").setLevel(logging.ERROR)
    code = 0
    try:
        with connected(arguments.distributed):
            try:
                train_and_report(name, arguments, started)
            except PreemptedError as error:
                # All processes have come to the same step, and end in an orderly way.
                if is_primary():
                    print(error, file=sys.stderr)
                code = EXIT_CODE
    except (
        CheckpointError,
        ConfigError,
        DataError,
        DistributedError,
        OSError,
        TrainingDivergedError,
        WorkdirError,
    ) as error:
        # What Orbax could not write because another process is gone is no fault of the disk.
        if of_a_peer(error):
            leave_after(error, arguments.distributed)
        leave(f"error: {error}", 2)
    except KeyboardInterrupt:
        leave("interrupted; the same command continues from the last checkpoint", 130)
    except Exception as error:
        leave_after(error, arguments.distributed)
    sys.exit(code)


def train_and_report(name: str, arguments: Arguments, started: float) -> None:
    """Trains an experiment and leaves its report in the work directory.

    Args:
        name: of the experiment.
        arguments: of the command line.
        started: by `time.perf_counter`, when the program began.
    """
    import jax

    from resnet_jax.report.page import write_report
    from resnet_jax.training.loop import describe, train
    from resnet_jax.training.process.distributed import gather, is_primary, primary_first
    from resnet_jax.training.process.goodput import ACTIVITIES, Goodput, in_words
    from resnet_jax.training.process.preemption import PreemptedError
    from resnet_jax.training.rundir.metric_log import read_metrics
    from resnet_jax.training.rundir.workdir import Workdir
    from resnet_jax.training.setup import Run, check, starting_variables

    # A file has no edge to wrap at.
    console = Console(width=None if sys.stdout.isatty() else 200, quiet=not is_primary())
    try:
        model, _ = check(arguments.config)
        # A run that is continued needs its weights no more.
        if arguments.config.model.weights and not (arguments.workdir / "checkpoints").exists():
            starting_variables(arguments.config, model)
        run = Run.create(arguments.config)
        arguments.profile.check_steps(run.total_steps)
    except (ImportError, ValueError) as error:
        raise ConfigError(str(error)) from error
    with primary_first("workdir"):
        workdir = Workdir(arguments.workdir, arguments.config, claim=is_primary())
    if workdir.result:
        console.print(
            f"The run in {workdir.path} is complete: "
            f"top-1 {workdir.result['top1']:.2%}.  Report: {workdir.report}"
        )
        return
    # JAX's own variables, JAX_COMPILATION_CACHE_DIR and JAX_ENABLE_COMPILATION_CACHE, go first.
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(workdir.compilation.absolute()))
    goodput = Goodput(started)
    try:
        result = train(
            run,
            workdir,
            console,
            goodput=goodput,
            profile=arguments.profile,
            watchdog_timeout=arguments.watchdog_timeout,
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
        return
    split = dataset.evaluation_split
    seconds, shares = time.perf_counter() - started, goodput.shares
    facts = describe(result.run, workdir)
    if skipped:
        unreadable, reason = next(iter(skipped.items()))
        facts["skipped"] = f"{len(skipped)} unreadable images, such as {unreadable}: {reason}"
        console.print(f"Skipped {facts['skipped']}.", style="yellow", soft_wrap=True)
    write_report(
        workdir.report,
        title=name,
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
        config=arguments.config.to_json(),
        goodput={ACTIVITIES[activity]: share for activity, share in shares.items()},
        operations=result.operations,
    )
    workdir.complete({"split": split, **result.metrics, "seconds": seconds, "goodput": shares})
    console.print(f"Wall time: {in_words(shares)}")
    console.print(
        f"[bold]{split} top-1 {result.metrics['top1']:.2%}[/bold] in {seconds:.1f} s, "
        f"of which compilation {result.compile_seconds:.1f} s.  Report: {workdir.report}"
    )


if __name__ == "__main__":
    main()

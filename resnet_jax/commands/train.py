"""Trains a residual network: `python train.py [EXPERIMENT] [OPTIONS]`.

Without arguments it trains `digits-resnet20`; `python train.py --help` explains every option.
"""

import dataclasses
import difflib
import logging
import sys
import time
from pathlib import Path
from typing import Annotated, NoReturn

import tyro

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
    from resnet_jax.training.experiment import train
    from resnet_jax.training.loop import TrainingDivergedError
    from resnet_jax.training.process.distributed import (
        DistributedError,
        connected,
        is_primary,
        leave,
        leave_after,
        of_a_peer,
    )
    from resnet_jax.training.process.preemption import PreemptedError
    from resnet_jax.training.rundir.checkpoints import CheckpointError
    from resnet_jax.training.rundir.workdir import WorkdirError

    # Orbax tells every detail of every save, and of every signal.
    logging.getLogger("absl").setLevel(logging.ERROR)
    code = 0
    try:
        with connected(arguments.distributed):
            try:
                train(
                    arguments.config,
                    arguments.workdir,
                    title=name,
                    profile=arguments.profile,
                    watchdog_timeout=arguments.watchdog_timeout,
                    started=started,
                )
            except PreemptedError as error:
                # All processes have come to the same step, and end in an orderly way.
                if is_primary():
                    print(error, file=sys.stderr)
                code = error.exit_code
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

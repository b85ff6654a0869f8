"""Train a network on an experiment, evaluate it and write a report."""

import contextlib
import copy
import dataclasses
import itertools
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_type_hints

import tyro

from resnet_jax.commands import dry_run, preview
from resnet_jax.commands.arguments import Flag, UsageError, parse_options
from resnet_jax.commands.find_lr import PARENT, files_in, find_learning_rate
from resnet_jax.commands.run_directory import default_run_directory
from resnet_jax.config import (
    ConfigError,
    DistributedConfig,
    Experiment,
    ProfileConfig,
    RangeTestConfig,
    TrainConfig,
    kinds,
    list_experiments,
    load_experiment,
)
from resnet_jax.config.experiments import DEFAULT_EXPERIMENT, is_file

if TYPE_CHECKING:
    from resnet_jax.training import Hook

_SYNOPSIS = """\
    {prog} [EXPERIMENT] [OPTIONS]
    {prog} FILE.py [OPTIONS]
    {prog} --config CONFIG.json [OPTIONS]
    {prog} --list

EXPERIMENT is a name that --list shows, and {default} if none is given. FILE.py is an experiment of
your own, a file that defines CONFIG. CONFIG.json is the configuration that another run has used.

Repeat a command to continue a run that was cut off. A run that is complete is not repeated.

{name}: {description}

Experiments: {experiments}."""


# Options that do something else than to train.
_ACTIONS = ("find_lr", "preview", "dry_run")


@dataclasses.dataclass(frozen=True)
class Arguments:
    """The options of training."""

    config: Annotated[TrainConfig, tyro.conf.arg(name="")]
    workdir: Path
    """Run directory. It is created if needed, and a run in it is continued. By default it is named
    after the experiment and the fields that you change, such as
    runs/digits-resnet20-seed=1,learning_rate=0.2."""
    distributed: DistributedConfig = dataclasses.field(default_factory=DistributedConfig)
    """Run one experiment in several processes."""
    profile: ProfileConfig = dataclasses.field(default_factory=ProfileConfig)
    """Trace some steps."""
    watchdog_timeout: float = 600.0
    """Number of seconds without a completed step after which the run is ended."""
    tracker: Literal["wandb", "mlflow", "trackio"] | None = None
    """Tracker that records the run too: Weights & Biases, MLflow or Trackio. Install it with pip
    and configure it as usual, by its environment variables. A continued run is continued there, and
    a tracker that fails does not stop the training. None records the run in its directory only."""
    keep_freed_memory: bool = True
    """On CPUs, keep the memory that a step frees for the next step, which is faster. False returns
    it to the system, for machines that are short of memory."""
    find_lr: Flag = False
    """Do a learning-rate range test instead of training. The learning rate rises from step to step,
    and the loss shows which rates work. The curve and two suggestions are printed and written to
    the directory, by default one in find-lr/. No run is touched, and no checkpoint is written."""
    range_test: RangeTestConfig = dataclasses.field(default_factory=RangeTestConfig)
    """How --find-lr proceeds."""
    preview: Path | None = None
    """Write a page that shows the first training batches as the network gets them, after
    augmentation and mixing, with their targets. Then stop, without training. Without a value, the
    file is named after the experiment."""
    preview_images: int = 32
    """Number of images of each batch on the page of the preview."""
    dry_run: Flag = False
    """Print the steps, the schedule, the size of the network, the memory and an estimate of the
    time, which is measured in a few steps. Then stop: nothing is written."""
    overwrite: Flag = False
    """Replace the files of an earlier --find-lr or --preview. Runs are never overwritten."""

    def __post_init__(self) -> None:
        for name in ("watchdog_timeout", "preview_images"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} must be above 0, not {getattr(self, name)}")
        actions = [name for name in _ACTIONS if getattr(self, name)]
        options = [f"--{name.replace('_', '-')}" for name in actions]
        if len(options) > 1:
            raise ConfigError(f"{' and '.join(options)} exclude each other; give one of them")
        if options and not self.find_lr and self.distributed.requested:
            raise ConfigError(f"{options[0]} works in one process; leave --distributed out")
        if options and self.tracker:
            raise ConfigError(f"tracker has no effect with {options[0]}; leave it out")
        if options and self.profile != ProfileConfig():
            raise ConfigError(f"profile has no effect with {options[0]}; leave it out")
        if self.preview_images != type(self).preview_images and not self.preview:
            raise ConfigError("preview_images has an effect only on --preview; add it")
        if self.range_test != RangeTestConfig() and not self.find_lr:
            raise ConfigError("range_test has an effect only on a range test; add --find-lr")
        if self.overwrite and not (self.find_lr or self.preview):
            raise ConfigError("overwrite has an effect only on --find-lr and --preview; add one")


def parse(argv: list[str], prog: str = "resnet-jax train") -> tuple[str, Arguments]:
    """Return the name of the experiment, and its configuration with the options applied.

    Raises:
        ConfigError: There is no such experiment, or a value is impossible.
        UsageError: An option is unknown, or the experiment does not come first.
        SystemExit: The help was asked for, and is printed.
    """
    experiment, options = _experiment(argv)
    options = preview.with_default_file(options, experiment.name)
    start = _with_kinds(experiment.config, options)
    directory = Path("runs") / experiment.name
    default = default_arguments(start, directory)
    try:
        arguments = parse_options(
            Arguments,
            options,
            prog=f"{prog} {experiment.name}",
            default=default,
            description=_SYNOPSIS.format(
                prog=prog,
                default=DEFAULT_EXPERIMENT,
                name=experiment.name,
                description=experiment.description,
                experiments=", ".join(list_experiments()),
            ),
            unions=kinds_of_members(),
        )
    except UsageError:
        _require_experiment_first(options, prog)
        raise
    if arguments.workdir is directory:
        workdir = default_run_directory(
            experiment.name, arguments.config, unchanged=start, kinds=experiment.config
        )
        if arguments.find_lr:
            workdir = PARENT / workdir.name
        arguments = dataclasses.replace(arguments, workdir=workdir)
    elif arguments.preview or arguments.dry_run:
        option = "--preview" if arguments.preview else "--dry-run"
        raise ConfigError(f"workdir has no effect with {option}; leave it out")
    return experiment.name, arguments


def default_arguments(config: TrainConfig, directory: Path) -> Arguments:
    """Return the arguments of a command line without options."""
    arguments: Any = object.__new__(Arguments)
    for field in dataclasses.fields(Arguments):
        factory = field.default_factory
        value = field.default if factory is dataclasses.MISSING else factory()
        # Without checks: the configuration may be incomplete until the options are applied.
        object.__setattr__(arguments, field.name, value)
    object.__setattr__(arguments, "config", config)
    object.__setattr__(arguments, "workdir", directory)
    return arguments


def kinds_of_members() -> dict[type, list[str]]:
    """Return, for each member of a union, the kinds of that union."""
    return {member: list(members) for members in _unions().values() for member in members.values()}


def _experiment(argv: list[str]) -> tuple[Experiment, list[str]]:
    """Return the experiment that a command line names, and the options that follow."""
    if argv and not argv[0].startswith("-"):
        return load_experiment(argv[0]), argv[1:]
    if argv and argv[0].partition("=")[0] == "--config":
        _, equals, file = argv[0].partition("=")
        rest = argv[1:] if equals else argv[2:]
        file = file if equals else "".join(argv[1:2])
        if not file:
            raise UsageError("--config needs the path of a config.json")
        return _resolved(Path(file)), rest
    return load_experiment(DEFAULT_EXPERIMENT), argv


def _resolved(path: Path) -> Experiment:
    """Return the configuration of a run as an experiment, named after the run."""
    import json

    try:
        config = TrainConfig.from_json(json.loads(path.read_text()))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    name = path.absolute().parent.name if path.stem == "config" else path.stem
    return Experiment(name, config, f"The configuration in {path}.")


def _require_experiment_first(options: list[str], prog: str) -> None:
    for i, word in enumerate(options):
        if word == "--config" or word.startswith("--config="):
            raise UsageError(f"--config comes first: {prog} --config CONFIG.json [OPTIONS]")
        if word in list_experiments() or (is_file(word) and word.endswith(".py")):
            others = " ".join(options[:i] + options[i + 1 :])
            raise UsageError(f"the experiment comes first: {prog} {word} {others}".rstrip())


def _unions() -> dict[str, dict[str, type]]:
    """Return the fields of `TrainConfig` that are one of several kinds, with these kinds."""
    hints = get_type_hints(TrainConfig)
    return {
        name: kinds(hint)
        for name, hint in hints.items()
        if all(hasattr(member, "kind") for member in get_args(hint) or (hint,))
    }


def _with_kinds(config: TrainConfig, options: list[str]) -> TrainConfig:
    """Return a configuration with the kinds that options such as ``--data.kind`` choose.

    A field that both kinds have keeps its value, unless the kinds have different defaults: the
    learning rate of one optimizer does not suit another. The result is not checked: options that
    follow may give it the values that it still needs.
    """
    config = copy.copy(config)
    for name, members in _unions().items():
        kind = _value_of(f"--{name}.kind", options)
        present = getattr(config, name)
        if kind in members and not isinstance(present, members[kind]):
            object.__setattr__(config, name, _converted(present, members[kind]))
    return config


def _value_of(option: str, options: list[str]) -> str | None:
    """Return the last value of an option."""
    value = None
    for word, following in itertools.zip_longest(options, options[1:]):
        if word == option:
            value = following
        elif word.startswith(f"{option}="):
            value = word.removeprefix(f"{option}=")
    return value


def _converted(present: Any, cls: type) -> Any:
    converted = object.__new__(cls)
    theirs = {field.name: field.default for field in dataclasses.fields(present)}
    for field in dataclasses.fields(cls):  # pyrefly: ignore
        if field.name in theirs and field.default == theirs[field.name]:
            value = getattr(present, field.name)
        elif field.default is dataclasses.MISSING:
            value = tyro.MISSING
        else:
            value = field.default
        object.__setattr__(converted, field.name, value)
    return converted


def print_experiments() -> None:
    """Print every experiment that comes with the library, with its description."""
    from rich.console import Console
    from rich.table import Table

    table = Table("experiment", "description", box=None)
    for name in list_experiments():
        mark = " (default)" if name == DEFAULT_EXPERIMENT else ""
        table.add_row(name, load_experiment(name).summary + mark)
    Console().print(table)


def run(argv: list[str], prog: str) -> int:
    """Train, and return the exit code: 0, 2 after an error, 130 or 143 after a signal."""
    started = time.perf_counter()
    if argv == ["--list"]:
        print_experiments()
        return 0
    _, arguments = parse(argv, prog)
    command = (*prog.split(), *argv)
    if arguments.preview:
        return preview.run(
            arguments.config,
            arguments.preview,
            images=arguments.preview_images,
            overwrite=arguments.overwrite,
            command=command,
        )
    if arguments.dry_run:
        return dry_run.run(arguments.config, keep_freed_memory=arguments.keep_freed_memory)
    return execute(arguments, command, started)


@contextlib.contextmanager
def _tracker(name: str | None) -> "Iterator[Sequence[Hook]]":
    """Return the hooks that the options ask for, which learn how the training ends."""
    if name is None:
        yield ()
        return
    from resnet_jax.training.trackers import Tracker

    try:
        tracker = Tracker(name)
    except ImportError as error:
        raise ConfigError(f"{error}") from None
    with tracker:
        yield [tracker]


def execute(arguments: Arguments, command: Sequence[str], started: float) -> int:
    """Train, or do a range test; return the exit code: 0, or 130 or 143 after a signal.

    After an error the process ends with code 2 and one line on the error stream.

    Args:
        arguments: The experiment and the options.
        command: The words of the command line, for the report.
        started: When the program began, by `time.perf_counter`.
    """
    files, code = None, 0
    if arguments.find_lr:
        files = files_in(arguments.workdir, overwrite=arguments.overwrite)
    # The slow imports begin here, after help and most mistakes have been answered.
    if arguments.keep_freed_memory:
        from resnet_jax.ops.host_memory import keep_freed_memory

        keep_freed_memory()
    from resnet_jax.data import DataError
    from resnet_jax.training.experiment import train
    from resnet_jax.training.loop import TrainingDivergedError
    from resnet_jax.training.process.distributed import (
        DistributedError,
        connected,
        end_at_once,
        is_primary,
        leave,
        leave_after,
        of_a_peer,
    )
    from resnet_jax.training.process.preemption import PreemptedError
    from resnet_jax.training.range_test import RangeTestError
    from resnet_jax.training.rundir.checkpoints import CheckpointError
    from resnet_jax.training.rundir.workdir import WorkdirError
    from resnet_jax.training.train_steps import is_compiling

    # Orbax logs every detail of every save and of every signal.
    logging.getLogger("absl").setLevel(logging.ERROR)
    try:
        with connected(arguments.distributed):
            try:
                if files is not None:
                    find_learning_rate(arguments.config, arguments.range_test, files, command)
                    return 0
                with _tracker(arguments.tracker) as hooks:
                    train(
                        arguments.config,
                        arguments.workdir,
                        hooks=hooks,
                        command=command,
                        profile=arguments.profile,
                        watchdog_timeout=arguments.watchdog_timeout,
                        started=started,
                    )
            except PreemptedError as error:
                # All processes have reached the same step, and end in an orderly way.
                if is_primary():
                    print(error, file=sys.stderr)
                code = error.exit_code
    except (
        CheckpointError,
        ConfigError,
        DataError,
        DistributedError,
        OSError,
        RangeTestError,
        TrainingDivergedError,
        WorkdirError,
    ) as error:
        # Orbax cannot write if another process is gone. That is not an error of the disk.
        if of_a_peer(error):
            leave_after(error, arguments.distributed)
        leave(f"error: {error}", 2)
    except KeyboardInterrupt:
        remedy = "does the test again" if files else "continues from the last checkpoint"
        leave(f"interrupted; the same command {remedy}", 130)
    except ModuleNotFoundError:
        raise
    except Exception as error:
        leave_after(error, arguments.distributed)
    if is_compiling():
        # A regular exit would wait for a step that this process does not do.
        end_at_once(code)
    return code

"""Fine-tune published weights, or your own, on a folder of images."""

import dataclasses
import json
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from resnet_jax.commands import train
from resnet_jax.commands.arguments import Flag, parse_options
from resnet_jax.commands.mistakes import mistakes
from resnet_jax.commands.results import check_writable
from resnet_jax.commands.run_directory import as_file_name, directory_of
from resnet_jax.config import ConfigError, FolderConfig, TrainConfig
from resnet_jax.config.sampling import ClassSampling

if TYPE_CHECKING:
    from resnet_jax.training.finetuning import FinetunePlan


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Fine-tune published weights, or your own, on a folder of images.

    All settings follow from the images and the weights. They are printed with their reasons before
    the training begins, and each option below replaces one of them. The run directory then holds
    the complete configuration: "resnet-jax train --config RUN/config.json" has an option for every
    field.

    A fifth of each class is held out for validation if the data has no validation split. Test
    images are never used. Repeat a command to continue a run that was cut off.
    """

    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")]
    """Folder of images with CLASS/, or with train/CLASS/ and val/CLASS/; or a .csv, .tsv or .jsonl
    table with the columns image, label and, optionally, split."""
    weights: str
    """Weights to start from: a name that "resnet-jax weights" lists, hf://OWNER/NAME, a run
    directory, or a file together with --model."""
    model: str | None = None
    """Name of the network, for a file of weights. A name with a tag, such as resnet50.tv2_in1k,
    brings the preprocessing of these published weights."""
    epochs: float | None = None
    """Number of passes over the training images. By default it follows from their number (BiT's
    hyper-rule)."""
    learning_rate: float | None = None
    """Peak learning rate. By default it follows from the batch size and the network."""
    batch_size: int | None = None
    """Number of images in a batch. By default it follows from the number of images and the free
    memory."""
    image_size: int | None = None
    """Height and width of the network's input in pixels. By default those of the weights."""
    head_epochs: float | None = None
    """Number of epochs at the beginning that train only the head. By default a tenth of all; 0
    trains the whole network from the beginning."""
    early_stopping: int | None = None
    """Number of evaluations in a row without a lower validation loss after which the run ends. By
    default 10; 0 trains all epochs and uses the last step."""
    sampling: ClassSampling | None = None
    """How often each class is drawn: "uniform", the default, uses every image once in an epoch,
    "balanced" draws all classes equally often, and "square_root" is between the two. Use it if some
    classes have far fewer images than others."""
    seed: int = 0
    """Seed of the new head, the order of the images and the augmentation."""
    workdir: Path | None = None
    """Run directory. By default it is named after the data, the weights and the options, such as
    runs/photos-resnet50.a1_in1k-epochs=20."""
    tracker: Literal["wandb", "mlflow", "trackio"] | None = None
    """Tracker that records the run too, as for "resnet-jax train". None records the run in its
    directory only."""
    dry_run: Flag = False
    """Print the settings with their reasons, and where the run would be, and stop. Nothing is
    written, and no tracker is started."""


_OPTIONS = (
    "epochs",
    "learning_rate",
    "batch_size",
    "image_size",
    "head_epochs",
    "early_stopping",
    "sampling",
)


def run(argv: list[str], prog: str) -> int:
    """Train, and return the exit code; see `resnet_jax.commands.train.execute`."""
    started = time.perf_counter()
    arguments = parse_options(Arguments, argv, prog=prog)
    workdir = arguments.workdir or _default_directory(arguments)
    from resnet_jax.ops.host_memory import keep_freed_memory

    keep_freed_memory()
    with mistakes():
        config = None if arguments.dry_run else _continued(arguments, workdir)
        if config is None:
            plan = _plan(arguments, workdir)
            _print(plan, workdir)
            if arguments.dry_run:
                return 0
            config = plan.config
    options = train.Arguments(config, workdir, tracker=arguments.tracker, keep_freed_memory=False)
    code = train.execute(options, (*prog.split(), *argv), started)
    if code == 0:
        _print_next(prog.partition(" ")[0], workdir, arguments.data)
    return code


def _plan(arguments: Arguments, workdir: Path) -> "FinetunePlan":
    from resnet_jax.training.finetuning import finetune_config
    from resnet_jax.training.rundir.workdir import refuse_what_no_run_has_written

    if not arguments.dry_run:
        refuse_what_no_run_has_written(workdir)
        check_writable(workdir, workdir)
    given: dict[str, Any] = {name: getattr(arguments, name) for name in _OPTIONS}
    return finetune_config(
        arguments.data, arguments.weights, arguments.model, seed=arguments.seed, **given
    )


def _continued(arguments: Arguments, workdir: Path) -> TrainConfig | None:
    """Return the configuration of the run in a directory, or None if there is no run.

    What was derived when the run began is kept: the free memory, and with it the batch size, may
    be another one now, and the weights may be gone.

    Raises:
        ConfigError: The run is that of another command.
    """
    path = workdir / "config.json"
    if not path.exists():
        return None
    try:
        config = TrainConfig.from_json(json.loads(path.read_text()))
    except (ConfigError, ValueError) as error:
        raise ConfigError(f"{path}: {error}; mend it, or use another run directory") from None
    stored = _inputs(config)
    given = {
        "data": arguments.data,
        "weights": _source(arguments.weights),
        "model": arguments.model and arguments.model.partition(".")[0],
        "seed": arguments.seed,
    } | {name: getattr(arguments, name) for name in _OPTIONS}
    differences = [
        f"{name}: {stored[name]!r} there, {value!r} here"
        for name, value in given.items()
        if value not in (None, stored[name])
    ]
    if differences:
        raise ConfigError(
            f"{workdir} belongs to another run ({'; '.join(differences)}); use another run "
            "directory, or leave these options out to continue that run"
        )
    return config


def _inputs(config: TrainConfig) -> dict[str, Any]:
    """Return the values of a configuration by the names of our options."""
    data = config.data
    return {
        "data": data.path if isinstance(data, FolderConfig) else data.kind,
        "weights": config.model.weights,
        "model": config.model.name,
        "seed": config.seed,
        "epochs": config.epochs,
        "learning_rate": config.optimizer.learning_rate,
        "batch_size": config.batch_size,
        "image_size": data.images.image_size if isinstance(data, FolderConfig) else None,
        "head_epochs": config.finetune.head_epochs,
        "early_stopping": config.early_stopping.patience or 0,
        "sampling": data.sampling.classes if isinstance(data, FolderConfig) else None,
    }


def _source(weights: str) -> str:
    """Return the source of published weights, and any other text unchanged."""
    from resnet_jax.weights.catalogue import list_pretrained

    published = {entry.name: entry.source for entry in list_pretrained()}
    return weights if Path(weights).exists() else published.get(weights, weights)


def _default_directory(arguments: Arguments) -> Path:
    data, weights = (as_file_name(text) for text in (arguments.data, arguments.weights))
    changes = {name: getattr(arguments, name) for name in ("model", *_OPTIONS)}
    changes |= {"seed": arguments.seed or None}
    changes = {name: value for name, value in changes.items() if value is not None}
    return directory_of(f"{data}-{weights}", changes, {name: name for name in changes})


def _print(plan: "FinetunePlan", workdir: Path) -> None:
    """Print the settings with their reasons."""
    from rich.console import Console
    from rich.table import Table

    table = Table("setting", "value", "reason", box=None)
    for choice in plan.choices:
        table.add_row(*choice)
    console = Console()
    (console if console.is_terminal else Console(width=200)).print(table)
    for warning in plan.warnings:
        console.print(f"warning: {warning}", style="yellow", soft_wrap=True)
    print(f"Run directory: {workdir}\n")


def _print_next(program: str, workdir: Path, data: str) -> None:
    """Print the commands that use the run."""
    run_directory, images = shlex.quote(str(workdir)), shlex.quote(data)
    print(
        f"\nNext:\n"
        f"  {program} predict {run_directory} IMAGES...\n"
        f"  {program} evaluate {run_directory} --data {images} --split validation\n"
        f"  {program} explain {run_directory} IMAGES... --output explanations"
    )

"""What `resnet-jax evaluate` and `resnet-jax compare` share: models, data and errors."""

import dataclasses
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from resnet_jax.commands.arguments import Flag, UsageError
from resnet_jax.config import ConfigError, ImageConfig

if TYPE_CHECKING:
    from resnet_jax.data.labeled import LabeledImages
    from resnet_jax.inference import Classifier


@dataclasses.dataclass(frozen=True)
class DataArguments:
    """Which images are evaluated."""

    data: str | None = None
    """Folder with one folder of images for each class, or with such folders for train, val and
    test; a .csv, .tsv or .jsonl table with the columns image, label and, optionally, split; or the
    directory of a prepared TFDS data set. By default it is the data of the run."""
    split: str | None = None
    """Split to evaluate: train, validation, test, all, or any split of a TFDS data set. By default
    it is test, or else validation, or else all images; without --data it is the split on which the
    run was evaluated."""
    name: str | None = None
    """Name of a TFDS data set below the directory --data, such as imagenet2012."""
    image_key: str = "image"
    """Name of the feature that holds the image (TFDS)."""
    label_key: str = "label"
    """Name of the feature that holds the label (TFDS)."""
    classes: Literal["model", "data"] = "model"
    """Classes that are compared: all of the model, or only those that the data have, as ImageNet-A
    and ImageNet-R demand."""
    on_unreadable: Literal["fail", "skip"] = "fail"
    """What to do with an image that cannot be read: "fail" ends the command, "skip" leaves the
    image out and reports it."""
    tta: Literal["none", "flip", "five-crop"] = "none"
    """Test-time augmentation: average the logits over the image and its mirror image ("flip"), or
    over its four corners and its center ("five-crop")."""
    max_pixels: int = ImageConfig.max_pixels
    """Largest number of pixels of an image. Larger images count as unreadable, because a small file
    can announce so many pixels that the memory does not suffice."""
    overwrite: Flag = False
    """Replace files that exist."""

    def __post_init__(self) -> None:
        if self.max_pixels < 1:
            raise ConfigError(f"max_pixels must be at least 1, but it is {self.max_pixels}")


@contextmanager
def evaluation_errors() -> Iterator[None]:
    """Raise `UsageError`, for one line, for data and models that cannot be used."""
    from resnet_jax.data import DataError

    try:
        yield
    except ModuleNotFoundError:
        raise
    except (ConfigError, DataError, FloatingPointError, ImportError, OSError) as error:
        raise UsageError(str(error)) from error


def load_classifier(run: str, model: str | None, max_pixels: int) -> "Classifier":
    """Load a run, a checkpoint, published weights, a repository or a file of weights.

    Args:
        run: The source.
        model: Name of the network, for a file of weights.
        max_pixels: Largest number of pixels of an image.

    Raises:
        UsageError: It does not exist or cannot be read.
    """
    from resnet_jax.inference import Classifier

    with evaluation_errors(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            classifier = Classifier.from_pretrained(run, model, max_pixels=max_pixels)
        except ValueError as error:
            raise UsageError(str(error)) from error
    for warning in caught:
        print(f"warning: {warning.message}", file=sys.stderr)
    if not classifier.class_names:
        raise UsageError(f"{run} has no head and predicts no classes")
    return classifier


def open_and_load(
    arguments: DataArguments, runs: Sequence[str], model: str | None = None
) -> "tuple[LabeledImages, list[Classifier]]":
    """Open the data, and load the networks that are evaluated on it.

    The data come first: weights may have to be downloaded.

    Args:
        arguments: Which images are evaluated. By default they are those of the first run.
        runs: Sources of the networks.
        model: Name of the network, for a file of weights.

    Raises:
        UsageError: The data or a network does not exist or cannot be read, or a class of the data
            is not a class of a network.
    """
    from resnet_jax.inference.rundir import run_directory
    from resnet_jax.weights.catalogue import list_pretrained

    first = runs[0]
    own = arguments.data is not None or run_directory(Path(first).expanduser()) is not None
    no_data = UsageError(f"{first} has no data of its own; give --data")
    if not own and (first.startswith("hf:") or first in {w.name for w in list_pretrained()}):
        raise no_data
    data = open_data(arguments, first, arguments.split) if own else None
    classifiers = [load_classifier(run, model, arguments.max_pixels) for run in runs]
    if data is None:
        raise no_data
    for classifier in classifiers:
        check_classes(classifier, data)
    return data, classifiers


def open_data(arguments: DataArguments, run: str, split: str | None) -> "LabeledImages":
    """Open one split of the data that the arguments name, or else of the data of the run.

    Args:
        arguments: Which images are evaluated.
        run: A run directory or one of its checkpoints, or another source if the arguments name the
            data.
        split: Name of the split. None chooses one, see `DataArguments.split`.

    Raises:
        UsageError: There is no such data, or it cannot be read.
    """
    from resnet_jax.config import FolderConfig
    from resnet_jax.data import DataError
    from resnet_jax.data.labeled import open_labeled, open_labeled_config
    from resnet_jax.inference.rundir import read_config

    with evaluation_errors():
        config = read_config(Path(run).expanduser())
        if arguments.data is None:
            if config is None:
                raise UsageError(f"{run} has no data of its own; give --data")
            try:
                return open_labeled_config(config.data, split)
            except DataError as error:
                raise UsageError(f"the data of {run}: {error}; or give --data") from error
        options: dict[str, Any] = {}
        split_by_run = False
        if config is not None and isinstance(config.data, FolderConfig):
            split_by_run = _same(arguments.data, config.data.path)
            options = {
                "evaluation_share": config.data.evaluation_share,
                "split_seed": config.data.split_seed,
                "hold_out": split_by_run and config.data.hold_out_validation,
            }
        found = open_labeled(
            arguments.data,
            split,
            name=arguments.name,
            image_key=arguments.image_key,
            label_key=arguments.label_key,
            **options,
        )
        if split_by_run and split is None and found.split in ("all", "train"):
            # The run was trained on most of these images.
            return open_labeled(arguments.data, "validation", **options)
        return found


def _same(one: str, other: str) -> bool:
    return one == other or os.path.realpath(os.path.expanduser(one)) == os.path.realpath(
        os.path.expanduser(other)
    )


def check_classes(classifier: "Classifier", data: "LabeledImages") -> None:
    """Raise `UsageError` if a class of the data is not a class of the model."""
    from resnet_jax.inference.class_names import match_classes

    try:
        match_classes(data.class_names, classifier.class_names)
    except ValueError as error:
        raise UsageError(f"{data.name}: {error}") from error


@contextmanager
def progress_bar(description: str, total: int) -> Iterator[Callable[[], None]]:
    """Show a bar on the error stream. The block calls the function after each image."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        """Images per second."""

        def render(self, task: Task) -> Text:
            return Text(f"{task.speed or 0:.1f} images/s")

    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        task = progress.add_task(description, total=total)
        yield lambda: progress.advance(task)

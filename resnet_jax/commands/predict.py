"""Predict the classes of images, and find similar images."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from resnet_jax.commands.arguments import Flag, UsageError, parse_options
from resnet_jax.commands.interrupts import Interrupted, Interrupts
from resnet_jax.config import ImageConfig

if TYPE_CHECKING:
    from resnet_jax.commands.predict_screen import Screen
    from resnet_jax.inference import Classifier, Neighbors
    from resnet_jax.inference.tables import Write

_CALIBRATED = "calibrated"


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Predict the classes of images, and find similar images.

    The most probable classes are printed as a table, unless --output or --features says where they
    go. Images are read in order, and a folder may have any number of them.

    The exit code is 0 if all images could be read. It is 1 if some could not; they are listed at
    the end, and the results have the others. It is 2 if there was a mistake, and 130 after Ctrl-C
    (143 after SIGTERM), which leaves the results so far in x.partial.csv if x.csv was asked for.
    """

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """The network: a run directory or a checkpoint, the name of published weights such as
    resnet50.a1_in1k, a repository such as hf://microsoft/resnet-50 or a copy of one, or a file of
    weights together with --model."""
    paths: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="PATH...")]
    """The images: files, folders with all images below them, patterns in quotation marks such as
    "photos/**/*.jpg", URLs such as https://host/cat.jpg or s3://bucket/photos, and - for a list of
    these on standard input, one on each line."""
    model: str | None = None
    """Name of the network of a file of weights, such as resnet50, or resnet50.tv2_in1k to use the
    preprocessing of these published weights as well."""
    top: int = 5
    """Number of classes, and of neighbors, for each image."""
    output: Path | None = None
    """Write a table to this .csv, .jsonl or .parquet file."""
    layout: Literal["wide", "long"] = "wide"
    """Rows of the table: wide has one for each image, with columns for each rank, and long has one
    for each rank of each image."""
    features: Path | None = None
    """Write the pooled features to this .npy or .parquet file. Rows of an .npy file are the images
    that could be read, as in a wide table."""
    neighbors: str | None = None
    """Also find the most similar images of this folder (or pattern, or URL), by the cosine
    similarity of the pooled features. An image is not its own neighbor: an image of a folder of N
    images has up to N - 1 neighbors there, and any other image up to N."""
    tta: Literal["none", "flip", "five-crop"] = "none"
    """Average the logits over several views of each image: the image and its mirror image, or its
    corners and its center. This takes 2 or 5 times as long."""
    threshold: float | Literal["calibrated"] | None = None
    """Probability from 0 to 1 below which the decision for an image is "uncertain". Without a value
    it is the threshold that `resnet-jax evaluate` has stored in the run."""
    batch_size: int | None = None
    """Largest number of images that the network computes at once. Smaller batches need less memory.
    By default it is 16 on CPUs, where larger batches are not faster, and 64 elsewhere."""
    max_pixels: int = ImageConfig.max_pixels
    """Largest number of pixels of an image. Larger images count as unreadable, because a small file
    can announce so many pixels that the memory does not suffice."""
    overwrite: Flag = False
    """Replace files that exist."""


def run(argv: list[str], prog: str) -> int:
    """Predict, and return the exit code, see `Arguments`."""
    arguments = parse_options(Arguments, _complete(argv), prog=prog)
    _check(arguments, prog)
    with Interrupts() as interrupts:
        try:
            return _predict(arguments, interrupts)
        except Interrupted as stop:
            return stop.report()


def _complete(argv: list[str]) -> list[str]:
    """Return the command line with a value for ``--threshold``."""
    completed = []
    for word, following in zip(argv, [*argv[1:], ""], strict=True):
        completed.append(word)
        if word == "--threshold" and not _is_threshold(following):
            completed.append(_CALIBRATED)
    return completed


def _is_threshold(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return word in (_CALIBRATED, "None")
    return True


def _check(arguments: Arguments, prog: str) -> None:
    """Raise `UsageError` for mistakes that need no network."""
    if not arguments.paths:
        raise UsageError(f"name at least one file or folder of images: {prog} RUN PATH...")
    for option in ("top", "batch_size", "max_pixels"):
        value = getattr(arguments, option)
        if value is not None and value < 1:
            raise UsageError(f"--{option.replace('_', '-')} must be at least 1, but it is {value}")
    threshold = arguments.threshold
    if isinstance(threshold, float) and not 0 <= threshold <= 1:
        raise UsageError(f"--threshold must be from 0 to 1, but it is {threshold:g}")
    if len(set(_files(arguments))) < len(_files(arguments)):
        raise UsageError("--output and --features need two different files")
    if arguments.model is None and Path(arguments.run).expanduser().is_file():
        raise UsageError(
            f"{arguments.run}: a file of weights does not name its network; add its name, such as "
            "--model resnet50"
        )


def _predict(arguments: Arguments, interrupts: Interrupts) -> int:
    from resnet_jax.commands.predict_screen import Screen
    from resnet_jax.inference import expand, predict_stream
    from resnet_jax.inference.inputs import check_inputs
    from resnet_jax.inference.rows import partial_name

    with contextlib.ExitStack() as stack:
        with _mistakes():
            # A file that cannot be written is found before anything is computed.
            writers = _open_files(arguments, stack)
            check_inputs(arguments.paths)
            if arguments.neighbors is not None:
                check_inputs([arguments.neighbors])
            classifier = _load(arguments)
            screen = Screen(table=not writers)
            neighbors = _neighbors(arguments, classifier, screen)
            predictions = predict_stream(
                classifier,
                expand(arguments.paths),
                top=arguments.top,
                threshold=_threshold(arguments, classifier),
                neighbors=neighbors,
                features=arguments.features is not None,
                tta=arguments.tta,
                batch_size=arguments.batch_size,
            )
        try:
            with _mistakes(), screen.predicting(arguments.paths):
                for predicted in predictions:
                    # All files have the same images, also after Ctrl-C.
                    with interrupts.held():
                        for write in writers:
                            write(predicted)
                        screen.show(predicted)
        except Interrupted as stop:
            if files := [partial_name(path) for path in _files(arguments)]:
                stop.add_note(f"the results so far are in {' and '.join(map(str, files))}")
            raise
    return int(screen.report())


def _files(arguments: Arguments) -> list[Path]:
    return [path for path in (arguments.output, arguments.features) if path is not None]


@contextlib.contextmanager
def _mistakes() -> Iterator[None]:
    """Raise `UsageError` for what cannot be read, written or used."""
    try:
        yield
    except (BrokenPipeError, ModuleNotFoundError):
        raise
    except (ImportError, OSError, ValueError) as error:
        raise UsageError(str(error)) from error


def _open_files(arguments: Arguments, stack: contextlib.ExitStack) -> list["Write"]:
    from resnet_jax.inference import open_features, open_table

    overwrite = arguments.overwrite
    writers = []
    if arguments.output is not None:
        table = open_table(arguments.output, layout=arguments.layout, overwrite=overwrite)
        writers.append(stack.enter_context(table))
    if arguments.features is not None:
        file = open_features(arguments.features, overwrite=overwrite)
        writers.append(stack.enter_context(file))
    return writers


def _load(arguments: Arguments) -> "Classifier":
    from resnet_jax.inference import Classifier

    classifier = Classifier.from_pretrained(
        arguments.run, arguments.model, max_pixels=arguments.max_pixels
    )
    if not classifier.class_names and arguments.features is arguments.neighbors is None:
        raise UsageError(
            f"{arguments.run} has no head and predicts no classes; use --features or --neighbors"
        )
    return classifier


def _threshold(arguments: Arguments, classifier: "Classifier") -> float | None:
    if arguments.threshold != _CALIBRATED:
        return arguments.threshold
    if (threshold := classifier.calibration.threshold) is None:
        raise UsageError(
            f"{arguments.run} has no calibrated threshold; give one, such as --threshold 0.5, or "
            "store one in the run with resnet-jax evaluate"
        )
    return threshold


def _neighbors(
    arguments: Arguments, classifier: "Classifier", screen: "Screen"
) -> "Neighbors | None":
    from resnet_jax.inference import Neighbors, expand

    if arguments.neighbors is None:
        return None
    names = [arguments.neighbors]
    with screen.counting(names, expand(names)) as images:
        collection = Neighbors.of(
            classifier, images, tta=arguments.tta, batch_size=arguments.batch_size
        )
    for image, error in collection.errors.items():
        screen.unreadable(image, error)
    return collection

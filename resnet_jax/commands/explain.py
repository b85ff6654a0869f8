"""Show which parts of images speak for a class."""

import dataclasses
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Literal

import tyro

from resnet_jax.commands.arguments import Flag, UsageError, parse_options
from resnet_jax.commands.interrupts import Interrupted, Interrupts
from resnet_jax.commands.results import check_writable
from resnet_jax.config import ImageConfig


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Show which parts of images speak for a class.

    The output folder gets a PNG file for each image, with the heat in color on top of the image,
    and explanations.csv, which lists the images with their classes and files. What the network does
    not see, because the preprocessing cuts it off, is darkened.

    The exit code is 1 if some images cannot be read, and 2 after a mistake. It is 130 after Ctrl-C
    (143 after SIGTERM), which leaves the images so far and their table.
    """

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """The network: a run directory or a checkpoint, the name of published weights such as
    resnet50.a1_in1k, a repository such as hf://microsoft/resnet-50 or a copy of one, or a file of
    weights together with --model."""
    paths: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="PATH")]
    """Image files, folders, patterns such as "photos/**/*.jpg", URLs, or - for a list of them on
    standard input."""
    output: Path
    """Folder for the results. It is created if it does not exist."""
    model: str | None = None
    """Name of the network of a file of weights, such as resnet50, or resnet50.tv2_in1k to use the
    preprocessing of these published weights as well."""
    target: str | None = None
    """Name of the class to explain, or its number from 0. By default it is the most probable class
    of each image."""
    method: Literal["grad-cam", "grad-cam++", "integrated-gradients"] = "grad-cam"
    """How the heat is computed. Grad-CAM++ separates several objects of the class better.
    Integrated gradients are as fine as the pixels, and take about a hundred times as long."""
    stage: int | None = None
    """Number of the stage, from 1, whose feature map Grad-CAM and Grad-CAM++ use. By default it is
    the last. Earlier stages give finer heat that depends less on the class."""
    arrays: Flag = False
    """Also write the heat as NumPy arrays: float32 from 0 to 1, at the resolution of the network's
    input."""
    max_pixels: int = ImageConfig.max_pixels
    """Largest number of pixels of an image. Larger images are reported as unreadable."""
    overwrite: Flag = False
    """Write into a folder that has files, and replace files of the same names."""


def run(argv: list[str], prog: str) -> int:
    """Write the explanations, and return the exit code, see `Arguments`."""
    arguments = parse_options(Arguments, argv, prog=prog)
    if not arguments.paths:
        raise UsageError(f"name the images to explain: {prog} RUN PATH... --output FOLDER")
    if arguments.max_pixels < 1:
        raise UsageError(f"--max-pixels must be at least 1, but it is {arguments.max_pixels}")
    if arguments.model is None and Path(arguments.run).expanduser().is_file():
        raise UsageError(
            f"{arguments.run}: a file of weights does not name its network; add its name, such as "
            "--model resnet50"
        )
    output = arguments.output.expanduser()
    _check_output(output, overwrite=arguments.overwrite)
    try:
        with Interrupts() as interrupts:
            return _explain(arguments, output, interrupts)
    except Interrupted as stop:
        return stop.report()
    except ModuleNotFoundError:
        raise
    except (ImportError, OSError, ValueError) as error:
        raise UsageError(str(error)) from error


def _check_output(output: Path, *, overwrite: bool) -> None:
    """Raise `UsageError` if results cannot be written, before any long work."""
    if output.exists() and not output.is_dir():
        raise UsageError(f"{output} is a file; name a folder with --output")
    check_writable(output, output)
    if output.exists() and not overwrite and any(output.iterdir()):
        raise UsageError(
            f"{output} has files; name another folder, or replace them with --overwrite"
        )


def _explain(arguments: Arguments, output: Path, interrupts: Interrupts) -> int:
    from rich.console import Console
    from rich.progress import Progress

    from resnet_jax.commands.explanation_files import TABLE, ExplanationFiles
    from resnet_jax.data.dataset import printable
    from resnet_jax.data.images.cores import usable_cores
    from resnet_jax.inference import Classifier
    from resnet_jax.inference.explain import check_method
    from resnet_jax.inference.explanation import BATCH_SIZE, class_index, explain_batch
    from resnet_jax.inference.inputs import expand
    from resnet_jax.inference.stream import decode_batches

    images = list(expand(arguments.paths))
    classifier = Classifier.from_pretrained(
        arguments.run, arguments.model, max_pixels=arguments.max_pixels
    )
    method, stage = arguments.method, arguments.stage
    check_method(classifier.model, method, stage)
    target, index = arguments.target, None
    if target is not None:
        is_name = target in classifier.class_names or not target.isdecimal()
        index = class_index(classifier.class_names, target if is_name else int(target))
    screen = Console(stderr=True)
    unreadable = {}
    try:
        with (
            ExplanationFiles(output, images, arrays=arguments.arrays) as files,
            ThreadPoolExecutor(usable_cores(), thread_name_prefix="write") as pool,
            Progress(console=screen, disable=not screen.is_terminal, transient=True) as progress,
        ):
            task = progress.add_task("explaining", total=len(images))
            for batch in decode_batches(
                images,
                classifier.preprocessing,
                batch_size=BATCH_SIZE,
                max_pixels=classifier.max_pixels,
            ):
                errors = dict(enumerate(batch.errors, start=batch.first))
                found = list(explain_batch(classifier, batch, index, method=method, stage=stage))
                # The table has all images whose files are there, also after Ctrl-C.
                with interrupts.held():
                    errors |= pool.map(lambda item: (item[0], files.write(*item)), found)
                unreadable |= {index: error for index, error in errors.items() if error}
                progress.advance(task, len(batch.images))
    except Interrupted as stop:
        stop.add_note(f"the explanations so far are in {output}")
        raise
    print(f"{len(files)} of {len(images)} images explained: {output / TABLE}")
    for index, error in sorted(unreadable.items()):
        print(f"{printable(images[index])}: {error}", file=sys.stderr)
    return int(bool(unreadable))

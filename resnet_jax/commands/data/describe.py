"""Report the splits, classes, sizes, colors, duplicates and damaged files of a data set."""

import dataclasses
from typing import Annotated

import tyro

from resnet_jax.commands.arguments import parse_options
from resnet_jax.commands.data.errors import data_errors
from resnet_jax.config import ImageConfig


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Report the splits, classes, sizes, colors, duplicates and damaged files of a data set.

    The exit code is 1 if files are damaged or too large, labels are impossible, identical files
    have different labels, or splits share images. It is 2 if the data cannot be opened at all.
    """

    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SOURCE")]
    """A folder of images, a .csv, .tsv or .jsonl table, or the directory of a prepared TFDS data
    set, as a path or a URL; or a directory of IDX files with the names of MNIST's."""
    name: str | None = None
    """Name of a TFDS data set below SOURCE, such as imagenet2012 or imagenet2012:5.1.0."""
    image_key: str = "image"
    """Name of the feature that holds the image (TFDS)."""
    label_key: str = "label"
    """Name of the feature that holds the label (TFDS)."""
    threads: int = 0
    """Number of threads that read and decode. 0 uses every available core."""
    max_pixels: int = ImageConfig.max_pixels
    """Largest number of pixels of an image, as data.images.max_pixels in training."""


def run(argv: list[str], prog: str) -> int:
    """Print the report. Return 1 if there are problems, see `Arguments`."""
    arguments = parse_options(Arguments, argv, prog=prog)
    with data_errors():
        from rich.console import Console

        from resnet_jax.commands.data.summary import print_summary
        from resnet_jax.data.images.cores import usable_cores
        from resnet_jax.data.images.describe import open_all

        sources = open_all(
            arguments.source,
            name=arguments.name,
            image_key=arguments.image_key,
            label_key=arguments.label_key,
        )
        threads = arguments.threads or usable_cores()
        return int(
            print_summary(
                Console(),
                sources,
                title=arguments.source,
                threads=threads,
                max_pixels=arguments.max_pixels,
            )
        )

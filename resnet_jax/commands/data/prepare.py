"""Write a folder of images as a TFDS data set of array_record files."""

import dataclasses
from typing import Annotated

import tyro

from resnet_jax.commands.arguments import parse_options
from resnet_jax.commands.data.errors import data_errors


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Write a folder of images as a TFDS data set of array_record files.

    The images keep their bytes. Any tool that reads TensorFlow Datasets reads the result.
    """

    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SOURCE")]
    """A folder of images, or a .csv, .tsv or .jsonl table of them."""
    data_dir: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA_DIR")]
    """Directory of all TFDS data sets, such as ~/tensorflow_datasets."""
    name: str
    """Name of the new data set: small letters, digits and underscores."""
    evaluation_share: float = 0.2
    """Share of the images of each class that becomes the evaluation split, from 0 to 1. It is used
    only if the source has no such split."""
    seed: int = 0
    """Seed of the choice of these images."""
    beam: str | None = None
    """Options of Apache Beam, such as "--runner=DirectRunner", in one argument (--beam="..."). Its
    workers then write the files. None writes them in this process."""


def run(argv: list[str], prog: str) -> int:
    """Write the data set and return 0."""
    arguments = parse_options(Arguments, argv, prog=prog)
    with data_errors():
        return _prepare(arguments)


def _prepare(arguments: Arguments) -> int:
    from rich.console import Console

    from resnet_jax.data.images.prepare import prepare
    from resnet_jax.data.images.tfds import open_builder

    # TensorFlow Datasets shows its own progress bars.
    target = prepare(
        arguments.source,
        arguments.data_dir,
        name=arguments.name,
        evaluation_share=arguments.evaluation_share,
        seed=arguments.seed,
        beam=arguments.beam,
    )
    splits = open_builder(target, None).info.splits
    console = Console()
    console.print(f"Written: {target} ({', '.join(splits)})", soft_wrap=True)
    console.print("The bytes of the images are unchanged. To check them and to train on them:")
    options = f"--data.name None --data.directory {target}"
    if "validation" not in splits:
        options += " --data.evaluation-split test"
    for command in (
        f"resnet-jax data describe {target}",
        f"resnet-jax train imagenet-resnet50 {options}",
    ):
        console.print(f"  {command}", soft_wrap=True, highlight=False)
    return 0

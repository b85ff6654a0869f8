"""Write a model card from the records of a training run."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import tyro

from resnet_jax.commands.arguments import Flag, UsageError, parse_options
from resnet_jax.commands.results import check_new_files, write_text


@dataclasses.dataclass(frozen=True)
class CardArguments:
    """What a card says besides the records of the run."""

    evaluations: tuple[Path, ...] = ()
    """JSON files of `resnet-jax evaluate RUN --output FILE`, whose measures the card shows as well.
    They have confidence intervals, and the images can be others than those of the run."""
    license: str | None = None
    """Identifier of the license of the weights, such as apache-2.0 or cc-by-nc-4.0. Without one,
    the card says that no license is stated."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(CardArguments):
    """Write a model card from the records of a training run.

    The card is Markdown with the metadata of the Hugging Face hub. It describes the data, the
    training, the measures with confidence intervals, the calibration, the limits, and how to use
    the network in JAX, timm and ONNX. It says only what the run has recorded, and names what is
    missing. Directories are left out of paths.
    """

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """A run directory, such as runs/photos."""
    output: Path | None = None
    """Markdown file for the card. By default the card is printed."""
    overwrite: Flag = False
    """Replace the output file if it exists."""


def run(argv: list[str], prog: str) -> int:
    """Print or write the card, and return 0."""
    arguments = parse_options(Arguments, argv, prog=prog)
    check_new_files(arguments.output, overwrite=arguments.overwrite)
    with record_errors():
        from resnet_jax.export.card import Publication, model_card
        from resnet_jax.export.repository import is_in_timm
        from resnet_jax.export.run_records import read_records

        records = read_records(arguments.run.expanduser(), arguments.evaluations)
        in_timm = is_in_timm(records.spec.create())
        card = model_card(records, Publication(license=arguments.license, timm=in_timm))
        if arguments.output is None:
            print(card, end="")
        else:
            write_text(arguments.output, card)
            print(f"card: {arguments.output}")
    return 0


@contextmanager
def record_errors() -> Iterator[None]:
    """Raise `UsageError`, for one line, for records that cannot be used."""
    from resnet_jax.config import ConfigError

    try:
        yield
    except ModuleNotFoundError:
        raise
    except (ConfigError, ImportError, OSError, ValueError) as error:
        raise UsageError(" ".join(str(error).split())) from error

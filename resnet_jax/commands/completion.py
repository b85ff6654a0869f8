"""Print a script that completes commands and options in a shell."""

from pathlib import Path
from typing import Annotated, Any, Union

import tyro

from resnet_jax.commands import train
from resnet_jax.commands.arguments import MARKERS, create_registry
from resnet_jax.commands.main import COMMANDS, load
from resnet_jax.config import load_experiment
from resnet_jax.config.experiments import DEFAULT_EXPERIMENT


def run(argv: list[str], prog: str) -> int:
    """Print or write the script. The options of ``train`` are those of its default experiment."""
    of_data = _choice(*(_command(name) for name in COMMANDS if name.startswith("data ")))
    others = (_command(name) for name in COMMANDS if not name.startswith("data "))
    tyro.cli(
        _choice(*others, Annotated[of_data, tyro.conf.subcommand(name="data")]),
        prog=prog,
        args=argv,
        config=MARKERS,
        registry=create_registry(train.kinds_of_members()),
    )
    return 0


def _choice(*commands: Any) -> Any:
    return Union[commands]  # noqa: UP007  # pyrefly: ignore


def _command(name: str) -> Any:
    default: Any = tyro.MISSING_NONPROP
    if name == "train":
        config = load_experiment(DEFAULT_EXPERIMENT).config
        default = train.default_arguments(config, Path("runs"))
    arguments = load(name).Arguments
    return Annotated[
        arguments, tyro.conf.subcommand(name=name.removeprefix("data "), default=default)
    ]

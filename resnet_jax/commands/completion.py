"""Print a script that completes commands and options in a shell."""

from pathlib import Path
from typing import Annotated, Any, Union

import tyro

from resnet_jax.commands import finetune, models, train, weights
from resnet_jax.commands.arguments import MARKERS, create_registry
from resnet_jax.commands.data import describe, prepare
from resnet_jax.config import load_experiment
from resnet_jax.config.experiments import DEFAULT_EXPERIMENT


def run(argv: list[str], prog: str) -> int:
    """Print or write the script. The options of ``train`` are those of its default experiment."""
    config = load_experiment(DEFAULT_EXPERIMENT).config
    commands = _choice(
        _command("train", train.Arguments, train.default_arguments(config, Path("runs"))),
        _command("finetune", finetune.Arguments),
        _command(
            "data",
            _choice(
                _command("describe", describe.Arguments), _command("prepare", prepare.Arguments)
            ),
        ),
        _command("models", models.Arguments),
        _command("weights", weights.Arguments),
    )
    tyro.cli(
        commands,
        prog=prog,
        args=argv,
        config=MARKERS,
        registry=create_registry(train.kinds_of_members()),
    )
    return 0


def _choice(*commands: Any) -> Any:
    return Union[commands]  # noqa: UP007  # pyrefly: ignore


def _command(name: str, cls: Any, default: Any = tyro.MISSING_NONPROP) -> Any:
    return Annotated[cls, tyro.conf.subcommand(name=name, default=default)]

"""The command `resnet-jax`: find the subcommand, and answer mistakes in one line."""

import importlib
import inspect
import os
import sys
from types import ModuleType
from typing import NoReturn

from resnet_jax.commands.arguments import COMPLETION, UsageError
from resnet_jax.commands.extras import how_to_install
from resnet_jax.config import ConfigError
from resnet_jax.one_line import one_line
from resnet_jax.suggestions import did_you_mean, nearest

COMMANDS = {
    "train": "train",
    "finetune": "finetune",
    "predict": "predict",
    "evaluate": "evaluate",
    "compare": "compare",
    "explain": "explain",
    "serve": "serve",
    "export": "export",
    "benchmark": "benchmark",
    "card": "card",
    "push": "push",
    "runs": "runs",
    "data describe": "data.describe",
    "data prepare": "data.prepare",
    "models": "models",
    "weights": "weights",
}
"""The module of each command. Its function `run` takes the options and returns an exit code."""


def main(argv: list[str] | None = None, prog: str = "resnet-jax") -> NoReturn:
    """Run a command and exit with its code. The code is 2 after a mistake of the user.

    Args:
        argv: The command and its options. By default they are those of the process.
        prog: How the user has called this program.
    """
    argv = sys.argv[1:] if argv is None else argv
    try:
        sys.exit(_run(argv, prog))
    except (ConfigError, UsageError) as error:
        refuse(error)
    except BrokenPipeError:
        # The reader, such as `head`, has left. Python would complain at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except ModuleNotFoundError as error:
        if hint := how_to_install(error):
            refuse(hint)
        raise


def refuse(message: object) -> NoReturn:
    """Exit with code 2 and one line on the error stream."""
    print(f"error: {one_line(message)}", file=sys.stderr)
    sys.exit(2)


def load(command: str) -> ModuleType:
    """Return the module of a command."""
    return importlib.import_module(f"resnet_jax.commands.{COMMANDS[command]}")


def _run(argv: list[str], prog: str) -> int:
    for words in (2, 1):
        command = " ".join(argv[:words])
        if command in COMMANDS:
            return load(command).run(argv[words:], f"{prog} {command}")
    first = argv[0] if argv else "--help"
    if first == "--version":
        from resnet_jax import __version__

        print(f"{prog} {__version__}")
    elif first in ("-h", "--help"):
        print(_help(prog, list(COMMANDS)))
    elif first == "data" and argv[1:] in ([], ["-h"], ["--help"]):
        print(_help(prog, [command for command in COMMANDS if command.startswith("data ")]))
    elif first in COMPLETION:
        from resnet_jax.commands.completion import run

        return run(argv, prog)
    else:
        raise UsageError(_unknown(argv, prog))
    return 0


def _help(prog: str, commands: list[str]) -> str:
    width = max(map(len, commands))
    lines = [f"  {command:{width}}  {_summary(command)}" for command in commands]
    return "\n".join(
        [
            f"usage: {prog} COMMAND [OPTIONS]",
            "",
            "Train, load, use and inspect the residual networks of resnet_jax.",
            "",
            "commands:",
            *lines,
            "",
            "options:",
            "  -h, --help  Show this message, or with a COMMAND its options.",
            "  --version   Show the version of resnet_jax.",
            f"  {COMPLETION[0]} bash|zsh|fish|tcsh",
            "              Print a script that completes commands and options in a shell.",
        ]
    )


def _summary(command: str) -> str:
    """Return the first sentence of a command's module."""
    return (inspect.getdoc(load(command)) or "").partition("\n")[0]


def _unknown(argv: list[str], prog: str) -> str:
    # `resnet-jax digits-resnet20` and `resnet-jax data destroy` are near misses, too.
    asked = " ".join(argv[:2]) if argv[0] == "data" else argv[0]
    near = nearest(asked, COMMANDS)
    commands = [f"{prog} {command}" for command in near]
    if not near:
        from resnet_jax.config import list_experiments

        commands = [f"{prog} train {asked}"] if asked in list_experiments() else []
    hint = did_you_mean(commands, otherwise=f"choose from {', '.join(COMMANDS)}")
    return f"unknown command {asked!r}: {hint}"

"""Show the first training batches of an experiment as the network gets them."""

from collections.abc import Sequence
from pathlib import Path

from resnet_jax.commands.mistakes import mistakes
from resnet_jax.commands.results import check_new_files
from resnet_jax.config import TrainConfig

OPTION = "--preview"


def with_default_file(options: Sequence[str], experiment: str) -> list[str]:
    """Return options in which ``--preview`` has a value.

    >>> with_default_file(["--preview", "--seed", "1"], "digits-resnet20")
    ['--preview', 'digits-resnet20-preview.html', '--seed', '1']

    Args:
        options: The options, in which ``--preview`` may be the last word or be followed by another
            option.
        experiment: Name of the experiment, after which the file is named by default.
    """
    completed: list[str] = []
    for i, word in enumerate(options):
        completed.append(word)
        if word == OPTION and (i + 1 == len(options) or options[i + 1].startswith("-")):
            completed.append(f"{experiment}-preview.html")
    return completed


def run(
    config: TrainConfig, path: Path, *, images: int, overwrite: bool, command: Sequence[str]
) -> int:
    """Write the page, and return the exit code.

    Args:
        config: The experiment.
        path: The HTML file.
        images: Number of images of each batch that are shown.
        overwrite: Whether the file may exist.
        command: The words of the command line, for the page.
    """
    check_new_files(path, overwrite=overwrite)
    with mistakes():
        from resnet_jax.training.preview import write_preview

        write_preview(config, path.expanduser(), images=images, command=command)
    print(f"Preview: {path}")
    return 0

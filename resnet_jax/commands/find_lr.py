"""The learning-rate range test of `resnet-jax train --find-lr`."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from resnet_jax.commands.arguments import UsageError
from resnet_jax.commands.results import check_new_files, write_text
from resnet_jax.config import RangeTestConfig, TrainConfig

if TYPE_CHECKING:
    from resnet_jax.training.range_test import RangeTest
    from resnet_jax.training.setup import Run

PARENT = Path("find-lr")
"""Where the results of range tests are written by default."""


class Files(NamedTuple):
    """The files that a range test writes."""

    json: Path
    page: Path


def files_in(directory: Path, *, overwrite: bool) -> Files:
    """Return the files of a range test in a directory, after a check that they can be written.

    Raises:
        UsageError: The directory is that of a run, or the files exist and must not be overwritten.
    """
    if (directory / "config.json").exists() or (directory / "checkpoints").exists():
        raise UsageError(
            f"{directory} is the directory of a run, which a range test does not touch; give "
            "another one with --workdir"
        )
    files = Files(directory / "find-lr.json", directory / "find-lr.html")
    path = directory.absolute()
    existing = next(found for found in (path, *path.parents) if found.exists())
    if not existing.is_dir():
        raise UsageError(f"{existing} is a file; give another directory with --workdir")
    if not os.access(existing, os.W_OK):
        raise UsageError(f"{existing} cannot be written; give another directory with --workdir")
    if directory.exists():
        for file in files:
            if file.exists() and not overwrite:
                raise UsageError(
                    f"{file} exists; give another directory with --workdir, or replace it with "
                    "--overwrite"
                )
        check_new_files(*files, overwrite=True)
    return files


def find_learning_rate(
    config: TrainConfig, range_test: RangeTestConfig, files: Files, command: Sequence[str]
) -> None:
    """Do a range test; print its curve and its suggestions, and write them to files.

    Args:
        config: The experiment.
        range_test: How the test proceeds.
        files: What `files_in` has returned.
        command: The words of the command line, for the page.

    Raises:
        RangeTestError: The losses suggest no learning rate.
    """
    from rich.console import Console

    from resnet_jax.report import RunRecord, write_report
    from resnet_jax.report.terminal import draw_text
    from resnet_jax.training.description import describe, provenance
    from resnet_jax.training.process.distributed import is_primary
    from resnet_jax.training.range_test import learning_rate_range_test

    console = Console(quiet=not is_primary())
    title, facts = "", {}

    def announce(run: "Run") -> None:
        nonlocal title, facts
        facts = describe(run)
        title = f"Learning-rate range test of {config.model.name} on {run.dataset.name}"
        console.print(
            f"{title}: {range_test.steps} steps of {config.batch_size} images, from "
            f"{range_test.lowest:g} to {range_test.highest:g}",
            soft_wrap=True,
        )

    result = learning_rate_range_test(config, range_test, announce=announce)
    if not is_primary():
        return
    # The name of the axis follows the axis.
    chart, width = result.chart(), min(console.width, 100) - 16
    console.print(draw_text(chart, width=max(30, width), height=12))
    for line in _suggestions(config, result):
        console.print(line, soft_wrap=True, highlight=False)
    files.json.parent.mkdir(parents=True, exist_ok=True)
    content = result.to_json() | {"config": config.to_json()}
    write_text(files.json, json.dumps(content, indent=2) + "\n")
    record = RunRecord(
        title=title,
        kind="Range test",
        headline={
            "steepest descent": f"{result.steepest:.2g}",
            "a tenth of the minimum": f"{result.tenth_of_minimum:.2g}",
        },
        facts=facts
        | {
            "learning rate": f"from {range_test.lowest:g} to {range_test.highest:g}",
            "steps": _steps(result),
        }
        | provenance(command),
        config=config.to_json(),
        charts=[chart],
    )
    write_report(files.page, record)
    console.print(f"Written: {files.json}, {files.page}", soft_wrap=True, highlight=False)


def _steps(result: "RangeTest") -> str:
    """Return how far the test went."""
    done, total = len(result.losses), result.config.steps
    last = result.learning_rates[-1]
    if result.ended_early:
        return f"{done} of {total}, because the loss grew at a learning rate of {last:.2g}"
    return f"{done}, up to a learning rate of {last:.2g}"


def _suggestions(config: TrainConfig, result: "RangeTest") -> list[str]:
    """Return what the test suggests, in lines for people."""
    steepest, tenth = result.steepest, result.tenth_of_minimum
    lines = [
        f"Steps: {_steps(result)}.",
        f"The loss falls fastest at a learning rate of {steepest:.2g}. A tenth of the rate of its "
        f"minimum is {tenth:.2g}.",
    ]
    factor = config.learning_rate_factor
    low, high = sorted([tenth / factor, steepest / factor])
    scaled = f", which learning_rate_scaling multiplies by {factor:.4g}" if factor != 1 else ""
    return [*lines, f"Try --optimizer.learning-rate {low:.2g} to {high:.2g}{scaled}."]

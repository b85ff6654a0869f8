"""Publish a trained network on the Hugging Face hub."""

import dataclasses
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from resnet_jax.commands.arguments import Flag, UsageError, parse_options
from resnet_jax.commands.card import CardArguments, record_errors

if TYPE_CHECKING:
    from resnet_jax.export.push import Plan


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(CardArguments):
    """Publish a trained network on the Hugging Face hub.

    Uploads a model card, the weights in the layout of timm and, if asked for, exports in one
    commit. The repository is created if it does not exist. Then
    `Classifier.from_pretrained("hf://user/name")` loads the network with its preprocessing, class
    names and calibration, and timm loads it too if it has such a network.

    The token is that of `hf auth login`, or HF_TOKEN. Files that the repository has with another
    content are replaced only with --overwrite.
    """

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """A run directory, such as runs/photos."""
    repository: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="USER/NAME")]
    """Repository of the hub: its owner, a user or an organization, and its name."""
    private: Flag = False
    """Make the repository private if it is created. A repository that exists and is public is
    refused."""
    revision: str = "main"
    """Branch to commit to. It is created from main if it does not exist."""
    exports: tuple[Literal["onnx", "stablehlo"], ...] = ()
    """Exports that the repository contains as well: onnx, stablehlo or both."""
    dry_run: Flag = False
    """Show which files would be created and replaced, and change nothing."""
    overwrite: Flag = False
    """Replace files that the repository has with another content."""


def run(argv: list[str], prog: str) -> int:
    """Upload the network and print its address. Return 0, or 130 after Ctrl-C."""
    arguments = parse_options(Arguments, argv, prog=prog)
    try:
        with record_errors():
            return _push(arguments)
    except KeyboardInterrupt:
        print("interrupted; the same command uploads only what is missing", file=sys.stderr)
        return 130


def _push(arguments: Arguments) -> int:
    from resnet_jax import __version__
    from resnet_jax.export.push import check_name, check_token, plan, push

    repository = check_name(arguments.repository)
    if not arguments.dry_run:
        check_token()
    from resnet_jax.export.repository import write_repository

    run = arguments.run.expanduser()
    with tempfile.TemporaryDirectory(prefix="resnet_jax-") as temporary:
        directory = Path(temporary)
        write_repository(
            run,
            directory,
            repository,
            exports=arguments.exports,
            evaluations=arguments.evaluations,
            license_id=arguments.license,
        )
        planned = plan(directory, repository, branch=arguments.revision, private=arguments.private)
        _print(planned, directory)
        if planned.replaced and not arguments.overwrite:
            raise UsageError(
                f"{repository} has {', '.join(planned.replaced)} with another content; replace it "
                "with --overwrite, or give another name or --revision"
            )
        if arguments.dry_run:
            print("nothing was changed, because of --dry-run")
        elif planned.new or planned.replaced:
            message = f"Upload {run.absolute().name} with resnet_jax {__version__}"
            print(f"published: {push(planned, directory, message)}")
        else:
            print(f"{repository} has all of these files already; nothing was changed")
    return 0


def _print(plan: "Plan", directory: Path) -> None:
    state = "does not exist yet" if plan.creates_repository else "exists"
    if plan.creates_repository and plan.private:
        state += " and will be private"
    branch = ", which does not exist yet" * plan.creates_branch
    print(f"hf://{plan.repository} {state}; branch {plan.branch}{branch}")
    for word, names in (
        ("new", plan.new),
        ("replaced", plan.replaced),
        ("unchanged", plan.unchanged),
    ):
        for name in names:
            size = (directory / name).stat().st_size
            print(f"  {word:9}  {name}  {size:,} bytes")

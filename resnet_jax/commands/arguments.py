"""How every command reads its command line: with tyro, and with mistakes answered in one line."""

import ast
import contextlib
import dataclasses
import functools
import inspect
import io
import itertools
import shutil
import sys
import textwrap
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import tyro
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec

from resnet_jax.commands.suggestions import nearest_options
from resnet_jax.suggestions import did_you_mean

T = TypeVar("T")

COMPLETION = ("--tyro-print-completion", "--tyro-write-completion")
"""Options, followed by the name of a shell, that print or write a completion script."""

MARKERS = (tyro.conf.AvoidSubcommands, tyro.conf.FlagCreatePairsOff)
"""A union is chosen by its option ``kind``, and a `Flag` has no opposite."""

Flag = Annotated[bool, "flag"]
"""A Boolean that an option without a value sets to True. Other Booleans take True or False, so that
every option of an experiment is a name and a value."""


class UsageError(Exception):
    """A mistake on the command line. The message says what to type instead."""


def parse_options(
    cls: type[T],
    argv: list[str],
    *,
    prog: str,
    default: T | None = None,
    description: str | None = None,
    unions: dict[type, list[str]] | None = None,
) -> T:
    """Return the arguments of a command, as an instance of a dataclass.

    Args:
        cls: Dataclass whose fields are the arguments. Docstrings of fields are their help.
        argv: The words after the command.
        prog: The command, as the user types it.
        default: Values of the options that are not given.
        description: Text of the help page. By default it is the docstring of the class.
        unions: For each dataclass that is a member of a union, the kinds of that union. It gets an
            option ``kind``, whose value the caller has already acted upon.

    Raises:
        UsageError: An option is unknown, lacks its value, or has a value of another type.
        SystemExit: The help was asked for, and is printed.
    """
    description = inspect.getdoc(cls) if description is None else description
    if {"-h", "--help"} & set(argv):
        print(wrap(description or "", shutil.get_terminal_size().columns) + "\n")
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            arguments, unknown = tyro.cli(
                cls,
                prog=prog,
                args=argv,
                description="",
                return_unknown_args=True,
                config=MARKERS,
                registry=create_registry(unions or {}),
                default=tyro.MISSING_NONPROP if default is None else default,
            )
    except SystemExit as stop:
        if stop.code in (None, 0):
            raise
        raise UsageError(f"{_message(errors.getvalue())}; see {prog} --help") from None
    if unknown:
        raise UsageError(_unknown(unknown[0], option_names(arguments), prog))
    return arguments


def option_names(arguments: Any, prefix: str = "") -> list[str]:
    """Return the options that set the fields of a dataclass, such as ``--data.image-size``."""
    names = []
    for field in dataclasses.fields(arguments):
        # The fields of the experiment itself have no prefix.
        name = "" if field.name == "config" else f"{prefix}{field.name.replace('_', '-')}"
        value = getattr(arguments, field.name)
        if dataclasses.is_dataclass(value):
            names += option_names(value, f"{name}." if name else "")
        else:
            names.append(f"--{name}")
    return names


def wrap(text: str, width: int) -> str:
    """Return a text with its paragraphs filled to a width, and indented ones unchanged."""
    return "\n\n".join(
        paragraph
        if paragraph.startswith(" ")
        else textwrap.fill(paragraph, min(width, 100), break_on_hyphens=False)
        for paragraph in text.split("\n\n")
    )


def _unknown(word: str, options: list[str], prog: str) -> str:
    if not word.startswith("-"):
        return f"unexpected argument {word!r}; see {prog} --help"
    option = word.partition("=")[0]
    hint = did_you_mean(nearest_options(option, options), otherwise=f"see {prog} --help")
    return f"unknown option {option}: {hint}"


def _message(box: str) -> str:
    """Return the first part of a message that tyro has printed in a box, in one line."""
    lines = [line.strip("│ ") for line in box.splitlines() if line.startswith("│")]
    words = []
    for line in lines:
        # A rule separates the message from the help of the argument.
        if line.startswith("─"):
            break
        words.append(line)
    return (" ".join(words) or " ".join(box.split())).rstrip(".")


def create_registry(unions: dict[type, list[str]]) -> ConstructorRegistry:
    """Return tyro's rule for our dataclasses: help that wraps well, and an option for the kind."""
    registry = ConstructorRegistry()

    @registry.struct_rule
    def dataclass_rule(info: Any) -> StructConstructorSpec | None:
        cls = info.type
        # A generic one is tyro's own.
        if not dataclasses.is_dataclass(cls) or hasattr(cls, "__parameters__"):
            return None
        hints, texts = get_type_hints(cls, include_extras=True), _field_docs(cls)
        fields = [
            StructFieldSpec(
                name=field.name,
                type=_option_type(hints[field.name]),
                default=_default(field, info.default),
                helptext=texts.get(field.name),
            )
            for field in dataclasses.fields(cls)
        ]
        if cls not in unions:
            return StructConstructorSpec(instantiate=cls, fields=tuple(fields))
        kind = StructFieldSpec(
            name="kind",
            type=Literal[tuple(unions[cls])],  # pyrefly: ignore
            default=getattr(cls, "kind"),  # noqa: B009
            helptext="Which kind of it. The other options of this group depend on it.",
        )
        return StructConstructorSpec(
            instantiate=lambda kind, **values: cls(**values),  # noqa: ARG005
            fields=(kind, *fields),
        )

    return registry


_BOOLEAN: Any = Annotated[bool, tyro.conf.FlagConversionOff]


def _option_type(hint: Any) -> Any:
    """Return the type of an option for a field with a type."""
    if hint is bool:
        return _BOOLEAN
    # For `X | Y`, but not for `Union[X, Y]`, tyro imports typeguard, which takes 0.1 s.
    is_union = get_origin(hint) is types.UnionType
    return Union[get_args(hint)] if is_union else hint  # noqa: UP007  # pyrefly: ignore


def _default(field: dataclasses.Field[Any], instance: Any) -> Any:
    if dataclasses.is_dataclass(instance):
        return getattr(instance, field.name)
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return tyro.MISSING


@functools.cache
def _classes_in(module: types.ModuleType) -> dict[str, ast.ClassDef]:
    """Return the definitions of the classes of a module; its file is parsed once for all."""
    body = ast.parse(inspect.getsource(module)).body
    return {node.name: node for node in body if isinstance(node, ast.ClassDef)}


@functools.cache
def _field_docs(cls: type) -> dict[str, str]:
    """Return the docstrings below the fields of a dataclass, each in one line."""
    texts = {}
    for base in reversed(cls.__mro__):
        if dataclasses.is_dataclass(base):
            texts |= dict(_docs_in_source(base))
    return texts


def _docs_in_source(cls: type) -> Iterator[tuple[str, str]]:
    definition = _classes_in(sys.modules[cls.__module__])[cls.__name__]
    for statement, following in itertools.pairwise(definition.body):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
        ):
            yield statement.target.id, " ".join(str(following.value.value).split())

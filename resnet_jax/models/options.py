"""The options of blocks and normalization layers, and the values that are allowed for them.

An option is a field of a block or a normalization layer.  `create_model` knows each by a name that
is unique in the network.
"""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, NamedTuple

import flax.linen as nn

from resnet_jax.models.blocks import (
    BottleneckBlock,
    NormalizerFreeBlock,
    PostActivationBlock,
    PreActivationBlock,
    PreActivationBottleneckBlock,
    ResidualBlock,
)
from resnet_jax.models.layers import Norm, conv
from resnet_jax.models.normalization import (
    BatchNorm,
    EvoNorm,
    FilterResponseNorm,
    GroupNorm,
)


class Allowed(NamedTuple):
    """The values that a field may have.

    Attributes:
        accepts: whether a value is one of them.  A TypeError counts as no.
        description: completes the sentence "the field must be ...".
    """

    accepts: Callable[[Any], bool]
    description: str

    def check(self, name: str, value: Any) -> None:
        """Raise ValueError unless the value is allowed."""
        try:
            accepted = self.accepts(value)
        except TypeError:  # The value cannot be compared with a number.
            accepted = False
        if not accepted:
            raise ValueError(f"{name} must be {self.description}, but it is {value!r}")


POSITIVE = Allowed(lambda value: value > 0, "positive")
POSITIVE_OR_NONE = Allowed(lambda value: value is None or value > 0, "positive or None")
RATE = Allowed(lambda value: 0 <= value < 1, "in [0, 1)")
BOOLEAN = Allowed(lambda value: value in (False, True), "False or True")
BUILDER_OR_NONE = Allowed(
    lambda value: value is None or callable(value), "None or a function that builds a layer"
)


def _is_axis(value: Any) -> bool:
    names = value if isinstance(value, tuple) else (value,)
    return value is None or (bool(names) and all(isinstance(name, str) for name in names))


def _are_groups(value: Any) -> bool:
    return value is None or all(i >= 0 for group in value for i in group)


class Option(NamedTuple):
    """A field of a block or a normalization layer.

    Attributes:
        part: the field of the network that holds the block or the normalization layer.
        owners: the classes that have the option.
        field: its name in these classes.
        allowed: the values that it may have.
    """

    part: Literal["block", "norm"]
    owners: tuple[type[nn.Module], ...]
    field: str
    allowed: Allowed

    @property
    def default(self) -> Any:
        """The value that the classes give to the field."""
        return getattr(self.owners[0], self.field)


OPTIONS: dict[str, Option] = {
    "attention": Option("block", (ResidualBlock,), "attention", BUILDER_OR_NONE),
    "spatial_unit": Option("block", (PostActivationBlock,), "spatial_unit", BUILDER_OR_NONE),
    "antialias": Option(
        "block",
        (PostActivationBlock,),
        "antialias",
        Allowed(lambda value: value is None or callable(value), "None or a function (x, stride)"),
    ),
    "average_down": Option(
        "block",
        (PostActivationBlock,),
        "average_down",
        Allowed(lambda value: value in (None, "before", "after"), "None, before or after"),
    ),
    "cardinality": Option("block", (BottleneckBlock,), "cardinality", POSITIVE),
    "base_width": Option("block", (BottleneckBlock,), "base_width", POSITIVE),
    "reduce_first": Option("block", (BottleneckBlock,), "reduce_first", POSITIVE),
    "ibn": Option(
        "block",
        (PostActivationBlock,),
        "ibn",
        Allowed(lambda value: value in (None, "a", "b"), "None, a or b"),
    ),
    "stride_in_1x1": Option(
        "block",
        (BottleneckBlock, PreActivationBottleneckBlock),
        "stride_in_1x1",
        BOOLEAN,
    ),
    "alpha": Option("block", (NormalizerFreeBlock,), "alpha", POSITIVE),
    "skip_init": Option(
        "block",
        (NormalizerFreeBlock,),
        "skip_init",
        Allowed(lambda value: value in (False, True), "False or True"),
    ),
    "block_dropout_rate": Option("block", (PreActivationBlock,), "dropout_rate", RATE),
    "norm_scale_init": Option(
        "norm",
        (BatchNorm, GroupNorm, EvoNorm, FilterResponseNorm),
        "scale_init",
        Allowed(callable, "an initializer such as flax.linen.initializers.ones"),
    ),
    "bn_decay": Option(
        "norm", (BatchNorm,), "momentum", Allowed(lambda value: 0 <= value <= 1, "in [0, 1]")
    ),
    "bn_epsilon": Option("norm", (BatchNorm,), "epsilon", POSITIVE),
    "bn_group_size": Option("norm", (BatchNorm,), "group_size", POSITIVE_OR_NONE),
    "bn_axis_name": Option(
        "norm", (BatchNorm,), "axis_name", Allowed(_is_axis, "None, a name or a tuple of names")
    ),
    "bn_axis_index_groups": Option(
        "norm",
        (BatchNorm,),
        "axis_index_groups",
        Allowed(_are_groups, "None or groups of indices such as ((0, 1), (2, 3))"),
    ),
    "bn_fast_variance": Option("norm", (BatchNorm,), "use_fast_variance", BOOLEAN),
    "freeze_bn": Option(
        "norm",
        (BatchNorm,),
        "frozen",
        Allowed(
            lambda value: (
                value in (False, True)
                or (isinstance(value, tuple) and all(isinstance(path, str) for path in value))
            ),
            "True, False or a tuple of module paths such as 'stem/norm'",
        ),
    ),
}

_ALIASES = {("average_down", "behind"): "after"}
"""Values that options had in earlier versions."""


BlockBuilder = Callable[..., ResidualBlock]
"""A class of blocks, or a partial of one."""

Blocks = BlockBuilder | tuple[BlockBuilder | tuple[BlockBuilder, ...], ...]
"""One builder for all blocks, or a tuple with one for each stage, or with a tuple of one for each
block of the stage."""


def map_blocks(change: Callable[[BlockBuilder], Any], blocks: Blocks) -> Any:
    """Return ``change(builder)``, or tuples of such results where ``blocks`` has tuples."""
    if isinstance(blocks, tuple):
        return tuple(map_blocks(change, part) for part in blocks)
    return change(blocks)


def distinct_blocks(blocks: Blocks) -> list[BlockBuilder]:
    """Return every builder once, in the order of the first block that it builds."""
    found: dict[BlockBuilder, None] = {}
    map_blocks(lambda builder: found.setdefault(builder), blocks)
    return list(found)


def unbound_block(block: BlockBuilder, features: int = 64) -> ResidualBlock:
    """Return a block outside any network, to read its class and its options.

    Args:
        block: builds it.
        features: number of channels of the inner convolutions.

    Raises:
        ValueError: ``block`` does not build a residual block.
    """
    try:
        built = block(features=features, stride=1, conv=conv, norm=BatchNorm, parent=None)
    except TypeError as error:
        raise ValueError(f"block cannot be built: {error}") from error
    if not isinstance(built, ResidualBlock):
        raise ValueError(f"block must build a ResidualBlock, but it is {block!r}")
    return built


def unbound_norm(norm: Norm) -> nn.Module:
    """Return a normalization layer outside any network, to read its class and its options.

    Raises:
        ValueError: ``norm`` does not build a layer that is called with ``train``.
    """
    problem = (
        "norm must be resnet_jax.BatchNorm or GroupNorm, or functools.partial(GroupNorm, "
        f"num_groups=...), but it is {norm!r}"
    )
    try:
        built = norm(parent=None)
    except TypeError as error:
        raise ValueError(f"{problem}: {error}") from error
    # The layers of Flax have another argument, ``use_running_average``.
    if not (
        isinstance(built, nn.Module)
        and "train" in inspect.signature(type(built).__call__).parameters
    ):
        raise ValueError(problem)
    return built


def check_options(block: ResidualBlock, norm: nn.Module) -> None:
    """Check the values of all options of an unbound block and an unbound normalization layer.

    Raises:
        ValueError: an option has a value that is not allowed.
    """
    parts = {"block": block, "norm": norm}
    for name, option in OPTIONS.items():
        part = parts[option.part]
        if isinstance(part, option.owners):
            option.allowed.check(name, getattr(part, option.field))


def options_to_partials(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields of a network, with the options among them bound to ``block`` and ``norm``.

    Args:
        fields: fields of `resnet_jax.ResNet`, among them ``block`` and ``norm``, and options by
            their names in `OPTIONS`.

    Returns:
        The fields without the options.  ``block`` and ``norm`` are partials of the given ones if an
        option changes their values, and otherwise the given ones themselves.  If there are several
        blocks, an option changes those that have it.

    Raises:
        ValueError: no block or normalization layer has an option, and the value of the option is
            not its default; or a block or the layer cannot be built.
    """
    options = {name: value for name, value in fields.items() if name in OPTIONS}
    rest = {name: value for name, value in fields.items() if name not in OPTIONS}
    if not options:
        return rest
    parts: dict[str, list[nn.Module]] = {
        "block": [unbound_block(builder) for builder in distinct_blocks(rest["block"])],
        "norm": [unbound_norm(rest["norm"])],
    }
    for name, value in options.items():
        option = OPTIONS[name]
        if isinstance(value, str):
            options[name] = value = _ALIASES.get((name, value), value)
        if not any(isinstance(part, option.owners) for part in parts[option.part]) and (
            value != option.default
        ):
            owner = type(parts[option.part][0]).__name__
            raise ValueError(f"{name} does nothing with {owner}; leave it at {option.default!r}")
    return rest | {
        "block": map_blocks(
            lambda builder: _bound("block", builder, unbound_block(builder), options),
            rest["block"],
        ),
        "norm": _bound("norm", rest["norm"], unbound_norm(rest["norm"]), options),
    }


def _bound(
    part: str, builder: Callable[..., Any], built: nn.Module, options: Mapping[str, Any]
) -> Callable[..., Any]:
    """Return the builder, or a partial of it with the options that change what it builds."""
    changed = {
        option.field: value
        for name, value in options.items()
        if (option := OPTIONS[name]).part == part
        and isinstance(built, option.owners)
        and getattr(built, option.field) != value
    }
    return partial(builder, **changed) if changed else builder

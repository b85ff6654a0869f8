"""Configurations as JSON: written with a run, and read again by this and by later versions.

Each member of a union carries its ``kind``, and the whole carries a schema version. A field that an
older file lacks takes its default.
"""

import dataclasses
import json
import types
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from resnet_jax.config.data import DataConfig
from resnet_jax.config.train import TrainConfig
from resnet_jax.config.validation import ConfigError

SCHEMA_VERSION = 3
"""Version of the JSON that `to_json` writes. Version 2 had no separate configurations of the loss
and the averages. In version 1, the optimizer also contained the schedule and the fine-tuning
fields, and the kinds were names of classes."""


def to_json(config: TrainConfig) -> dict[str, Any]:
    """Return nested plain values, with a ``kind`` for each member of a union.

    Raises:
        ConfigError: a value has no form in JSON.
    """
    fields = json.loads(json.dumps(_plain(config), default=_refuse))
    return {"schema_version": SCHEMA_VERSION, **fields}


def from_json(plain: Any) -> TrainConfig:
    """Return the configuration that `to_json` of this or an older version wrote.

    Raises:
        ConfigError: a field is unknown or has an impossible value, or a newer version of
            resnet_jax wrote it.
    """
    if not isinstance(plain, dict):
        raise ConfigError(f"a configuration must be a JSON object, not {plain!r}")
    fields = dict(plain)
    version = fields.pop("schema_version", 1)
    if type(version) is not int or not 1 <= version <= SCHEMA_VERSION:
        raise ConfigError(
            f"the configuration has schema version {version!r}, and this version of resnet_jax "
            f"reads versions up to {SCHEMA_VERSION}; use the version of resnet_jax that wrote it"
        )
    if version == 1:
        fields = _from_version_1(fields)
    if version <= 2:
        fields = _from_version_2(fields)
    return _value(TrainConfig, fields, "")


def differing_fields(ours: TrainConfig, theirs: TrainConfig) -> list[str]:
    """Return the dotted names of the fields that differ, with both values."""
    left, right = (dict(_flatten(to_json(config))) for config in (ours, theirs))
    return [
        f"{name}: {right.get(name, 'absent')!r} there, {left.get(name, 'absent')!r} here"
        for name in left | right
        if left.get(name, "absent") != right.get(name, "absent")
    ]


class ChangedField(NamedTuple):
    """A field of a configuration whose value is not its default."""

    name: str
    """Dotted name, such as ``"optimizer.learning_rate"``."""
    value: Any
    """Its value."""
    default: Any
    """Its default, or None if ``required``."""
    required: bool
    """Whether the field has no default."""


def changed_fields(config: TrainConfig) -> list[ChangedField]:
    """Return the fields of a configuration whose values are not their defaults.

    The fields of a member of a union are compared with the defaults of that member.  Its kind is
    listed too if it is not the default kind.
    """
    return list(_changed(config, dataclasses.MISSING, ""))


def kinds(union: Any) -> dict[str, type]:
    """Return the members of a union of configurations, or the one member there is, by kind."""
    members = get_args(union) or (union,)
    return {member.kind: member for member in members}


def _changed(value: Any, default: Any, prefix: str) -> Iterator[ChangedField]:
    for field in dataclasses.fields(value):
        name, ours = prefix + field.name, getattr(value, field.name)
        same_type = type(default) is type(value)
        theirs = getattr(default, field.name) if same_type else field.default
        required = theirs is dataclasses.MISSING
        if dataclasses.is_dataclass(ours):
            kind = getattr(ours, "kind", None)
            usual = None if required else getattr(theirs, "kind", None)
            if kind != usual:
                yield ChangedField(f"{name}.kind", kind, usual, required)
            yield from _changed(ours, theirs, f"{name}.")
        elif required or ours != theirs:
            yield ChangedField(name, ours, None if required else theirs, required)


def _plain(value: Any) -> Any:
    if not dataclasses.is_dataclass(value):
        return value
    kind = {"kind": value.kind} if hasattr(value, "kind") else {}
    return kind | {
        field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)
    }


def _refuse(value: Any) -> None:
    """Raise `ConfigError` for a value that JSON does not have, such as a path."""
    raise ConfigError(
        f"the values of a configuration are Python's numbers, strings and tuples, but one is "
        f"{value!r}; convert it"
    )


def _value(hint: Any, plain: Any, name: str) -> Any:
    """Return ``plain``, a JSON value, as the type ``hint``; ``name`` is for the error."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType) or hasattr(hint, "kind"):
        if any(hasattr(member, "kind") for member in (*arguments, hint)):
            return _of_kind(hint, plain, name)
        for member in arguments:
            try:
                return _value(member, plain, name)
            except ConfigError:
                continue
    elif dataclasses.is_dataclass(hint) and isinstance(plain, dict):
        return _dataclass(hint, plain, name)
    elif origin is Literal:
        # True equals 1, and is not meant by it.
        if any(plain == choice and type(plain) is type(choice) for choice in arguments):
            return plain
    elif origin is tuple and isinstance(plain, list | tuple):
        if arguments[-1] is Ellipsis:
            arguments = (arguments[0],) * len(plain)
        if len(arguments) == len(plain):
            return tuple(
                _value(argument, item, f"{name}[{i}]")
                for i, (argument, item) in enumerate(zip(arguments, plain, strict=True))
            )
    elif hint is float and type(plain) in (int, float):
        return float(plain)
    elif hint in (int, bool, str, types.NoneType) and type(plain) is hint:
        return plain
    raise ConfigError(f"{name} must be {_described(hint)}, but it is {plain!r}")


def _described(hint: Any) -> str:
    """Return a type in the words of an error message."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return f"one of {', '.join(map(repr, arguments))}"
    if origin in (Union, types.UnionType):
        return " or ".join(map(_described, arguments))
    if hint is types.NoneType:
        return "None"
    return hint.__name__ if isinstance(hint, type) and not arguments else str(hint)


def _of_kind(union: Any, plain: Any, name: str) -> Any:
    members = kinds(union)
    if not isinstance(plain, dict) or plain.get("kind") not in list(members):
        found = plain.get("kind") if isinstance(plain, dict) else plain
        raise ConfigError(f"{name}.kind must be one of {', '.join(members)}, but it is {found!r}")
    fields = {key: value for key, value in plain.items() if key != "kind"}
    return _dataclass(members[plain["kind"]], fields, name)


def _dataclass(cls: Any, plain: dict[str, Any], name: str) -> Any:
    prefix = f"{name}." if name else ""
    hints = get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for key in plain:
        if key not in fields:
            raise ConfigError(
                f"{prefix}{key} is not a field of {cls.__name__}, which has {', '.join(fields)}"
            )
    for field in fields.values():
        if field.name not in plain and field.default is dataclasses.MISSING:
            raise ConfigError(f"{prefix}{field.name} is missing")
    return cls(**{key: _value(hints[key], value, prefix + key) for key, value in plain.items()})


def _from_version_1(plain: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of version 1 where version 2 has them."""
    kind_of = {cls.__name__: kind for kind, cls in kinds(DataConfig).items()}
    for name in ("data", "optimizer"):
        if not isinstance(plain.get(name, {}), dict):
            raise ConfigError(f"{name} must be a JSON object, but it is {plain[name]!r}")
    data, optimizer = dict(plain.get("data", {})), dict(plain.get("optimizer", {}))
    data["kind"] = kind_of.get(str(data.get("kind")), data.get("kind"))
    schedule = {"kind": optimizer.pop("schedule", "cosine")}
    moved = ("warmup_epochs",) + (
        ("decay_epochs", "decay_factor") if schedule["kind"] == "steps" else ()
    )
    schedule |= {name: optimizer[name] for name in moved if name in optimizer}
    finetune = {name: optimizer[name] for name in ("freeze", "layer_decay") if name in optimizer}
    if finetune.get("freeze"):
        # Version 1 froze parameters alone.
        finetune["freeze_statistics"] = False
    for name in ("warmup_epochs", "decay_epochs", "decay_factor", "freeze", "layer_decay"):
        optimizer.pop(name, None)
    return plain | {
        "data": data,
        "optimizer": {"kind": "sgd", **optimizer},
        "schedule": schedule,
        "finetune": finetune,
    }


def _from_version_2(plain: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of version 2 in the places where version 3 has them."""
    plain = dict(plain)
    if isinstance(optimizer := plain.get("optimizer"), dict) and "decay_norm_and_bias" in optimizer:
        decays_all = optimizer["decay_norm_and_bias"]
        rest = {key: value for key, value in optimizer.items() if key != "decay_norm_and_bias"}
        plain["optimizer"] = rest | {"decay_on": "all" if decays_all else "kernels"}
    if "label_smoothing" in plain:
        plain["loss"] = {"kind": "softmax", "label_smoothing": plain.pop("label_smoothing")}
    averaging = {}
    if "ema_decay" in plain:
        averaging["decay"] = plain.pop("ema_decay")
    if "ema_warmup" in plain:
        averaging["warmup"] = "tensorflow" if plain.pop("ema_warmup") else "none"
    return plain | ({"averaging": averaging} if averaging else {})


def _flatten(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value

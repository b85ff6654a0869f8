"""The run directory that is used if none is given."""

import collections
import dataclasses
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from resnet_jax.config import TrainConfig

# Longest name that the changed fields get, in characters. File systems allow 255 bytes in all.
_LONGEST = 100


def default_run_directory(
    name: str, config: TrainConfig, *, unchanged: TrainConfig, kinds: TrainConfig
) -> Path:
    """Return ``runs/NAME``, followed by the fields that differ from the experiment.

    The same command always means the same directory, so that repeating it continues its run, and
    commands that train something else get another directory:

        runs/digits-resnet20
        runs/digits-resnet20-seed=1
        runs/digits-resnet20-epochs=5,learning_rate=0.2

    A field is named by its last part if that is unique, as it is for ``optimizer.learning_rate``.
    A value that cannot be a file name is shortened. Eight digits of a digest of all changes then
    follow.

    Args:
        name: Name of the experiment.
        config: The configuration of the run.
        unchanged: The configuration before any option was applied to it, with the kinds of
            ``config``. Fields that must be given may have any value.
        kinds: The configuration of the experiment, with its own kinds.
    """
    ours, before, original = _leaves(config), _leaves(unchanged), _leaves(kinds)
    changes = {
        field: value
        for field, value in ours.items()
        if value != (original if field.endswith(".kind") else before).get(field)
    }
    count = collections.Counter(map(_last, ours))
    labels = {field: _last(field) if count[_last(field)] == 1 else field for field in changes}
    return directory_of(name, changes, labels)


def directory_of(name: str, changes: Mapping[str, Any], labels: Mapping[str, str]) -> Path:
    """Return ``runs/NAME``, followed by the values that were changed.

    Args:
        name: Name of the experiment.
        changes: The values, by field.
        labels: What each field is called in the name of the directory.
    """
    if not changes:
        return Path("runs") / name
    parts, shortened = [], False
    for field, value in changes.items():
        text = _text(value)
        short = as_file_name(text)
        shortened |= short != text
        parts.append(f"{labels[field]}={short}")
    joined = ",".join(parts)
    if shortened or len(joined) > _LONGEST:
        digest = hashlib.sha256(repr(sorted(changes.items())).encode()).hexdigest()[:8]
        joined = f"{joined[:_LONGEST]}-{digest}"
    return Path("runs") / f"{name}-{joined}"


def as_file_name(text: str) -> str:
    """Return the last part of a path, with only characters that every file system accepts."""
    return re.sub(r"[^A-Za-z0-9._+-]", "_", text.rstrip("/").rpartition("/")[2])


def _leaves(config: Any, prefix: str = "") -> dict[str, Any]:
    """Return all fields by their dotted names, and the kinds of the members of unions."""
    found = {f"{prefix}kind": config.kind} if hasattr(config, "kind") else {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            found |= _leaves(value, f"{prefix}{field.name}.")
        else:
            found[prefix + field.name] = value
    return found


def _last(field: str) -> str:
    return field.rpartition(".")[2]


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return "_".join(map(_text, value))
    # 3 and 3.0 are the same value, and would be the same directory.
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)

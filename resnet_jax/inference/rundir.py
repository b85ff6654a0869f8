"""Reading of the network and the variables that a training run has written."""

import json
from pathlib import Path
from typing import Any

from resnet_jax.config import ConfigError, TrainConfig
from resnet_jax.inference.spec import ModelSpec
from resnet_jax.one_line import one_line
from resnet_jax.weights.formats.checkpoints import chosen, read_orbax
from resnet_jax.weights.formats.digests import describe_arrays, json_digest

Variables = dict[str, Any]

MODEL_FILE = "model.json"
"""File in the run directory that holds the `ModelSpec`."""


def read_run(path: Path) -> tuple[ModelSpec, Variables]:
    """Read the description of the network and its variables.

    Args:
        path: A run directory, complete or not, from which the newest checkpoint is read, or the
            best one if the run stopped early; or one checkpoint of a run.

    Returns:
        The description, and the variables as nested dictionaries of NumPy arrays: the moving
        averages if the run keeps any.

    Raises:
        FileNotFoundError: The path does not exist.
        ValueError: It is neither a run nor a checkpoint, it has no checkpoint yet, the checkpoint
            is damaged, or an older or a newer version of resnet_jax wrote it.
        ImportError: Orbax is not installed.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; give a run directory or a checkpoint")
    if not path.is_dir():
        raise ValueError(f"{path} is a file; give a run directory or a checkpoint")
    is_run = (path / MODEL_FILE).exists() or (path / "config.json").exists()
    steps = path / "checkpoints" if is_run else path
    if is_run and not (steps.is_dir() and any(child.name.isdigit() for child in steps.iterdir())):
        raise ValueError(f"{path}: the run has no checkpoint yet; wait until it has saved one")
    checkpoint = chosen(path)
    variables, content = read_orbax(checkpoint)
    spec = _spec(path, checkpoint, content)
    _verify(checkpoint, variables, content)
    return spec, variables


def _spec(path: Path, checkpoint: Path, content: dict[str, Any]) -> ModelSpec:
    """Return the description in the run directory, or else in the checkpoint."""
    for file in (path / MODEL_FILE, checkpoint.parent.parent / MODEL_FILE):
        stored = content.get("metadata", {}).get("model")
        if file.parent != path and stored is not None:
            file, plain = checkpoint, stored
        elif file.exists():
            try:
                plain = json.loads(file.read_text())
            except (RecursionError, ValueError) as error:
                raise ValueError(f"{file} is damaged ({error}); restore it from a copy") from None
        else:
            continue
        try:
            return ModelSpec.from_json(plain)
        except ValueError as error:
            raise ValueError(one_line(f"{file}: {error}")) from None
    raise ValueError(
        f"{path} does not say how its network is built, because an older version of resnet_jax "
        f"wrote it; continue the run once with this version, which then writes {MODEL_FILE}"
    )


def _verify(checkpoint: Path, variables: Variables, content: dict[str, Any]) -> None:
    """Compare each array with the digest that the run stored with it.

    Orbax returns an array whose file has a flipped bit without an error.

    Raises:
        ValueError: An array differs from what the run wrote.
    """
    content = dict(content)
    digest, arrays = content.pop("sha256", None), content.get("arrays", {})
    if digest != json_digest(content):
        raise ValueError(f"{checkpoint} is damaged: its list of arrays has changed; {_REMEDY}")
    changed = [
        name
        for name, found in describe_arrays(variables).items()
        if found != (arrays.get(f"ema/{name}") or arrays.get(name))
    ]
    if changed:
        names = ", ".join([*changed[:3], *(["..."] if len(changed) > 3 else [])])
        raise ValueError(
            f"{checkpoint} is damaged: {len(changed)} arrays differ from what the run wrote "
            f"({names}); {_REMEDY}"
        )


def run_directory(path: Path) -> Path | None:
    """Return the directory of a run.

    Args:
        path: A run directory, or one of its checkpoints. For anything else the result is None.
    """
    if (path / "config.json").is_file() and (path / "checkpoints").is_dir():
        return path
    above = path.absolute().parent
    is_checkpoint = path.is_dir() and above.name == "checkpoints"
    return above.parent if is_checkpoint and (above.parent / "config.json").is_file() else None


def read_config(path: Path) -> TrainConfig | None:
    """Return the configuration of a run.

    Args:
        path: A run directory, or one of its checkpoints. For anything else the result is None.

    Raises:
        ConfigError: The configuration is damaged, or a newer version of resnet_jax wrote it.
    """
    directory = run_directory(path)
    if directory is None:
        return None
    file = directory / "config.json"
    try:
        return TrainConfig.from_json(json.loads(file.read_text()))
    except ConfigError as error:
        raise ConfigError(one_line(f"{file}: {error}")) from None
    except (RecursionError, ValueError) as error:
        raise ConfigError(f"{file} is damaged ({error}); restore it from a copy") from None


_REMEDY = "use another checkpoint of the run, or restore this one from a copy"

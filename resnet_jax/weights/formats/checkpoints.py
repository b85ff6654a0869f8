"""Reader of training checkpoints: those of our runs, and those of Flax's ImageNet example."""

import contextlib
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

Variables = dict[str, Any]

# Where a training state stores its variables.  Later entries take precedence: the moving averages,
# which our runs evaluate, come before the values that they average.  Flax's example used
# "optimizer" and "model_state" before 2022.
_PLACES = {
    "params": (
        ("params",),
        ("optimizer", "target"),
        ("optimizer", "target", "params"),
        ("ema", "params"),
    ),
    "batch_stats": (("batch_stats",), ("model_state", "batch_stats"), ("ema", "batch_stats")),
}
_NUMBERED = re.compile(r"(checkpoint_)?(?P<step>\d+)")


def is_msgpack(head: bytes) -> bool:
    """Return whether a file with these first two bytes is a training state in Flax's msgpack."""
    # A map of up to 15 entries, followed by the length of its first key.
    return len(head) > 1 and 0x81 <= head[0] <= 0x8F and 0xA1 <= head[1] <= 0xBF


def read_msgpack(path: Path) -> Variables:
    """Read a file of ``flax.training.checkpoints`` in the format that was its default until 2023.

    Returns:
        ``params`` and ``batch_stats`` as nested dictionaries of NumPy arrays.

    Raises:
        ValueError: The file is truncated or damaged, or contains no parameters.
    """
    from flax.serialization import msgpack_restore

    try:
        state = msgpack_restore(path.read_bytes())
    except Exception as error:  # Raised by msgpack or NumPy, whichever notices first.
        raise ValueError(f"{path}: truncated or damaged ({error}); fetch it again") from error
    return variables_of(state, path)


def read_orbax(path: Path) -> tuple[Variables, dict[str, Any]]:
    """Read the variables and the metadata of an Orbax checkpoint; the optimizer state is not read.

    Args:
        path: A checkpoint, or a directory of checkpoints such as the run directory of a training
            run, of which the `chosen` one is read.

    Returns:
        ``params`` and ``batch_stats`` as nested dictionaries of NumPy arrays, the moving averages
        if the run keeps any; and the JSON that was stored beside the arrays.

    Raises:
        ValueError: There is no checkpoint, or it is damaged or contains no parameters.
        ImportError: Orbax is not installed.
    """
    try:
        from orbax.checkpoint import v1
    except ImportError:
        raise ImportError(
            f"{path} needs the package orbax-checkpoint: pip install 'resnet-linen[train]'"
        ) from None

    # Orbax's annotations accept neither paths nor trees.
    ocp: Any = v1
    path = chosen(path)
    if path.is_file():
        return read_msgpack(path), {}
    try:
        with _silent():
            found = ocp.metadata(path.absolute())
        stored, custom = found.metadata, dict(found.custom_metadata or {})
    except Exception as error:
        raise ValueError(
            f"{path}: not an Orbax checkpoint, or it is damaged ({_line(error)})"
        ) from error
    if stored is None:
        raise ValueError(f"{path}: the checkpoint is damaged, its list of arrays cannot be read")
    wanted = variables_of(stored, path)
    # Restore onto this machine, whatever devices wrote the checkpoint.
    local = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    abstract = _within(
        {
            _place(stored, collection): jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=local), tree
            )
            for collection, tree in wanted.items()
        }
    )
    context = ocp.Context()
    context.pytree.loading.partial_load = True
    try:
        with context, _silent():
            state = ocp.load(path.absolute(), abstract)
    except Exception as error:
        raise ValueError(f"{path}: the checkpoint is damaged ({_line(error)})") from error
    return jax.tree.map(np.asarray, variables_of(state, path)), custom


def chosen(path: Path) -> Path:
    """Return the checkpoint that a directory stands for.

    It is the one of the highest step.  A run that stopped early is an exception: its
    ``result.json`` names the step of the best checkpoint.

    Args:
        path: A run directory, a directory of checkpoints, or a checkpoint, which is returned
            itself.

    Raises:
        ValueError: There is no checkpoint, or the best one is gone.
    """
    directory = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    steps = {
        int(match["step"]): child
        for child in directory.iterdir()
        if (match := _NUMBERED.fullmatch(child.name))
    }
    if steps:
        step = _reported_step(path)
        if step is not None and step not in steps:
            raise ValueError(
                f"{path}: the result is that of step {step}, whose checkpoint is gone; bring it "
                f"back, or give another one of those in {directory}"
            )
        return steps[max(steps) if step is None else step]
    # Every Orbax checkpoint contains one of these files.
    if any((path / name).exists() for name in ("_CHECKPOINT_METADATA", "_METADATA")):
        return path
    raise ValueError(
        f"{path}: there is no checkpoint in it, and no model.safetensors or pytorch_model.bin; "
        "give the run directory of a training run, one checkpoint, or a weight file"
    )


def _reported_step(path: Path) -> int | None:
    """Return the step of the result of a complete run; older versions did not write it."""
    try:
        return json.loads((path / "result.json").read_text()).get("step")
    except (OSError, RecursionError, ValueError, AttributeError):
        return None


def variables_of(state: Any, path: Path) -> Variables:
    """Return ``params`` and ``batch_stats`` of a training state.

    Args:
        state: The nested dictionary that was saved.
        path: Where it was read, for the error message.

    Raises:
        ValueError: The state contains no parameters.
    """
    if not (isinstance(state, dict) and _place(state, "params")):
        raise ValueError(f"{path}: there are no params in it, so it is not a training checkpoint")
    return {
        collection: _at(state, place)
        for collection in _PLACES
        if (place := _place(state, collection))
    }


def _place(state: Any, collection: str) -> tuple[str, ...]:
    for place in reversed(_PLACES[collection]):
        if _at(state, place):
            return place
    return ()


def _at(tree: Any, place: tuple[str, ...]) -> Any:
    for key in place:
        if not isinstance(tree, dict) or key not in tree:
            return None
        tree = tree[key]
    return tree


def _within(leaves: dict[tuple[str, ...], Any]) -> dict[str, Any]:
    """Return the nested dictionary that has the given leaves at the given places."""
    tree: dict[str, Any] = {}
    for place, leaf in leaves.items():
        branch = tree
        for key in place[:-1]:
            branch = branch.setdefault(key, {})
        branch[place[-1]] = leaf
    return tree


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Leave out the warnings of Orbax, which come before an error that says the same."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _line(error: Exception) -> str:
    """Return the error on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:160]

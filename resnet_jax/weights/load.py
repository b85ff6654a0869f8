"""Loading of weights, strict and with every tensor accounted for."""

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from resnet_jax.models import ResNet, stack_blocks
from resnet_jax.weights.bit_names import from_bit, is_bit
from resnet_jax.weights.flax_example import from_flax_example, is_flax_example
from resnet_jax.weights.structure import structure
from resnet_jax.weights.torch_names import (
    Rules,
    from_torch_layout,
    to_state_dict,
    torch_name,
    torch_rules,
)
from resnet_jax.weights.transformers_names import from_transformers, is_transformers

Variables = dict[str, Any]
Source = Mapping[str, Any] | str | Path

_logger = logging.getLogger(__name__)

# Stored by PyTorch since 0.4.1 to average statistics cumulatively; nothing here reads it.
_IGNORED_SUFFIX = "num_batches_tracked"


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """What became of every tensor; names are PyTorch's.

    Attributes:
        loaded: taken as they are.
        adapted: taken, with other image channels.
        initialized: of the model, but not in the source or of another shape there.
        unused: in the source, but not of the model.
    """

    loaded: tuple[str, ...]
    adapted: tuple[str, ...]
    initialized: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        counts = [
            f"{len(names)} {field}" + (f" ({_few(names)})" if field != "loaded" and names else "")
            for field, names in dataclasses.asdict(self).items()
        ]
        return "weights: " + ", ".join(counts)


def load_weights(
    model: ResNet,
    source: Source,
    *,
    strict: bool = True,
    new_head: bool = False,
    key: jax.Array | None = None,
) -> Variables:
    """Variables of a model from published weights.

    Args:
        model: the network that the weights are for.  Where its ``in_channels`` are not those of the
            weights, the first kernel is adapted as timm does: summed for one channel, else repeated
            and rescaled.
        source: names to arrays in the dialect of torchvision, timm, ``transformers`` or BiT, such
            as ``{k: v.numpy() for k, v in torch_model.state_dict().items()}``; or a
            ``.safetensors``, ``.pth`` or ``.npz`` file of them; or a repository of the hub such as
            ``hf://timm/resnet50.a1_in1k``; or variables of a model of ours; or the work directory
            or one checkpoint of a run of ours or of Flax's ImageNet example, whose networks are
            built with ``padding="same"``.  None of them needs PyTorch.
        strict: every tensor must fit; otherwise those that do not are initialised, and logged.
        new_head: initialise the head, for other classes.
        key: PRNG key of what is initialised; by default one of seed 0.

    Returns:
        ``{"params": ..., "batch_stats": ...}`` of float32 arrays, ready for
        ``model.apply(variables, images, train=False)``.

    Raises:
        ValueError: tensors are missing, unexpected or of another shape; the message names them.
            Or the source cannot be read.
    """
    variables, report = _match(model, source, strict, new_head, key)
    if not strict and (report.initialized or report.unused):
        _logger.warning("%s", report)
    return variables


def load_matching_weights(
    model: ResNet,
    source: Source,
    *,
    new_head: bool = False,
    key: jax.Array | None = None,
) -> tuple[Variables, LoadReport]:
    """`load_weights` without ``strict``, and what became of every tensor."""
    return _match(model, source, False, new_head, key)


def _match(
    model: ResNet,
    source: Source,
    strict: bool,
    new_head: bool,
    key: jax.Array | None,
) -> tuple[Variables, LoadReport]:
    rules = torch_rules(model)
    tensors = _tensors(model, source, rules)
    stem = _stem_name(tensors, rules)
    adapted: tuple[str, ...] = ()
    if stem and model.in_channels and model.in_channels != tensors[stem].shape[1]:
        tensors |= {stem: adapt_image_channels(tensors[stem], model.in_channels)}
        adapted = (stem,)
    channels = tensors[stem].shape[1] if stem else model.in_channels or 3

    # PyTorch names every block.
    unrolled = model.clone(scan=False)
    expected, tree = jax.tree_util.tree_flatten_with_path(structure(unrolled, channels))
    # In the order of the tree; None where nothing fits.
    arrays: dict[str, np.ndarray | None] = {}
    problems: list[str] = []
    for path, leaf in expected:
        names = [key.key for key in path]
        name = torch_name(names, rules)
        arrays[name] = None
        if new_head and names[1] == "head":
            continue
        if name not in tensors:
            problems.append(f"missing {name}")
            continue
        array = from_torch_layout(np.asarray(tensors[name], leaf.dtype), leaf.ndim)
        if array.shape == leaf.shape:
            arrays[name] = array
        else:
            problems.append(f"{name} has shape {array.shape} in our layout, expected {leaf.shape}")
    unused = [name for name in tensors if name not in arrays and not name.endswith(_IGNORED_SUFFIX)]
    problems += [f"unexpected {name}" for name in unused]

    if problems and strict:
        raise ValueError(f"these weights do not fit the model: {_few(problems, '; ')}")

    initialized = tuple(name for name, array in arrays.items() if array is None)
    leaves: list[Any] = list(arrays.values())
    if initialized:
        created = jax.tree.leaves(_init(unrolled, channels, key))
        leaves = [new if old is None else old for old, new in zip(leaves, created, strict=True)]
    adapted = tuple(name for name in adapted if arrays.get(name) is not None)
    loaded = tuple(
        name for name, array in arrays.items() if array is not None and name not in adapted
    )
    variables = jax.tree.unflatten(tree, leaves)
    if model.scan:
        variables = stack_blocks(variables)
    return variables, LoadReport(loaded, adapted, initialized, tuple(unused))


def _init(model: ResNet, channels: int, key: jax.Array | None) -> Variables:
    # Compiled, because the layers one by one take longer.
    return jax.jit(lambda key: model.init(key, jnp.zeros((1, 64, 64, channels)), train=False))(
        jax.random.key(0) if key is None else key
    )


def adapt_image_channels(kernel: np.ndarray, in_channels: int) -> np.ndarray:
    """The first kernel, [O, I, H, W], for images of other channels, as timm adapts it.

    One channel gets the sum over all, so that grey images give what they gave as colours.  More
    channels repeat the kernel, rescaled to keep the size of its response.
    """
    channels = kernel.shape[1]
    if in_channels == channels:
        return kernel
    if in_channels == 1:
        return kernel.sum(axis=1, keepdims=True)
    repeated = np.tile(kernel, (1, -(-in_channels // channels), 1, 1))[:, :in_channels]
    return repeated * np.float32(channels / in_channels)


def _tensors(model: ResNet, source: Source, rules: Rules) -> dict[str, np.ndarray]:
    """The source in the dialect of torchvision and timm."""
    tensors = dict(source) if isinstance(source, Mapping) else _read(source)
    if "params" in tensors:
        variables = {name: tensors.get(name, {}) for name in ("params", "batch_stats")}
        if is_flax_example(variables):
            variables = from_flax_example(variables, model.stage_sizes)
        try:
            return to_state_dict(variables, rules)
        except KeyError as error:
            raise ValueError(f"these weights do not fit the model: {error.args[0]}") from None
    if is_bit(tensors):
        return from_bit(tensors)
    if is_transformers(tensors):
        return from_transformers(tensors)
    return tensors


def _read(source: str | Path) -> dict[str, Any]:
    # Only those who load files pay for the libraries that read them.
    from resnet_jax.weights.checkpoints import is_msgpack, read_msgpack, read_orbax
    from resnet_jax.weights.files import read_tensors
    from resnet_jax.weights.hub import fetch

    if isinstance(source, str) and source.startswith("hf:"):
        return read_tensors(fetch(source))
    path = Path(source)
    if path.is_dir():
        return read_orbax(path)
    if path.is_file():
        with path.open("rb") as file:
            if is_msgpack(file.read(2)):
                return read_msgpack(path)
    return read_tensors(path)


def _stem_name(tensors: Mapping[str, np.ndarray], rules: Rules) -> str | None:
    """Name of the first kernel, if it is there."""
    for conv in ("conv", "conv1"):
        name = torch_name(["params", "stem", conv, "kernel"], rules)
        if name in tensors:
            return name
    return None


def _few(names: list[str] | tuple[str, ...], separator: str = ", ") -> str:
    more = f"{separator}and {len(names) - 5} more" if len(names) > 5 else ""
    return separator.join(names[:5]) + more

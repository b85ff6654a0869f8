"""Loading of weights, strict and with every tensor accounted for."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from resnet_jax.models import ResNet, stack_blocks
from resnet_jax.weights.catalogue import list_pretrained
from resnet_jax.weights.dialects.bit import from_bit, is_bit
from resnet_jax.weights.dialects.flax_example import from_flax_example, is_flax_example
from resnet_jax.weights.dialects.torch import (
    Rules,
    from_torch_layout,
    to_state_dict,
    torch_name,
    torch_rules,
)
from resnet_jax.weights.dialects.transformers import from_transformers, is_transformers
from resnet_jax.weights.dialects.wrappers import innermost, without_prefixes
from resnet_jax.weights.structure import structure

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
        unused: in the source, but not of the model, such as the head where the model has none.
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
    new_head: bool | Literal["if_needed"] = False,
    key: jax.Array | None = None,
) -> Variables:
    """Variables of a model from published weights.

    Args:
        model: the network that the weights are for.  Where its ``in_channels`` are not those of the
            weights, the first kernel is adapted as timm does: summed for one channel, else repeated
            and rescaled.  Without a head (``num_classes=0``) that of the weights is left.
        source: names to arrays in the dialect of torchvision, timm, ``transformers`` or BiT, such
            as ``{k: v.numpy() for k, v in torch_model.state_dict().items()}``; or a
            ``.safetensors``, ``.pth`` or ``.npz`` file of them; what training scripts wrap them in
            is taken off; or a repository of the hub such as
            ``hf://timm/resnet50.a1_in1k``; or variables of a model of ours; or the work directory
            or one checkpoint of a run of ours or of Flax's ImageNet example, whose networks are
            built with ``padding="same"``.  None of them needs PyTorch.
        strict: every tensor must fit; otherwise those that do not are initialised, and logged.
        new_head: initialise the head, for other classes; ``"if_needed"`` does so only where that
            of the source has another number of them, or is absent.
        key: PRNG key of what is initialised; by default one of seed 0.

    Returns:
        ``{"params": ..., "batch_stats": ...}`` of float32 arrays, ready for
        ``model.apply(variables, images, train=False)``.

    Raises:
        ValueError: tensors are missing, unexpected or of another shape; the message counts them and
            names a few of each kind.
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
    new_head: bool | Literal["if_needed"] = False,
    key: jax.Array | None = None,
) -> tuple[Variables, LoadReport]:
    """`load_weights` without ``strict``, and what became of every tensor."""
    return _match(model, source, False, new_head, key)


def _match(
    model: ResNet,
    source: Source,
    strict: bool,
    new_head: bool | Literal["if_needed"],
    key: jax.Array | None,
) -> tuple[Variables, LoadReport]:
    rules = torch_rules(model)
    tensors = _tensors(model, source, rules)
    stem = _stem_name(tensors, rules)
    channels = model.in_channels or (tensors[stem].shape[1] if stem else 3)

    # PyTorch names every block.
    unrolled = model.clone(scan=False)
    expected, tree = jax.tree_util.tree_flatten_with_path(structure(unrolled, channels))
    wanted = {torch_name([key.key for key in path], rules): leaf for path, leaf in expected}
    head = [torch_name(["params", "head", leaf], rules) for leaf in ("kernel", "bias")]
    if new_head == "if_needed":
        new_head = any(
            name not in tensors or _view(tensors[name], leaf).shape != leaf.shape
            for name in head
            if (leaf := wanted.get(name))
        )
    # In the order of the tree; None where nothing fits.
    arrays: dict[str, np.ndarray | None] = {}
    adapted, missing, misshapen = [], [], []
    for name, leaf in wanted.items():
        arrays[name] = None
        if new_head and name in head:
            continue
        if name not in tensors:
            missing.append(name)
            continue
        tensor = tensors[name]
        if name == stem and _differs_in_channels(tensor.shape, leaf.shape):
            tensor = adapt_image_channels(tensor, channels)
            adapted.append(name)
        # What does not fit is not converted: a damaged file may announce any size.
        array = _view(tensor, leaf)
        if array.shape == leaf.shape:
            arrays[name] = np.asarray(array, leaf.dtype)
        else:
            misshapen.append(f"{name} has shape {array.shape} in our layout, not {leaf.shape}")
    unused = [name for name in tensors if name not in arrays and not name.endswith(_IGNORED_SUFFIX)]
    # A network without a head takes nothing from that of the source.
    unexpected = [name for name in unused if model.num_classes or name not in head]

    problems = {"missing": missing, "unexpected": unexpected, "misshapen": misshapen}
    if strict and any(problems.values()):
        found = ", ".join(
            f"{len(names)} {kind} ({_few(names)})" for kind, names in problems.items() if names
        )
        raise ValueError(f"these weights do not fit the model: {found}")

    created: dict[str, jax.Array] = {}
    initialized = tuple(name for name, array in arrays.items() if array is None)
    if initialized:
        created = dict(zip(initialized, _init(unrolled, channels, key, arrays), strict=True))
    loaded = tuple(name for name in arrays if name not in initialized and name not in adapted)
    variables = jax.tree.unflatten(tree, (arrays | created).values())
    if model.scan:
        variables = stack_blocks(variables)
    return variables, LoadReport(loaded, tuple(adapted), initialized, tuple(unused))


def _view(tensor: Any, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
    """A tensor of PyTorch in the layout of one of our variables; nothing is copied."""
    return from_torch_layout(np.asarray(tensor), leaf.ndim)


def _differs_in_channels(theirs: Sequence[int], ours: Sequence[int]) -> bool:
    """Whether a kernel [O, I, H, W] is for other images than ours [H, W, I, O], and else alike."""
    outputs, channels, *size = theirs
    return channels != ours[2] and [*size, outputs] == [*ours[:2], ours[3]]


def _init(
    model: ResNet, channels: int, key: jax.Array | None, arrays: Mapping[str, np.ndarray | None]
) -> list[jax.Array]:
    """The variables that are None in ``arrays``, which has all of them in the order of the tree."""

    def init(key: jax.Array) -> list[jax.Array]:
        variables = model.init(key, jnp.zeros((1, 64, 64, channels)), train=False)
        leaves = zip(arrays.values(), jax.tree.leaves(variables), strict=True)
        return [leaf for array, leaf in leaves if array is None]

    # Compiled, because the layers one by one take longer.  XLA leaves out what is not returned.
    return jax.jit(init)(jax.random.key(0) if key is None else key)


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
    content = source if isinstance(source, Mapping) else read_source(source)
    if "params" in content:
        variables = {name: content.get(name, {}) for name in ("params", "batch_stats")}
        if is_flax_example(variables):
            variables = from_flax_example(variables, model.stage_sizes)
        return to_state_dict(variables, rules)
    tensors = without_prefixes(innermost(content))
    if is_bit(tensors):
        return from_bit(tensors)
    if is_transformers(tensors):
        return from_transformers(tensors)
    return tensors


def read_source(source: str | Path) -> Mapping[str, Any]:
    """Return the content of a file, a repository of the hub or a directory of checkpoints."""
    # Only those who load files pay for the libraries that read them.
    from resnet_jax.weights.formats.checkpoints import is_msgpack, read_msgpack, read_orbax
    from resnet_jax.weights.formats.files import read_tensors
    from resnet_jax.weights.hub import fetch

    if isinstance(source, str) and source.startswith("hf:"):
        return read_tensors(fetch(source))
    if isinstance(source, str) and source.startswith(("http://", "https://")):
        raise ValueError(f"{source}: not read from the web; download it, or give hf://OWNER/NAME")
    path = Path(source).expanduser()
    if not path.exists() and list_pretrained(str(source)):
        raise ValueError(f"{source}: there is no such file; did you mean hf://timm/{source}?")
    if path.is_dir():
        return read_orbax(path)
    if path.is_file():
        with path.open("rb") as file:
            if is_msgpack(file.read(2)):
                return read_msgpack(path)
    return read_tensors(path)


def _stem_name(tensors: Mapping[str, np.ndarray], rules: Rules) -> str | None:
    """Name of the first kernel, if it is there and has image channels."""
    for conv in ("conv", "conv1"):
        name = torch_name(["params", "stem", conv, "kernel"], rules)
        if name in tensors and tensors[name].ndim == 4 and tensors[name].shape[1]:
            return name
    return None


def _few(names: Sequence[str]) -> str:
    return ", ".join([*names[:3], *(["..."] if len(names) > 3 else [])])

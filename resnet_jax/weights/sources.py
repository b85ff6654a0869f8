"""Reading any source of weights as tensors under the names of torchvision or timm."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from resnet_jax.models import ResNet
from resnet_jax.weights.catalogue import list_pretrained
from resnet_jax.weights.dialects.bit import from_bit, is_bit
from resnet_jax.weights.dialects.flax_example import from_flax_example, is_flax_example
from resnet_jax.weights.dialects.openai_clip import from_openai_clip, is_openai_clip
from resnet_jax.weights.dialects.torch import Rules, to_state_dict
from resnet_jax.weights.dialects.transformers import from_transformers, is_transformers
from resnet_jax.weights.prefixes import flattened, most_found, without_wrappers

Source = Mapping[str, Any] | str | Path
"""What `load_weights` accepts as the source of weights."""


def named_tensors(
    model: ResNet, source: Source, rules: Rules, names: Collection[str]
) -> dict[str, Any]:
    """Return all tensors of a source under PyTorch's names and in PyTorch's layouts.

    The names can have prefixes, see `prefixes`.  The names of wrappers are removed from the others
    if more tensors of the network are found then.

    Args:
        model: The network that the weights are for.
        source: See `load_weights`.
        rules: The rules of the network, from `torch_rules`.
        names: PyTorch's names of the tensors of the network.

    Raises:
        ValueError: The source cannot be read.
        ImportError: A package that the source needs is not installed.
    """
    content = source if isinstance(source, Mapping) else read_source(source)
    if _is_variables(content):
        variables = {name: content.get(name, {}) for name in ("params", "batch_stats")}
        if is_flax_example(variables):
            variables = from_flax_example(variables, model.stage_sizes)
        return to_state_dict(variables, rules)
    tensors = flattened(content, _as_tensor)
    candidates = [_translated(tensors, model)]
    bare = without_wrappers(tensors)
    if bare.keys() != tensors.keys():
        candidates.append(_translated(bare, model))
    return max(candidates, key=lambda tensors: most_found(tensors, names))


def _translated(tensors: dict[str, Any], model: ResNet) -> dict[str, Any]:
    """Return tensors under the names of torchvision or timm."""
    if is_bit(tensors):
        return from_bit(tensors)
    if is_openai_clip(tensors):
        return from_openai_clip(tensors, attention=not isinstance(model.global_pool, str))
    if is_transformers(tensors):
        return from_transformers(tensors)
    return tensors


def _is_variables(content: Mapping[str, Any]) -> bool:
    """Return whether this is variables of Flax; "params" can also contain a state dict."""
    params = content.get("params")
    return isinstance(params, Mapping) and all(
        isinstance(module, Mapping) for module in params.values()
    )


def _as_tensor(value: Any) -> Any:
    """Return an array of any library; NumPy's scalars are numbers, not tensors."""
    is_array = hasattr(value, "shape") and hasattr(value, "dtype")
    return value if is_array and not isinstance(value, np.generic) else None


def read_source(source: str | Path) -> Mapping[str, Any]:
    """Return the content of a file, a repository of the hub, or a directory of checkpoints.

    Raises:
        ValueError: The source cannot be read.
        ImportError: A package that the source needs is not installed.
    """
    # Imported here, so that weights from memory do not need the libraries that read files.
    from resnet_jax.weights.formats.checkpoints import is_msgpack, read_msgpack, read_orbax
    from resnet_jax.weights.formats.files import read_tensors
    from resnet_jax.weights.hub import fetch, weight_file

    if isinstance(source, str) and source.startswith("hf:"):
        return read_tensors(fetch(source))
    if isinstance(source, str) and source.startswith(("http://", "https://")):
        raise ValueError(
            f"{source}: web addresses are not supported; download the file, or give hf://OWNER/NAME"
        )
    path = Path(source).expanduser()
    if not path.exists() and (published := list_pretrained(str(source))):
        raise ValueError(f"{source}: there is no such file; did you mean {published[0].source}?")
    if path.is_dir():
        weights = weight_file(path)
        return read_orbax(path)[0] if weights is None else read_tensors(weights)
    if path.is_file():
        with path.open("rb") as file:
            if is_msgpack(file.read(2)):
                return read_msgpack(path)
    return read_tensors(path)

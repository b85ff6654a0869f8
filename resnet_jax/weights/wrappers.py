"""Removal of the wrappers that PyTorch training scripts put around a state dict."""

from collections.abc import Mapping
from typing import Any

# Keys under which training scripts store the state dict.  Averaged weights come first, as in timm,
# because they are the ones that such a script evaluates.
_NESTED_KEYS = ("state_dict_ema", "model_ema", "state_dict", "model")
# Name prefixes added by Lightning, DistributedDataParallel and torch.compile.
_PREFIXES = ("model.", "module.", "_orig_mod.")
# `torch.optim.swa_utils.AveragedModel` stores the number of averaged steps beside the weights.
_AVERAGE_COUNT = "n_averaged"


def innermost(content: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """Return the state dict inside a checkpoint such as ``{"state_dict": ..., "epoch": 3}``."""
    for key in _NESTED_KEYS:
        if isinstance(content.get(key), Mapping):
            return content[key]
    return content


def without_prefixes(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tensors without any wrapper prefix that all of their names share.

    >>> without_prefixes({"module.fc.weight": 1, "module.fc.bias": 2})
    {'fc.weight': 1, 'fc.bias': 2}
    """
    bare = {name: tensor for name, tensor in tensors.items() if name != _AVERAGE_COUNT}
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in bare):
            bare = {name.removeprefix(prefix): tensor for name, tensor in bare.items()}
    return bare

"""Translation between our variables and the state dicts of torchvision and timm.

Our path ``params/stage1/block1/shortcut/conv/kernel`` is ``layer1.0.downsample.0.weight`` in
PyTorch.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from resnet_jax.models import ResNet, unstack_blocks
from resnet_jax.models.attention import SelectiveKernel, SqueezeExcite
from resnet_jax.models.blocks import PostActivationBlock
from resnet_jax.models.shortcuts import AveragePoolShortcut, PooledShortcut
from resnet_jax.weights.dialects.renaming import Rules, renamed

_BLOCK = r"stage(?P<stage>\d+)/block(?P<block>\d+)/"

_STEM: Rules = (
    (r"stem/conv", "conv1"),
    (r"stem/norm", "bn1"),
    # A deep stem is a sequence, and its last normalization is outside of the sequence.
    (r"stem/conv1", "conv1.0"),
    (r"stem/norm1", "conv1.1"),
    (r"stem/conv2", "conv1.3"),
    (r"stem/norm2", "conv1.4"),
    (r"stem/conv3", "conv1.6"),
    (r"stem/norm3", "bn1"),
    (r"stem_pool/conv", "maxpool.0"),
    (r"stem_pool/norm", "maxpool.1"),
    (r"head", "fc"),
)
_ATTENTION: Rules = (
    (_BLOCK + "attention/reduce", "layer{stage}.{block0}.se.fc1"),
    (_BLOCK + "attention/expand", "layer{stage}.{block0}.se.fc2"),
    (_BLOCK + "attention/conv", "layer{stage}.{block0}.se.conv"),
)
_ATTENTION_WITHOUT_BIAS: Rules = (
    (_BLOCK + "attention/reduce", "layer{stage}.{block0}.se.fc.0"),
    (_BLOCK + "attention/expand", "layer{stage}.{block0}.se.fc.2"),
)
_INSTANCE_NORM: Rules = (
    (_BLOCK + r"norm(?P<n>\d)/instance", "layer{stage}.{block0}.bn{n}.IN"),
    (_BLOCK + r"norm(?P<n>\d)/batch", "layer{stage}.{block0}.bn{n}.BN"),
    (_BLOCK + r"output_norm", "layer{stage}.{block0}.IN"),
)
_PLAIN: Rules = (
    (_BLOCK + r"conv(?P<n>\d)", "layer{stage}.{block0}.conv{n}"),
    (_BLOCK + r"norm(?P<n>\d)", "layer{stage}.{block0}.bn{n}"),
)
_SPLIT_ATTENTION: Rules = (
    (_BLOCK + r"conv2/conv", "layer{stage}.{block0}.conv2.conv"),
    (_BLOCK + r"conv2/norm", "layer{stage}.{block0}.conv2.bn0"),
    (_BLOCK + r"conv2/reduce", "layer{stage}.{block0}.conv2.fc1"),
    (_BLOCK + r"conv2/reduce_norm", "layer{stage}.{block0}.conv2.bn1"),
    (_BLOCK + r"conv2/expand", "layer{stage}.{block0}.conv2.fc2"),
)
_MULTI_SCALE: Rules = (
    (_BLOCK + r"conv2/conv(?P<n>\d+)", "layer{stage}.{block0}.convs.{n0}"),
    (_BLOCK + r"conv2/norm(?P<n>\d+)", "layer{stage}.{block0}.bns.{n0}"),
)
_SELECTIVE_KERNEL: Rules = (
    (_BLOCK + r"conv(?P<n>\d)", "layer{stage}.{block0}.conv{n}.conv"),
    (_BLOCK + r"norm(?P<n>\d)", "layer{stage}.{block0}.conv{n}.bn"),
    (
        _BLOCK + r"conv(?P<n>\d)/path(?P<path>\d)/conv",
        "layer{stage}.{block0}.conv{n}.paths.{path0}.conv",
    ),
    (
        _BLOCK + r"conv(?P<n>\d)/path(?P<path>\d)/norm",
        "layer{stage}.{block0}.conv{n}.paths.{path0}.bn",
    ),
    (
        _BLOCK + r"conv(?P<n>\d)/attention/reduce",
        "layer{stage}.{block0}.conv{n}.attn.fc_reduce",
    ),
    (_BLOCK + r"conv(?P<n>\d)/attention/norm", "layer{stage}.{block0}.conv{n}.attn.bn"),
    (
        _BLOCK + r"conv(?P<n>\d)/attention/select",
        "layer{stage}.{block0}.conv{n}.attn.fc_select",
    ),
)
_PREACTIVATION: Rules = (
    (r"stem/(?P<layer>(conv|norm)\d?)", "stem.{layer}"),
    (
        _BLOCK + r"(?P<layer>(conv|norm)\d)",
        "stages.{stage0}.blocks.{block0}.{layer}",
    ),
    (_BLOCK + r"shortcut/conv", "stages.{stage0}.blocks.{block0}.downsample.conv"),
    (r"final_norm", "norm"),
    (r"head", "head.fc"),
)

_NORMALIZER_FREE: Rules = (
    (_BLOCK.removesuffix("/"), "stages.{stage0}.{block0}"),
    (r"stem/(?P<layer>conv\d?)", "stem.{layer}"),
    (_BLOCK + r"(?P<layer>conv\d)", "stages.{stage0}.{block0}.{layer}"),
    (_BLOCK + r"shortcut/conv", "stages.{stage0}.{block0}.downsample.conv"),
    (_BLOCK + "attention/reduce", "stages.{stage0}.{block0}.attn_last.fc1"),
    (_BLOCK + "attention/expand", "stages.{stage0}.{block0}.attn_last.fc2"),
    (_BLOCK + "attention/conv", "stages.{stage0}.{block0}.attn_last.conv"),
    (r"head", "head.fc"),
)
_CLIP_CONVS: Rules = tuple(
    rule
    for n, kind in ((1, "1x1"), (2, "kxk"), (3, "1x1"))
    for rule in (
        (f"{_BLOCK}conv{n}", f"stages.{{stage0}}.{{block0}}.conv{n}_{kind}.conv"),
        (f"{_BLOCK}norm{n}", f"stages.{{stage0}}.{{block0}}.conv{n}_{kind}.bn"),
    )
)
_CLIP: Rules = (
    (r"stem/conv(?P<n>\d)", "stem.conv{n}.conv"),
    (r"stem/norm(?P<n>\d)", "stem.conv{n}.bn"),
    *_CLIP_CONVS,
    (_BLOCK + "shortcut/conv", "stages.{stage0}.{block0}.shortcut.conv.conv"),
    (_BLOCK + "shortcut/norm", "stages.{stage0}.{block0}.shortcut.conv.bn"),
)
_CLIP_ATTENTION: Rules = (
    (r"attention_pool", "head"),
    (r"attention_pool/query", "head.q"),
    (r"attention_pool/key", "head.k"),
    (r"attention_pool/value", "head.v"),
    (r"head", "head.proj"),
)

# Dense layers that are `nn.Linear` in PyTorch; all others are 1x1 convolutions.
_LINEAR = ("fc.weight", "head.q.weight", "head.k.weight", "head.v.weight", "head.proj.weight")
_POSITIONS = "head.pos_embed"

_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "slope": "v",
    "threshold": "tau",
    "mean": "running_mean",
    "var": "running_var",
    "gain": "gain",
    "skip_gain": "skipinit_gain",
    "position_embedding": "pos_embed",
}


def torch_rules(model: ResNet) -> Rules:
    """Return the rules that rename the modules of a network to those of PyTorch."""
    block = model.unbound_block
    if not block.normalized:
        return _NORMALIZER_FREE
    if not isinstance(block, PostActivationBlock):
        return _PREACTIVATION
    if issubclass(model.shortcut, PooledShortcut):
        pools = isinstance(model.global_pool, str)
        return _CLIP + (((r"head", "head.fc"),) if pools else _CLIP_ATTENTION)
    selects = isinstance(block.unbound_spatial_unit, SelectiveKernel)
    spatial = _SELECTIVE_KERNEL if selects else _SPLIT_ATTENTION + _MULTI_SCALE + _PLAIN
    gate = block.attention(parent=None) if block.attention else None
    biased = not isinstance(gate, SqueezeExcite) or gate.use_bias
    attention = _ATTENTION if biased else _ATTENTION_WITHOUT_BIAS
    # Index 0 of a pooling shortcut is its pooling layer, even if that layer does nothing.
    first = 1 if issubclass(model.shortcut, AveragePoolShortcut) else 0
    shortcut = (
        (_BLOCK + "shortcut/conv", f"layer{{stage}}.{{block0}}.downsample.{first}"),
        (_BLOCK + "shortcut/norm", f"layer{{stage}}.{{block0}}.downsample.{first + 1}"),
    )
    return _STEM + shortcut + attention + _INSTANCE_NORM + spatial


def torch_name(path: Sequence[str], rules: Rules) -> str:
    """Return the name of one of our variables in a PyTorch state dict.

    Args:
        path: Collection, modules and leaf, such as ``("params", "head", "kernel")``.
        rules: The rules of the network, from `torch_rules`.

    Returns:
        The name in PyTorch, or the path joined by slashes if PyTorch has no such variable.
    """
    _, *modules, leaf = path
    theirs = renamed("/".join(modules), rules)
    if theirs is None or leaf not in _LEAVES:
        return "/".join(path)
    return f"{theirs}.{_LEAVES[leaf]}"


def to_state_dict(variables: Mapping[str, Any], rules: Rules) -> dict[str, np.ndarray]:
    """Return our variables as a PyTorch state dict of float32 arrays.

    Args:
        variables: Variables of a network, whose repeated blocks may be stacked.
        rules: The rules of the network, from `torch_rules`.

    Returns:
        PyTorch's names, mapped to arrays in PyTorch's layout.  A variable that PyTorch does not
        have is included under its path, see `torch_name`.
    """
    tensors = {}
    for keys, leaf in jax.tree_util.tree_leaves_with_path(unstack_blocks(variables)):
        name = torch_name([key.key for key in keys], rules)
        tensors[name] = to_torch_layout(np.asarray(leaf, np.float32), name, rules)
    return tensors


def from_torch_layout(array: np.ndarray, ndim: int, name: str) -> np.ndarray:
    """Return a PyTorch tensor in our layout, as a view.

    [O, I, H, W] becomes [H, W, I, O], [O, I, K] becomes [K, I, O], and [O, I] becomes [I, O].  We
    use a dense layer instead of a 1x1 convolution on single pixels: [O, I, 1, 1] becomes [I, O].

    Args:
        array: The tensor.
        ndim: Number of dimensions in our layout.
        name: Its name in PyTorch.  The position embedding, [tokens, C], has the same layout.
    """
    if name == _POSITIONS:
        return array
    if ndim == 1 and array.ndim == 4:  # A gain, [O, 1, 1, 1].
        return array.reshape(-1) if array.shape[1:] == (1, 1, 1) else array
    if ndim == 2 and array.ndim == 4 and array.shape[2:] == (1, 1):
        array = array[:, :, 0, 0]
    if array.ndim < 2:
        return array
    return array.transpose(*range(2, array.ndim), 1, 0)


def to_torch_layout(array: np.ndarray, name: str, rules: Rules) -> np.ndarray:
    """Return one of our arrays in PyTorch's layout; the inverse of `from_torch_layout`.

    Args:
        array: The variable.
        name: Its name in PyTorch, where most of our dense layers are 1x1 convolutions.
        rules: The rules of the network.
    """
    if name.endswith(".gain"):
        return array[:, None, None, None]
    if array.ndim < 2 or name == _POSITIONS:
        return array
    # Of the heads with this name, only that of the pre-activation networks is a convolution.
    linear = (
        name in _LINEAR
        or ".se.fc." in name  # `_ATTENTION_WITHOUT_BIAS`
        or (name == "head.fc.weight" and rules is not _PREACTIVATION)
    )
    convolves = array.ndim == 2 and not linear
    array = array.transpose(-1, -2, *range(array.ndim - 2))
    return array[:, :, None, None] if convolves else array

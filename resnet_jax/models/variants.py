"""The members of the family by name: a row of data each."""

import difflib
import fnmatch
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

from resnet_jax.models.blocks import BasicBlock, BottleneckBlock
from resnet_jax.models.layers import PadShortcut
from resnet_jax.models.resnet import ResNet

_cifar = partial(
    ResNet,
    block=BasicBlock,
    num_classes=10,
    width=16,
    stem_kernel_size=3,
    stem_stride=1,
    stem_pool=False,
    shortcut=PadShortcut,
)

# ImageNet: He et al. 2015, table 1, under the names of torchvision.  CIFAR: section 4.2, where
# a network of 6n + 2 layers has three stages of n blocks.
_VARIANTS: Mapping[str, partial[ResNet]] = MappingProxyType(
    {
        "resnet18": partial(ResNet, (2, 2, 2, 2), BasicBlock),
        "resnet34": partial(ResNet, (3, 4, 6, 3), BasicBlock),
        "resnet50": partial(ResNet, (3, 4, 6, 3), BottleneckBlock),
        "resnet101": partial(ResNet, (3, 4, 23, 3), BottleneckBlock),
        "resnet152": partial(ResNet, (3, 8, 36, 3), BottleneckBlock),
        "cifar_resnet20": partial(_cifar, (3, 3, 3)),
        "cifar_resnet32": partial(_cifar, (5, 5, 5)),
        "cifar_resnet44": partial(_cifar, (7, 7, 7)),
        "cifar_resnet56": partial(_cifar, (9, 9, 9)),
        "cifar_resnet110": partial(_cifar, (18, 18, 18)),
        "cifar_resnet1202": partial(_cifar, (200, 200, 200)),
    }
)


def list_models(pattern: str = "*") -> list[str]:
    """Names that `create_model` accepts and that match a shell pattern, in natural order.

    >>> list_models("resnet1*")
    ['resnet18', 'resnet101', 'resnet152']
    """
    return [name for name in _VARIANTS if fnmatch.fnmatchcase(name, pattern)]


def create_model(name: str, **overrides: Any) -> ResNet:
    """The network of that name, as an unbound Linen module.

    Args:
        name: one of `list_models`.
        **overrides: fields of `ResNet` to set otherwise, such as ``num_classes`` and ``dtype``.

    Returns:
        A module: ``model.init(key, images, train=False)`` makes its variables and
        ``model.apply(variables, images, train=False)`` its logits.

    Raises:
        ValueError: the name is unknown; the message names the nearest known ones.
        TypeError: `ResNet` has no field of that name.
    """
    if name not in _VARIANTS:
        near = difflib.get_close_matches(name, _VARIANTS, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "see list_models()."
        raise ValueError(f"unknown model {name!r}: {hint}")
    return _VARIANTS[name](**overrides)

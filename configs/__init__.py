"""The experiments: one file each, named here for the command line."""

import inspect
from types import ModuleType

from configs import (
    cifar10_resnet20,
    cifar10_resnet56,
    cifar100_resnet110,
    digits_resnet20,
    folder_resnet50,
    imagenet_resnet18,
    imagenet_resnet50,
    synthetic_resnet50,
)
from resnet_jax.config import TrainConfig

_MODULES: tuple[ModuleType, ...] = (
    digits_resnet20,
    cifar10_resnet20,
    cifar10_resnet56,
    cifar100_resnet110,
    imagenet_resnet18,
    imagenet_resnet50,
    folder_resnet50,
    synthetic_resnet50,
)


def _name(module: ModuleType) -> str:
    return module.__name__.rpartition(".")[2].replace("_", "-")


EXPERIMENTS: dict[str, TrainConfig] = {_name(module): module.CONFIG for module in _MODULES}
"""Configurations by the name that `train.py` knows them under; the first is its default."""

DESCRIPTIONS: dict[str, str] = {_name(module): inspect.getdoc(module) or "" for module in _MODULES}
"""What each experiment is, with its source and its command."""

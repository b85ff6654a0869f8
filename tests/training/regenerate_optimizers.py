"""Recompute the reference values of the optimizers with PyTorch, torchvision and timm.

    python -m tests.training.regenerate_optimizers

It needs an environment of its own, because the project does not depend on PyTorch:

    python -m venv .venv
    .venv/bin/pip install torch==2.13.0 torchvision==0.28.0 timm==1.0.31 numpy

`optimizer_values.npz` gets the parameters after 20 steps in float64, and `decay_groups.json` the
parameters that decay. What no Python package has is transcribed from the files that are named.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torchvision
from timm.optim import SGDW, Lamb, Lars, Lion, RMSpropTF, param_groups_weight_decay
from timm.utils.agc import adaptive_clip_grad
from torch import Tensor, nn

from tests.training.optimizer_cases import PEAKS, gradients, parameters, rates

DIRECTORY = Path(__file__).parent
Tree = dict[tuple[str, ...], Tensor]
Step = Callable[[float], None]


def to_torch(array: np.ndarray) -> Tensor:
    """Return an array in PyTorch's layout: [H, W, I, O] as [O, I, H, W], [I, O] as [O, I]."""
    axes = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[array.ndim]
    return torch.from_numpy(np.ascontiguousarray(array.transpose(axes)))


def from_torch(tensor: Tensor) -> np.ndarray:
    """Return a tensor in our layout."""
    axes = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}[tensor.ndim]
    return tensor.detach().numpy().transpose(axes)


def trained(peak: float, create: Callable[[Tree], Step]) -> list[np.ndarray]:
    """Return the parameters after all steps.

    Args:
        peak: Peak learning rate.
        create: From the parameters to a function that makes a step, given the learning rate.
    """
    params = {path: nn.Parameter(to_torch(array)) for path, array in parameters().items()}
    step = create(params)
    for number, rate in enumerate(rates(peak)):
        for path, gradient in gradients(number).items():
            params[path].grad = to_torch(gradient)
        with torch.no_grad():
            step(float(rate))
    return [from_torch(tensor) for tensor in params.values()]


def decayed(params: Tree) -> list[Tensor]:
    """Return the parameters that timm decays."""
    return [tensor for tensor in params.values() if tensor.ndim > 1]


def vectors(params: Tree) -> list[Tensor]:
    """Return the parameters that timm does not decay."""
    return [tensor for tensor in params.values() if tensor.ndim <= 1]


def groups(params: Tree, weight_decay: float) -> list[dict[str, Any]]:
    """Return the groups of `timm.optim.param_groups_weight_decay`."""
    return [
        {"params": decayed(params), "weight_decay": weight_decay},
        {"params": vectors(params), "weight_decay": 0.0},
    ]


def stepping(*optimizers: torch.optim.Optimizer, shares: Iterable[float] = (1.0,)) -> Step:
    """Return a function that makes a step of each optimizer at a share of the learning rate."""

    def step(rate: float) -> None:
        for optimizer, share in zip(optimizers, shares, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * share
            optimizer.step()

    return step


def of(cls: Any, weight_decay: float, **options: Any) -> Callable[[Tree], Step]:
    """Return the maker of an optimizer of PyTorch or timm."""
    return lambda params: stepping(cls(groups(params, weight_decay), lr=1.0, **options))


def composer_sgdw(params: Tree, *, nesterov: bool) -> Step:
    """`DecoupledSGDW.sgdw` of composer/optim/decoupled_weight_decay.py."""
    momentum, weight_decay, initial_lr = 0.875, 5e-3, PEAKS["sgd_schedule"]
    buffers: dict[int, Tensor] = {}

    def step(lr: float) -> None:
        for i, param in enumerate(params.values()):
            d_p = param.grad
            if i in buffers:
                buffers[i].mul_(momentum).add_(d_p)
            else:
                buffers[i] = d_p.clone()
            d_p = d_p.add(buffers[i], alpha=momentum) if nesterov else buffers[i]
            param.mul_(1 - lr / initial_lr * weight_decay)
            param.add_(d_p, alpha=-lr)

    return step


def sgd_bfloat16(params: Tree) -> Step:
    """`optax.trace` with ``accumulator_dtype``, as big_vision's configurations use it.

    JAX converts the momentum to the type of the array that it multiplies.
    """
    momentum = torch.tensor(0.9, dtype=torch.bfloat16)
    buffers = {path: torch.zeros_like(p, dtype=torch.bfloat16) for path, p in params.items()}

    def step(lr: float) -> None:
        for path, param in params.items():
            update = param.grad + momentum * buffers[path]
            buffers[path] = update.bfloat16()
            param.sub_(lr * update)

    return step


def tensorflow_lars(params: Tree, *, nesterov: bool) -> Step:
    """TensorFlow's and MLPerf's LARS.

    `LARSOptimizer` of tensorflow/contrib/opt/python/training/lars_optimizer.py in TensorFlow 1.15,
    of which retired_benchmarks/resnet-tf2 in mlcommons/training has a copy.
    ``ApplyMomentum`` is called with a learning rate of 1.
    """
    momentum, weight_decay, eeta, epsilon = 0.9, 5e-2, 0.001, 0.0
    buffers = {path: torch.zeros_like(param) for path, param in params.items()}

    def step(lr: float) -> None:
        for path, var in params.items():
            grad, scaled_lr = var.grad, lr
            # The skip list: ['batch_normalization', 'bias'].
            if "norm" not in path and path[-1] != "bias":
                w_norm, g_norm = var.norm(), grad.norm()
                scaled_lr = lr * (eeta * w_norm / (g_norm + weight_decay * w_norm + epsilon))
                grad = grad + weight_decay * var
            grad = grad * scaled_lr
            buffers[path] = momentum * buffers[path] + grad
            var.sub_(grad + momentum * buffers[path] if nesterov else buffers[path])

    return step


def newton_schulz(matrix: Tensor, steps: int) -> Tensor:
    """`zeropower_via_newtonschulz5` of KellerJordan/Muon/muon.py, without bfloat16."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix.mT if matrix.size(-2) > matrix.size(-1) else matrix
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if matrix.size(-2) > matrix.size(-1) else x


def muon(
    params: Tree,
    others: torch.optim.Optimizer,
    *,
    momentum: float,
    steps: int = 5,
    nesterov: bool = True,
    weight_decay: float = 0.0,
    match_adamw: bool = False,
    renormalize: bool = False,
) -> Step:
    """`SingleDeviceMuonWithAuxAdam` of KellerJordan/Muon/muon.py.

    `match_adamw` is that of `get_lr_scale` of timm/optim/muon.py, and `renormalize` that of
    KellerJordan/cifar10-airbench/airbench94_muon.py.
    """
    filters = [param for param in params.values() if param.ndim == 4]
    buffers = [torch.zeros_like(param) for param in filters]
    step_others = stepping(others, shares=[0.3])

    def step(lr: float) -> None:
        for param, buffer in zip(filters, buffers, strict=True):
            grad = param.grad
            buffer.lerp_(grad, 1 - momentum)
            update = grad.lerp(buffer, momentum) if nesterov else buffer
            matrix = update.reshape(len(update), -1)
            scale = max(1, grad.size(-2) / grad.size(-1)) ** 0.5
            scale *= 0.2 * max(matrix.shape) ** 0.5 if match_adamw else 1.0
            update = newton_schulz(matrix, steps) * scale
            if renormalize:
                param.mul_(len(param) ** 0.5 / param.norm())
            param.mul_(1 - lr * weight_decay)
            param.add_(update.view(param.shape), alpha=-lr)
        step_others(lr)

    return step


def others_of(params: Tree, weight_decay: float) -> list[dict[str, Any]]:
    """Return the groups of the parameters that are not kernels of convolutions."""
    return groups({path: p for path, p in params.items() if p.ndim < 4}, weight_decay)


def muon_with_adamw(params: Tree) -> Step:
    others = torch.optim.AdamW(others_of(params, 0.1), lr=1.0, betas=(0.9, 0.95), eps=1e-10)
    return muon(params, others, momentum=0.95, weight_decay=0.1)


def muon_with_sgd(params: Tree) -> Step:
    others = torch.optim.SGD(others_of(params, 0.02), lr=1.0, momentum=0.85, nesterov=True)
    return muon(params, others, momentum=0.6, steps=3, renormalize=True)


def muon_that_matches_adamw(params: Tree) -> Step:
    others = torch.optim.AdamW(others_of(params, 0.0), lr=1.0, betas=(0.9, 0.95), eps=1e-10)
    return muon(params, others, momentum=0.9, nesterov=False, match_adamw=True)


def clipped(clip: Callable[[list[Tensor]], None], *, head: bool) -> Callable[[Tree], Step]:
    """Return the maker of SGD whose gradients are clipped, without those of the head or with."""

    def create(params: Tree) -> Step:
        sgd = stepping(torch.optim.SGD(groups(params, 0.0), lr=1.0, momentum=0.9))

        def step(rate: float) -> None:
            clip([param for path, param in params.items() if head or path[0] != "head"])
            sgd(rate)

        return step

    return create


CASES: dict[str, tuple[str, Callable[[Tree], Step]]] = {
    "sgd": ("sgd", of(torch.optim.SGD, 0.05, momentum=0.9, nesterov=False)),
    "sgd_nesterov": ("sgd", of(torch.optim.SGD, 0.05, momentum=0.9, nesterov=True)),
    "sgd_plain": ("sgd", of(torch.optim.SGD, 0.05)),
    "sgd_decoupled": ("sgdw", of(SGDW, 0.05, momentum=0.9, nesterov=False)),
    "sgd_decoupled_nesterov": ("sgdw", of(SGDW, 0.05, momentum=0.9, nesterov=True)),
    "sgd_schedule": ("sgd_schedule", lambda params: composer_sgdw(params, nesterov=False)),
    "sgd_schedule_nesterov": ("sgd_schedule", lambda params: composer_sgdw(params, nesterov=True)),
    "sgd_bfloat16": ("sgd_bfloat16", sgd_bfloat16),
    "adamw": ("adamw", of(torch.optim.AdamW, 0.2, betas=(0.9, 0.98), eps=1e-8)),
    "lamb": ("lamb", of(Lamb, 0.2)),
    "lamb_trust_clip": ("lamb", of(Lamb, 0.2, trust_clip=True, max_grad_norm=None)),
    "lars_timm": ("lars", of(Lars, 5e-2, momentum=0.9)),
    "lars_timm_nesterov": ("lars", of(Lars, 5e-2, momentum=0.9, nesterov=True)),
    "lars_tensorflow": ("lars", lambda params: tensorflow_lars(params, nesterov=False)),
    "lars_tensorflow_nesterov": ("lars", lambda params: tensorflow_lars(params, nesterov=True)),
    "rmsprop": ("rmsprop", of(RMSpropTF, 0.05, alpha=0.9, momentum=0.9, eps=1e-3)),
    "rmsprop_without_momentum": ("rmsprop", of(RMSpropTF, 0.05, alpha=0.95, eps=1e-10)),
    "lion": ("lion", of(Lion, 0.2)),
    "muon_adamw": ("muon", muon_with_adamw),
    "muon_sgd_renormalized": ("muon", muon_with_sgd),
    "muon_match_adamw": ("muon", muon_that_matches_adamw),
    "clip_value": ("sgd", clipped(lambda p: nn.utils.clip_grad_value_(p, 0.05), head=True)),
    "clip_adaptive": ("sgd", clipped(lambda p: adaptive_clip_grad(p, 0.1), head=False)),
}
"""Peak learning rate and optimizer of each case."""


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet18": torchvision.models.resnet18,
    **{
        name: lambda name=name: timm.create_model(name)
        for name in ("seresnext26d_32x4d", "resnet50_gn", "resnetv2_18")
    },
}


def torchvision_norms(model: nn.Module) -> set[int]:
    """Return the ids of the parameters that torchvision does not decay.

    `set_weight_decay` of references/classification/utils.py with ``--norm-weight-decay 0``.
    """
    norms = (
        nn.modules.batchnorm._BatchNorm,
        nn.LayerNorm,
        nn.GroupNorm,
        nn.modules.instancenorm._InstanceNorm,
        nn.LocalResponseNorm,
    )
    return {
        id(param)
        for module in model.modules()
        if isinstance(module, norms)
        for param in module.parameters(recurse=False)
    }


def spared(name: str, model: nn.Module) -> dict[str, list[str]]:
    """Return the names of the parameters that do not decay, by the value of ``decay_on``."""
    names = {id(param): name for name, param in model.named_parameters()}
    without, _ = param_groups_weight_decay(model, 1e-4)
    norms = torchvision_norms(model)
    lists = {
        "kernels": [names[id(param)] for param in without["params"]],
        "all_but_norm": [name for key, name in names.items() if key in norms],
    }
    if name.startswith("resnetv2"):
        # timm calls its normalization layers "norm", and FFCV and NVIDIA have no such network.
        return lists
    # `create_optimizer` of ffcv-imagenet/train_imagenet.py, and `get_sgd_optimizer` of NVIDIA's
    # DeepLearningExamples/PyTorch/Classification/ConvNets/image_classification/optimizers.py.
    return lists | {"all_but_named_norm": [name for name in names.values() if "bn" in name]}


def main() -> None:
    """Write both files."""
    values = {
        name: np.concatenate([array.ravel() for array in trained(PEAKS[optimizer], create)])
        for name, (optimizer, create) in CASES.items()
    }
    np.savez_compressed(DIRECTORY / "optimizer_values.npz", **values)
    lists = {name: spared(name, create()) for name, create in NETWORKS.items()}
    (DIRECTORY / "decay_groups.json").write_text(json.dumps(lists, indent=0) + "\n")


if __name__ == "__main__":
    main()

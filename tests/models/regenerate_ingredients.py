"""Rewrites `ingredient_values.npz`: DropBlock and stochastic depth of timm, BlurPool of FFCV.

    python -m tests.models.regenerate_ingredients

It needs torch, torchvision and timm in an environment of their own; `tests/golden/regenerate.py`
says how to make one.  The file was written with torch 2.14.1, torchvision 0.29.1 and timm 1.0.31.
BlurPool is transcribed from ``train_imagenet.py`` of libffcv/ffcv-imagenet and from
``blurpool_layers.py`` of mosaicml/composer, which blur the input of strided convolutions equally.
"""

from typing import Any
from unittest import mock

import numpy as np
import timm
import torch
from timm.layers.drop import drop_block_2d
from torch import nn
from torch.nn import functional

from tests.golden import golden
from tests.models.ingredient_cases import (
    BLURRED,
    BLURRED_SIZE,
    DROP_BLOCK,
    NETWORK,
    RATES,
    VALUES,
    noise,
    pixels,
)


def bernoulli_(tensor: torch.Tensor, probability: float) -> torch.Tensor:
    """Fill a tensor (B, 1, H, W) or (B, 1, 1, 1) with `noise` of the shape (B, H, W, 1)."""
    batch, _, height, width = tensor.shape
    drawn = noise((batch, height, width, 1), probability)
    return tensor.copy_(torch.from_numpy(drawn).permute(0, 3, 1, 2))


class BlurredConv(nn.Module):
    """A convolution after a binomial filter."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the output for (B, C, H, W)."""
        return self.conv(blur(x, 1))


class BlurredMaxPool(nn.Module):
    """Composer's max-pooling with a binomial filter before it subsamples."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the output for (B, C, H, W)."""
        return blur(functional.max_pool2d(x, 3, 1, 1), 2)


def blur(x: torch.Tensor, stride: int) -> torch.Tensor:
    row = torch.tensor([1.0, 2.0, 1.0], dtype=x.dtype)
    kernel = (row[:, None] * row / 16).repeat(x.shape[1], 1, 1, 1)
    return functional.conv2d(x, kernel, stride=stride, padding=1, groups=x.shape[1])


def replace_strided(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d) and max(child.stride) > 1 and child.in_channels >= 16:
            setattr(module, name, BlurredConv(child))
        else:
            replace_strided(child)


def network(name: str, **options: Any) -> nn.Module:
    """Return a float64 network with golden weights."""
    model = timm.create_model(name, num_classes=10, **options).double()
    for name, tensor in model.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            tensor.copy_(torch.from_numpy(golden.tensor(name, tuple(tensor.shape))))
    return model


def images(batch: int, size: Any) -> torch.Tensor:
    return torch.from_numpy(golden.images(batch, size)).double().permute(0, 3, 1, 2)


def main() -> None:
    """Compute the values of every case and write the file."""
    values = {}
    with mock.patch.object(torch.Tensor, "bernoulli_", bernoulli_), torch.no_grad():
        for i, case in enumerate(DROP_BLOCK):
            x = torch.from_numpy(pixels(case)).permute(0, 3, 1, 2)
            y = drop_block_2d(x, case.rate, case.size, case.gamma_scale)
            values[f"drop_block/{i}"] = y.permute(0, 2, 3, 1).numpy()
        for rates in RATES:
            (name,) = rates
            model = network(NETWORK, **rates).train()
            values[name] = model(images(8, 96)).numpy()
        for kind in BLURRED:
            model = network("resnet18", layers=(1, 1, 1, 1)).eval()
            replace_strided(model)
            if kind == "composer":
                model.maxpool = BlurredMaxPool()
            values[kind] = model(images(2, BLURRED_SIZE)).numpy()
    np.savez_compressed(VALUES, **values)


if __name__ == "__main__":
    main()

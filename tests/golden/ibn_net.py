"""The networks of IBN-Net in PyTorch, which no package provides.

Written after https://github.com/XingangPan/IBN-Net (commit d167338): the same modules under the
same names, so that its published state dicts fit.
"""

from collections.abc import Sequence

import torch
from torch import nn

_DEPTHS = {
    "18": (2, 2, 2, 2),
    "34": (3, 4, 6, 3),
    "50": (3, 4, 6, 3),
    "101": (3, 4, 23, 3),
    "152": (3, 8, 36, 3),
}

NAMES = (
    *(f"resnet{depth}_ibn_a" for depth in _DEPTHS),
    *(
        f"{kind}{depth}_ibn_a"
        for kind in ("resnext", "se_resnet")
        for depth in ("50", "101", "152")
    ),
    *(f"resnet{depth}_ibn_b" for depth in _DEPTHS),
)
"""The names of the functions that build them there."""


class IBN(nn.Module):
    """Instance normalization of half of the channels, and batch normalization of the others."""

    def __init__(self, planes: int) -> None:
        super().__init__()
        self.half = planes // 2
        self.IN = nn.InstanceNorm2d(self.half, affine=True)
        self.BN = nn.BatchNorm2d(planes - self.half)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # noqa: D102
        first, second = torch.split(x, self.half, 1)
        return torch.cat((self.IN(first), self.BN(second)), 1)


class SELayer(nn.Module):
    """Squeeze-and-excitation without biases."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(channels, channels // 16, bias=False),
            nn.ReLU(),
            nn.Linear(channels // 16, channels, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # noqa: D102
        return x * self.fc(x.mean((2, 3)))[:, :, None, None]


class Block(nn.Module):
    """A basic block, or a bottleneck with groups and attention."""

    def __init__(
        self,
        inplanes: int,
        planes: int,
        stride: int,
        ibn: str | None,
        *,
        bottleneck: bool,
        cardinality: int,
        attention: bool,
    ) -> None:
        super().__init__()
        outplanes = planes * (4 if bottleneck else 1)
        width = planes * 4 // 64 * cardinality if cardinality > 1 else planes
        if bottleneck:
            sizes = ((inplanes, width, 1), (width, width, 3), (width, outplanes, 1))
        else:
            sizes = ((inplanes, width, 3), (width, outplanes, 3))
        self.depth = len(sizes)
        for i, (before, after, kernel_size) in enumerate(sizes, start=1):
            conv = nn.Conv2d(
                before,
                after,
                kernel_size,
                stride if i == self.depth - 1 else 1,
                kernel_size // 2,
                groups=cardinality if bottleneck and i == 2 else 1,
                bias=False,
            )
            self.add_module(f"conv{i}", conv)
            norm = IBN(after) if ibn == "a" and i == 1 else nn.BatchNorm2d(after)
            self.add_module(f"bn{i}", norm)
        self.IN = nn.InstanceNorm2d(outplanes, affine=True) if ibn == "b" else None
        self.se = SELayer(outplanes) if attention else None
        self.downsample = None
        if stride != 1 or inplanes != outplanes:
            self.downsample = nn.Sequential(
                nn.Conv2d(inplanes, outplanes, 1, stride, bias=False), nn.BatchNorm2d(outplanes)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # noqa: D102
        out = x
        for i in range(1, self.depth + 1):
            out = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(out))
            if i < self.depth:
                out = out.relu()
        if self.se is not None:
            out = self.se(out)
        out = out + (x if self.downsample is None else self.downsample(x))
        if self.IN is not None:
            out = self.IN(out)
        return out.relu()


class ResNet(nn.Module):
    """The network; pooling is over the whole last map, which is 7x7 there."""

    def __init__(
        self, sizes: Sequence[int], ibn: tuple[str | None, ...], num_classes: int, **kind: object
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.InstanceNorm2d(64, affine=True) if ibn[0] == "b" else nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inplanes = 64
        for i, size in enumerate(sizes):
            planes, blocks = 64 * 2**i, []
            for j in range(size):
                # IBN-Net-b normalizes the end of a stage, and not the only block of one.
                here = None if ibn[i] == "b" and (j == 0 or j < size - 1) else ibn[i]
                stride = 2 if i > 0 and j == 0 else 1
                blocks.append(Block(inplanes, planes, stride, here, **kind))
                inplanes = planes * (4 if kind["bottleneck"] else 1)
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(inplanes, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # noqa: D102
        x = self.maxpool(self.bn1(self.conv1(x)).relu())
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
        return self.fc(x.mean((2, 3)))


def create(name: str, num_classes: int = 1000, layers: Sequence[int] | None = None) -> ResNet:
    """Builds a network by its name there, or with another number of blocks in each stage."""
    kind, _, letter = name.partition("_ibn_")
    depth = kind.lstrip("_abcdefghijklmnopqrstuvwxyz")
    return ResNet(
        layers or _DEPTHS[depth],
        ("a", "a", "a", None) if letter == "a" else ("b", "b", None, None),
        num_classes,
        bottleneck=depth not in ("18", "34"),
        cardinality=32 if kind.startswith("resnext") else 1,
        attention=kind.startswith("se_"),
    )

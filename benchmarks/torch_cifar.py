"""The PyTorch side of `benchmarks.small_images`: networks for small images in channels-last memory.

It answers each line of its input as `benchmarks.torch_resnet50` does.
"""

import argparse
import json
import statistics
import sys
import time

import torch
from torch import Tensor, nn
from torch.nn import functional


def conv(inputs: int, features: int, size: int = 3, stride: int = 1) -> nn.Conv2d:
    """Return a convolution that keeps the size of the image if its stride is 1."""
    return nn.Conv2d(inputs, features, size, stride, size // 2, bias=False)


class Block(nn.Module):
    """Two 3x3 convolutions with a shortcut that pads with zero channels, or projects."""

    def __init__(self, inputs: int, features: int, stride: int, projects: bool) -> None:
        """Create the layers."""
        super().__init__()
        self.conv1, self.norm1 = conv(inputs, features, 3, stride), nn.BatchNorm2d(features)
        self.conv2, self.norm2 = conv(features, features), nn.BatchNorm2d(features)
        self.stride, self.missing = stride, features - inputs
        self.projection = (
            nn.Sequential(conv(inputs, features, 1, stride), nn.BatchNorm2d(features))
            if projects and self.missing
            else None
        )

    def shortcut(self, x: Tensor) -> Tensor:
        """Return the input in the shape of the output."""
        if self.projection is not None:
            return self.projection(x)
        if not self.missing:
            return x
        before = self.missing // 2
        x = x[:, :, :: self.stride, :: self.stride]
        return functional.pad(x, (0, 0, 0, 0, before, self.missing - before))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        y = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class PreactivationBlock(nn.Module):
    """The block of a wide ResNet, which normalizes before each convolution."""

    def __init__(self, inputs: int, features: int, stride: int) -> None:
        """Create the layers."""
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), conv(inputs, features, 3, stride)
        self.norm2, self.conv2 = nn.BatchNorm2d(features), conv(features, features)
        self.projection = conv(inputs, features, 1, stride) if inputs != features else None

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        y = functional.relu(self.norm1(x))
        shortcut = x if self.projection is None else self.projection(y)
        y = self.conv1(y)
        return self.conv2(functional.relu(self.norm2(y))) + shortcut


def network(name: str, channels: int) -> nn.Module:
    """Return a network for images with this number of channels."""
    preactivation, wide = name.startswith("wrn"), name == "cifar_resnet8_w64"
    if preactivation:
        depth, factor = (int(part) for part in name.removeprefix("wrn_").split("_"))
        blocks, stem, width = (depth - 4) // 6, 16, 16 * factor
    else:
        depth = int(name.removeprefix("cifar_resnet").split("_")[0])
        blocks, stem = (depth - 2) // 6, 64 if wide else 16
        width = stem
    layers: list[nn.Module] = [conv(channels, stem)]
    if not preactivation:
        layers += [nn.BatchNorm2d(stem), nn.ReLU()]
    if wide:
        layers.append(nn.MaxPool2d(3, 2, 1))
    inputs = stem
    for stage, features in enumerate((width, 2 * width, 4 * width)):
        for i in range(blocks):
            stride = 2 if stage and not i else 1
            layers.append(
                PreactivationBlock(inputs, features, stride)
                if preactivation
                else Block(inputs, features, stride, projects=wide)
            )
            inputs = features
    if preactivation:
        layers += [nn.BatchNorm2d(inputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 10))


def main() -> None:
    """Answer each line of the input with the seconds of a step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mode", choices=["train", "inference"])
    parser.add_argument("network")
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--image-size", type=int, required=True)
    parser.add_argument("--channels", type=int, required=True)
    parser.add_argument("--cpu-time", action="store_true")
    options = parser.parse_args()
    train = options.mode == "train"
    torch.manual_seed(0)
    model = network(options.network, options.channels)
    model = model.to(memory_format=torch.channels_last).train(train)
    images = torch.randn(
        options.batch_size, options.channels, options.image_size, options.image_size
    ).to(memory_format=torch.channels_last)
    labels = torch.arange(options.batch_size) % 10
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4
    )
    clock = time.process_time if options.cpu_time else time.perf_counter

    def seconds() -> float:
        started = clock()
        if train:
            optimizer.zero_grad(set_to_none=True)
            functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
        else:
            with torch.inference_mode():
                model(images)
        return clock() - started

    print(json.dumps(seconds()), flush=True)
    for _ in sys.stdin:
        seconds()
        print(json.dumps(statistics.median(seconds() for _ in range(3))), flush=True)


if __name__ == "__main__":
    main()

"""The PyTorch side of the benchmarks: torchvision's ResNet-50, channels last, one round a line.

Writes the seconds of the first call, then for each line of its input those of one call.
Run by the other benchmarks with the Python of ``--torch-python``.
"""

import argparse
import json
import sys
import time

import torch
import torchvision


def main() -> None:
    """Answers each line of the input with the seconds of a step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mode", choices=["train", "inference"])
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()

    torch.manual_seed(0)
    train = options.mode == "train"
    model = torchvision.models.resnet50().to(memory_format=torch.channels_last).train(train)
    size = options.image_size
    images = torch.randn(options.batch_size, 3, size, size)
    images = images.to(memory_format=torch.channels_last)
    labels = torch.arange(options.batch_size) % 1000
    network = torch.compile(model) if options.compile else model
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4
    )

    def step() -> None:
        if not train:
            with torch.inference_mode():
                network(images)
            return
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()

    def report() -> None:
        started = time.perf_counter()
        step()
        print(json.dumps(time.perf_counter() - started), flush=True)

    report()
    for _ in sys.stdin:
        report()


if __name__ == "__main__":
    main()

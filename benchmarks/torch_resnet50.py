"""The PyTorch side of the benchmarks: ResNet-50 of torchvision or timm in channels-last memory.

It prints the seconds of the first call, and then for each line of its input the seconds of one
more.  Those are the median of three calls in a row after one that does not count, as in
`benchmarks.peers.Program`.  The other benchmarks run it with the Python of ``--torch-python``.
"""

import argparse
import json
import statistics
import sys
import time

import torch
import torchvision


def resnet50(options: argparse.Namespace) -> torch.nn.Module:
    """Return the network of timm or of torchvision."""
    if options.timm:
        import timm

        return timm.create_model("resnet50")
    return torchvision.models.resnet50()


def main() -> None:
    """Answer each line of the input with the seconds of a step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mode", choices=["train", "inference"])
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--timm", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    options = parser.parse_args()

    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    train = options.mode == "train"
    device, size = options.device, options.image_size
    model = resnet50(options).to(device, memory_format=torch.channels_last).train(train)
    images = torch.randn(options.batch_size, 3, size, size, device=device)
    images = images.to(memory_format=torch.channels_last)
    labels = torch.arange(options.batch_size, device=device) % 1000
    network = torch.compile(model) if options.compile else model
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4
    )

    def forward() -> torch.Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=options.dtype == "bfloat16"):
            return network(images)

    def step() -> None:
        if not train:
            with torch.inference_mode():
                forward()
            return
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(forward().float(), labels).backward()
        optimizer.step()

    def seconds() -> float:
        started = time.perf_counter()
        step()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    print(json.dumps(seconds()), flush=True)
    for _ in sys.stdin:
        seconds()
        print(json.dumps(statistics.median(seconds() for _ in range(3))), flush=True)


if __name__ == "__main__":
    main()

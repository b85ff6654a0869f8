"""train.py with additional networks that compile quickly.

python tests/training/tiny_train.py synthetic-resnet50 --model.name=tiny_resnet ...
"""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from resnet_jax.commands.main import main
from resnet_jax.models.normalization import GroupNorm
from resnet_jax.models.variants import _A, _CIFAR, _VARIANTS, _basic, _bottleneck, _cifar

NETWORKS = {
    "cifar_resnet8": _cifar(8),
    # One block of two convolutions.
    "tiny_resnet": _basic((1,), _CIFAR, _A, {"width": 8}),
    # The stem of the ImageNet networks, and a projection in every stage.
    "tiny_bottleneck": _bottleneck((1, 1), {"width": 8}),
    # GroupNorm needs a multiple of 32 channels.
    "tiny_resnet_gn": _basic((1,), _CIFAR, {"width": 32, "norm": GroupNorm}),
}

GATE = "TINY_TRAIN_GATE"
"""Environment variable with the path of a file. A run on images in memory does not take its step 12
until this file exists, so that a test can act in the middle of the run, however fast the machine
is."""


def close_gate(file: Path) -> None:
    """Let the runs of this process wait for a file before step 12."""
    # pytest imports this module too, and some tests need to know the networks alone.
    from resnet_jax.data import ArraySplit

    train_batches = ArraySplit.train_batches

    def waiting(split: ArraySplit, *arguments: Any, start_step: int, **options: Any) -> Iterator:
        drawn = train_batches(split, *arguments, start_step=start_step, **options)
        for step, batch in enumerate(drawn, start=start_step + 1):
            while step == 12 and not file.exists():
                time.sleep(0.01)
            yield batch

    ArraySplit.train_batches = waiting


if __name__ == "__main__":
    # Only if it is run as a program: pytest also imports it to search for doctests.
    _VARIANTS.update(NETWORKS)
    if gate := os.environ.get(GATE):
        close_gate(Path(gate))
    main(["train", *sys.argv[1:]])

"""The BiT hyper-rule: how long to fine-tune and at which learning rate, from the data alone.

Kolesnikov et al. 2020, "Big Transfer (BiT): General Visual Representation Learning",
arXiv:1912.11370, section 3.3, and ``bit_hyperrule.py`` of google-research/big_transfer.

The rule was found for networks with GroupNorm and batches of 512 images.  It is changed here where
batches are smaller and networks have BatchNorm; `docs/finetuning.md` gives the reasons.
"""

import math
from typing import NamedTuple

BATCH_SIZE = 512
"""Batch size of BiT."""


class HyperRule(NamedTuple):
    """What the number of training images decides.

    Attributes:
        steps: Number of steps.
        warmup: Share of the steps in which the learning rate rises.
        decays: Shares of the steps after which it falls to a tenth.
        mixup_alpha: Parameter of mixup; 0 is none.
        size: The group of data sets that this is for, in words.
    """

    steps: int
    warmup: float
    decays: tuple[float, float, float]
    mixup_alpha: float
    size: str


_SMALL = HyperRule(500, 0.2, (0.4, 0.6, 0.8), 0.0, "fewer than 20,000 images")
_MEDIUM = HyperRule(10_000, 0.05, (0.3, 0.6, 0.9), 0.1, "20,000 to 500,000 images")
_LARGE = HyperRule(20_000, 0.025, (0.3, 0.6, 0.9), 0.1, "500,000 images or more")

MIN_EPOCHS, MAX_EPOCHS = 5, 100
"""Bounds of the number of epochs. BiT has none, because its batches always have 512 images."""


def hyper_rule(num_images: int) -> HyperRule:
    """Return the rule for a number of training images.

    >>> hyper_rule(1000).steps, hyper_rule(20_000).steps, hyper_rule(1_281_167).steps
    (500, 10000, 20000)
    """
    if num_images < 20_000:
        return _SMALL
    return _MEDIUM if num_images < 500_000 else _LARGE


def epochs_of(num_images: int, batch_size: int) -> int:
    """Return the number of epochs nearest to the steps of the rule, within the bounds.

    >>> epochs_of(1000, 32), epochs_of(50, 16), epochs_of(1_281_167, 64)
    (16, 100, 5)
    """
    epochs = round(hyper_rule(num_images).steps * batch_size / num_images)
    return min(max(epochs, MIN_EPOCHS), MAX_EPOCHS)


def learning_rate_of(batch_size: int, *, batch_norm: bool) -> float:
    """Return the peak learning rate, with two digits.

    It is 0.003 for batches of 512 images, and falls with the square root of the batch size.  With
    BatchNorm it is ten times as high.

    >>> learning_rate_of(512, batch_norm=False), learning_rate_of(64, batch_norm=True)
    (0.003, 0.011)
    """
    rate = (0.03 if batch_norm else 0.003) * math.sqrt(batch_size / BATCH_SIZE)
    return float(f"{rate:.2g}")

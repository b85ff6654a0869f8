"""Recompute the reference values of mixup and CutMix with timm and torchvision.

    python tests/data/regenerate_mixing.py

It needs an environment of its own, because the project does not depend on PyTorch:

    python -m venv .venv
    .venv/bin/pip install torch==2.13.0 torchvision==0.28.0 timm==1.0.31

The libraries mix by their own code. Only their draws are replaced: the share of each image and the
center of the box. `mixing_values.npz` gets the inputs, and the mixed images and targets.
"""

from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from timm.data.mixup import Mixup
from torchvision.transforms import v2

HEIGHT, WIDTH, CLASSES = 11, 8, 3
SHARES = (0.3, 0.55, 0.9, 0.15)
CENTERS = ((0, 0), (5, 3), (10, 7), (7, 2))
"""Row and column."""
CUT = (True, False, False, True)
"""Which images timm's mode "elem" mixes by CutMix."""

IMAGES = torch.from_numpy(np.random.default_rng(0).normal(size=(4, 2, HEIGHT, WIDTH)))
LABELS = torch.tensor([0, 2, 1, 1])


def timm_batch(share: float, center: tuple[int, int], *, cut: bool) -> tuple[torch.Tensor, ...]:
    """Return what timm's mode "batch" makes of the batch."""
    mixup = Mixup(0.2, 1.0, num_classes=CLASSES, label_smoothing=0.0)
    with (
        mock.patch.object(mixup, "_params_per_batch", return_value=(share, cut)),
        mock.patch.object(np.random, "randint", side_effect=center),
    ):
        return mixup(IMAGES.clone(), LABELS)


def timm_elem(
    shares: Sequence[float], centers: Sequence[tuple[int, int]], cut: Sequence[bool]
) -> tuple[torch.Tensor, ...]:
    """Return what timm's mode "elem" makes of the batch."""
    mixup = Mixup(0.2, 1.0, num_classes=CLASSES, label_smoothing=0.0, mode="elem")
    drawn = [axis for center, is_cut in zip(centers, cut, strict=True) if is_cut for axis in center]
    with (
        mock.patch.object(
            mixup, "_params_per_elem", return_value=(np.array(shares), np.array(cut))
        ),
        mock.patch.object(np.random, "randint", side_effect=drawn),
    ):
        return mixup(IMAGES.clone(), LABELS)


def torchvision_batch(
    share: float, center: tuple[int, int], *, cut: bool
) -> tuple[torch.Tensor, ...]:
    """Return what torchvision makes of the batch."""
    transform = (v2.CutMix if cut else v2.MixUp)(num_classes=CLASSES)
    # torchvision draws the column first.
    drawn = [torch.tensor([axis]) for axis in reversed(center)]
    with (
        mock.patch.object(
            transform._dist, "sample", return_value=torch.tensor([share], dtype=torch.double)
        ),
        mock.patch.object(torch, "randint", side_effect=drawn),
    ):
        return transform(IMAGES, LABELS)


def main() -> None:
    """Write the values, with the channels last."""
    values = {"images": IMAGES, "labels": LABELS.int()}
    for index, (share, center) in enumerate(zip(SHARES, CENTERS, strict=True)):
        for cut in (False, True):
            kind = "cutmix" if cut else "mixup"
            for name, mix in {"timm": timm_batch, "torchvision": torchvision_batch}.items():
                images, targets = mix(share, center, cut=cut)
                values[f"{name} {kind} {index} images"] = images
                values[f"{name} {kind} {index} targets"] = targets
    values["timm elem images"], values["timm elem targets"] = timm_elem(SHARES, CENTERS, CUT)
    arrays = {
        name: (value.movedim(1, -1) if name.endswith("images") else value).numpy()
        for name, value in values.items()
    }
    np.savez_compressed(Path(__file__).parent / "mixing_values.npz", **arrays)


if __name__ == "__main__":
    main()

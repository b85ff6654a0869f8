"""Recompute the reference values of the augmentations with torchvision and timm.

    python tests/data/regenerate_augment.py

It needs an environment of its own, because the project does not depend on PyTorch:

    python -m venv .venv
    .venv/bin/pip install torch==2.14.1 torchvision==0.29.1 timm==1.0.31 pillow==13.0.0

`augment_tables.json` gets the tables from which arguments are taken, `augment_values.npz` images
and distributions.
"""

import json
import random
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image
from timm.data import auto_augment as timm_augment
from timm.data.mixup import Mixup, mixup_target
from timm.data.random_erasing import RandomErasing
from torchvision.transforms import InterpolationMode, autoaugment
from torchvision.transforms import functional as tv

DIRECTORY = Path(__file__).parent
SIZES = ((224, 224), (331, 331), (32, 40))
QUANTILES = np.linspace(0, 1, 41)

TORCHVISION_CASES = {
    "ShearX": 0.3,
    "ShearY": -0.3,
    "TranslateX": 7.25,
    "TranslateY": -5.5,
    "Rotate": 27.0,
    "Brightness": -0.54,
    "Color": 0.9,
    "Contrast": 0.27,
    "Sharpness": 0.9,
    "Posterize": 5.0,
    "Solarize": 178.5,
    "AutoContrast": 0.0,
    "Equalize": 0.0,
    "Invert": 0.0,
}
"""Operation of torchvision to the magnitude that its image is made with."""


def image() -> np.ndarray:
    """Return an image of a slope with a little noise, uint8[24, 30, 3]."""
    y, x = np.mgrid[:24, :30]
    slope = np.stack([40 + 5 * x, 20 + 6 * y + x, 200 - 4 * y], axis=-1)
    noise = np.random.default_rng(0).normal(0, 6, slope.shape)
    return np.clip(slope + noise, 10, 230).astype(np.uint8)


def space(augment: torch.nn.Module, *args: object) -> dict[str, dict[str, object]]:
    """Return the magnitudes of torchvision's operations, in its order."""
    return {
        name: {"magnitudes": np.atleast_1d(magnitudes.numpy()).tolist(), "signed": signed}
        for name, (magnitudes, signed) in augment._augmentation_space(*args).items()
    }


def timm_arguments(names: list[str]) -> dict[str, list[list[float]]]:
    """Return each operation's arguments at the levels 0 to 10, as drawn and negated."""
    arguments = {}
    for name in names:
        function = timm_augment.LEVEL_TO_ARG[name]
        arguments[name] = []
        for draw in (0.0, 1.0):
            with mock.patch.object(random, "random", return_value=draw):
                values = [function(level, {})[0] if function else 0 for level in range(11)]
            arguments[name].append(values)
    return arguments


def tables() -> dict[str, object]:
    """Return all tables of numbers."""
    auto = {
        name: autoaugment.AutoAugment(autoaugment.AutoAugmentPolicy(name))
        for name in ("imagenet", "cifar10")
    }
    return {
        "randaugment": [
            {"bins": bins, "size": size, "space": space(autoaugment.RandAugment(), bins, size)}
            for bins in (31, 11)
            for size in SIZES
        ],
        "trivial": [
            {"bins": bins, "size": SIZES[0], "space": space(autoaugment.TrivialAugmentWide(), bins)}
            for bins in (31, 11)
        ],
        "autoaugment": [
            {"bins": 10, "size": size, "space": space(auto["imagenet"], 10, size)} for size in SIZES
        ],
        "policies": {name: augment.policies for name, augment in auto.items()},
        "timm": timm_arguments(timm_augment._RAND_TRANSFORMS),
        "timm_increasing": timm_arguments(timm_augment._RAND_INCREASING_TRANSFORMS),
    }


def images() -> dict[str, np.ndarray]:
    """Return the image after single operations, and after a color jitter in a given order."""
    picture = Image.fromarray(image())
    results = {"image": image()}
    for name, magnitude in TORCHVISION_CASES.items():
        for mode in InterpolationMode.NEAREST, InterpolationMode.BILINEAR:
            changed = autoaugment._apply_op(picture, name, magnitude, mode, [7.0, 8.0, 9.0])
            if mode is InterpolationMode.NEAREST or name[:5] in ("Shear", "Trans", "Rotat"):
                results[f"torchvision_{name}_{mode.value}"] = np.asarray(changed)
    results["timm_SolarizeAdd"] = np.asarray(timm_augment.solarize_add(picture, 77))
    results["gray"] = np.asarray(tv.to_grayscale(picture, 3))
    jittered = tv.adjust_contrast(tv.adjust_hue(picture, -0.2), 1.3)
    jittered = tv.adjust_brightness(tv.adjust_saturation(jittered, 0.6), 1.2)
    results["jitter"] = np.asarray(jittered)
    return results


def quantiles(draw: Callable[[], tuple[float, ...]], count: int) -> np.ndarray:
    """Return quantiles of each of the values that a function draws."""
    values = np.array([draw() for _ in range(count)])
    return np.quantile(values, QUANTILES, axis=0).astype(np.float32)


def distributions() -> dict[str, np.ndarray]:
    """Return the distribution of timm's erased rectangles, and its mixed targets."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    erase = RandomErasing(1.0, mode="pixel", device="cpu")

    def erased() -> tuple[float, ...]:
        inside = erase(torch.zeros(1, 40, 32))[0].numpy() != 0
        rows, columns = inside.any(1), inside.any(0)
        height, width = rows.sum(), columns.sum()
        return inside.mean(), np.log(height / width), rows.argmax(), columns.argmax()

    mixup = Mixup(mixup_alpha=0.0, cutmix_alpha=1.0, num_classes=2, label_smoothing=0.0)
    pair = torch.zeros(2, 1, 40, 32)
    pair[1] = 1

    def cut() -> tuple[float, ...]:
        _, targets = mixup(pair.clone(), torch.tensor([0, 1]))
        return (float(targets[0, 1]),)

    targets = mixup_target(torch.tensor([0, 3, 1, 1]), 4, lam=0.3, smoothing=0.1, multi_label=False)
    return {
        "erasing_quantiles": quantiles(erased, 20_000),
        "cutmix_quantiles": quantiles(cut, 20_000),
        "mixup_targets": targets.numpy(),
    }


if __name__ == "__main__":
    text = json.dumps(tables(), separators=(",", ":"))
    (DIRECTORY / "augment_tables.json").write_text(text + "\n")
    np.savez_compressed(DIRECTORY / "augment_values.npz", **images(), **distributions())

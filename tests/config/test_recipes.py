"""The experiments have the numbers of their sources, and are all described."""

import math
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from resnet_jax.config import (
    DigitsConfig,
    SyntheticConfig,
    TrainConfig,
    list_experiments,
    load_experiment,
)

ROOT = Path(__file__).parents[2]
EXPERIMENTS = {name: load_experiment(name).config for name in list_experiments()}


class Facts(NamedTuple):
    """What a source says about a training.

    Attributes:
        epochs: Number of epochs.
        batch: Number of images in a batch, over all devices.
        peak: Highest learning rate.
        momentum: Momentum, or beta1 of Adam and LAMB.
        nesterov: Whether the momentum is Nesterov's. None if the optimizer has no such choice.
        decay: Weight decay.
        decays: The parameters that decay.
        smoothing: Label smoothing.
        size: Height and width of training images in pixels, at the end of the training.
        evaluated: Height and width of evaluation images in pixels.
        zeros: Whether the last scale of each block starts at zero.
    """

    epochs: float
    batch: int
    peak: float
    momentum: float
    nesterov: bool | None
    decay: float
    decays: str
    smoothing: float
    size: int
    evaluated: int
    zeros: bool = True


# Sources, in this order: the papers of He et al., Goyal et al. and Zagoruyko and Komodakis, and
# train_cifar.sh of the latter; fashionmnist.py of zhunzhong07/Random-Erasing; references/
# classification of pytorch/vision; Wightman et al. 2021 and the training commands of timm;
# examples/imagenet of google/flax; bit_i1k.py of big_vision; imagenet_resnetrs50_i160.yaml of
# tensorflow/models; rcps_resnet.json of mlcommons/logging; configs.yml and the scripts of NVIDIA's
# DeepLearningExamples; rn50_configs and rn18_configs of ffcv-imagenet; resnet50.yaml and main.py of
# mosaicml/examples; bit_hyperrule.py of big_transfer.
RECIPES: dict[str, Facts] = {
    **{
        f"cifar10-{name}": Facts(163.84, 128, 0.1, 0.9, False, 1e-4, "all", 0, 32, 32, False)
        for name in (
            *("resnet20", "resnet32", "resnet44", "resnet56", "resnet110"),
            *("preresnet110", "preresnet164"),
        )
    },
    "cifar100-resnet110": Facts(163.84, 128, 0.1, 0.9, False, 1e-4, "all", 0, 32, 32, False),
    "cifar100-preresnet164": Facts(163.84, 128, 0.1, 0.9, False, 1e-4, "all", 0, 32, 32, False),
    "cifar10-wrn-28-10": Facts(200, 128, 0.1, 0.9, True, 5e-4, "all", 0, 32, 32, False),
    "cifar100-wrn-28-10": Facts(200, 128, 0.1, 0.9, True, 5e-4, "all", 0, 32, 32, False),
    "cifar10-bit-resnet50": Facts(102.4, 512, 0.003, 0.9, False, 0, "kernels", 0, 128, 128),
    "fashionmnist-resnet20": Facts(300, 128, 0.1, 0.9, False, 5e-4, "all", 0, 28, 28, False),
    "fashionmnist-resnet20-erasing": Facts(
        300, 128, 0.1, 0.9, False, 5e-4, "all", 0, 28, 28, False
    ),
    "imagenet-resnet50-he2015": Facts(
        119.89, 256, 0.1, 0.9, False, 1e-4, "all", 0, 224, 224, False
    ),
    "imagenet-resnet50-goyal2017": Facts(
        90, 8192, 3.2, 0.9, True, 1e-4, "all_but_norm", 0, 224, 224
    ),
    "imagenet-resnet50-tv-v1": Facts(90, 256, 0.1, 0.9, False, 1e-4, "all", 0, 224, 224, False),
    "imagenet-resnet50-tv-v2": Facts(
        600, 1024, 0.5, 0.9, False, 2e-5, "all_but_norm", 0.1, 176, 224, False
    ),
    "imagenet-resnet50-rsb-a1": Facts(600, 2048, 5e-3, 0.9, None, 0.01, "kernels", 0.1, 224, 224),
    "imagenet-resnet50-rsb-a2": Facts(300, 2048, 5e-3, 0.9, None, 0.02, "kernels", 0, 224, 224),
    "imagenet-resnet50-rsb-a3": Facts(100, 2048, 8e-3, 0.9, None, 0.02, "kernels", 0, 160, 224),
    "imagenet-resnext50-timm-ra": Facts(240, 1536, 0.6, 0.9, True, 1e-4, "kernels", 0.1, 224, 224),
    "imagenet-resnet50-flax": Facts(100, 1024, 0.4, 0.9, True, 1e-4, "kernels", 0, 224, 224),
    "imagenet-resnet50-big-vision": Facts(
        90, 4096, 1.6, 0.9, False, 1.6e-3, "kernels", 0, 224, 224
    ),
    "imagenet-resnetrs50": Facts(350, 4096, 1.6, 0.9, False, 4e-5, "all_but_norm", 0.1, 160, 160),
    "imagenet-resnet50-mlperf-lars": Facts(
        37, 3264, 10.5, 0.9, False, 5e-5, "kernels", 0.1, 224, 224
    ),
    **{
        f"imagenet-resnet50-nvidia-{epochs}ep": Facts(
            *(epochs, 2048, 2.048, 0.875, False, 3.0517578125e-05),
            *("all_but_named_norm", 0.1, 224, 224, False),
        )
        for epochs in (50, 90, 250)
    },
    **{
        f"imagenet-resnet50-ffcv-{epochs}ep": Facts(
            epochs, 4096, 1.7, 0.9, False, 1e-4, "all_but_named_norm", 0.1, 192, 256, False
        )
        for epochs in (16, 32, 88)
    },
    **{
        f"imagenet-resnet18-ffcv-{epochs}ep": Facts(
            epochs, 1024, 0.5, 0.9, False, 5e-5, "all_but_named_norm", 0.1, 192, 256, False
        )
        for epochs in (16, 32, 88)
    },
    **{
        f"imagenet-resnet50-mosaic-{name}": Facts(
            epochs, 2048, 2.048, 0.875, False, 5e-4, "all", smoothing, 176, 224, False
        )
        for name, epochs, smoothing in (
            ("mild", 36, 0.08),
            ("medium", 135, 0.1),
            ("hot", 270, 0.13),
        )
    },
    # These are ours.
    "imagenet-resnet18": Facts(90, 1024, 0.4, 0.9, True, 1e-4, "kernels", 0.1, 224, 224),
    "imagenet-resnet50": Facts(90, 1024, 0.4, 0.9, True, 1e-4, "kernels", 0.1, 224, 224),
    "cifar10-resnet18-fast": Facts(16, 512, 0.4, 0.85, True, 5e-4, "kernels", 0.2, 32, 32),
    "digits-resnet20": Facts(25, 64, 0.05, 0.9, True, 5e-4, "kernels", 0.1, 12, 12, False),
    "synthetic-resnet50": Facts(1, 16, 0.1, 0.9, True, 1e-4, "kernels", 0, 224, 224),
    "folder-resnet50": Facts(30, 64, 0.05, 0.9, True, 1e-4, "kernels", 0.1, 224, 224),
    "folder-resnet50-finetune": Facts(30, 64, 0.01, 0.9, True, 0, "kernels", 0, 224, 224),
    "folder-resnet50-head": Facts(30, 64, 0.1, 0.9, True, 0, "kernels", 0, 224, 224),
    "folder-resnet50-layer-decay": Facts(30, 64, 5e-4, 0.9, None, 0.05, "kernels", 0, 224, 224),
}


# Experiments that were tuned here. Their files are their only source.
TUNED = ("fashionmnist-fast",)


def facts(config: TrainConfig) -> Facts:
    optimizer: Any = config.optimizer
    size, evaluated = sizes(config)
    return Facts(
        config.epochs,
        config.batch_size,
        config.peak_learning_rate,
        getattr(optimizer, "momentum", getattr(optimizer, "beta1", None)),
        getattr(optimizer, "nesterov", None),
        optimizer.weight_decay,
        optimizer.decay_on,
        config.loss.label_smoothing,
        size,
        evaluated,
        config.model.zero_init_residual,
    )


def sizes(config: TrainConfig) -> tuple[int, int]:
    """Height and width of images for training and for evaluation."""
    data = config.data
    if isinstance(data, DigitsConfig | SyntheticConfig):
        return data.image_size, data.image_size
    images = getattr(data, "images", None)
    if images is None:
        size = 28 if data.kind == "idx" else 32
        return size, size
    return images.image_size, images.eval_image_size or images.image_size


def test_every_recipe_is_compared_with_its_source() -> None:
    assert sorted([*RECIPES, *TUNED]) == list_experiments()


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_have_the_numbers_of_their_sources(name: str) -> None:
    ours, theirs = facts(EXPERIMENTS[name]), RECIPES[name]
    for field in Facts._fields:
        value, expected = getattr(ours, field), getattr(theirs, field)
        if isinstance(expected, float):
            expected = pytest.approx(expected, rel=1e-9)
        assert value == expected, field


def cosine(start: float, end: float, share: float) -> float:
    """Half a cosine from one value to another one."""
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))


# Learning rates at some epochs, computed from the formulas of the sources. An epoch between two
# whole numbers shows whether the rate changes after every step or after every epoch.
RATES: dict[str, dict[float, float]] = {
    "cifar10-resnet20": {0: 0.1, 81.9: 0.1, 82: 0.01, 122.8: 0.01, 123: 0.001},
    "cifar10-resnet110": {0: 0.01, 1: 0.01, 1.1: 0.1, 81.9: 0.1, 82: 0.01, 123: 0.001},
    "cifar10-wrn-28-10": {0: 0.1, 59.9: 0.1, 60.1: 0.02, 120.1: 0.004, 160.1: 0.0008},
    # 10,000 steps of 512 images.
    "cifar10-bit-resnet50": {2.56: 0.0015, 5.12: 0.003, 30.8: 3e-4, 61.5: 3e-5, 92.2: 3e-6},
    "fashionmnist-resnet20": {0: 0.1, 149.9: 0.1, 150.1: 0.01, 225.1: 0.001},
    "imagenet-resnet50-goyal2017": {0: 0.1, 2.5: 1.65, 5: 3.2, 30.1: 0.32, 80.1: 0.0032},
    "imagenet-resnet50-tv-v1": {0: 0.1, 29.9: 0.1, 30.1: 0.01, 60.1: 0.001, 89.9: 0.001},
    "imagenet-resnet50-tv-v2": {
        0.9: 0.005,
        4.5: 0.5 * (0.01 + 0.99 * 4 / 5),
        5.5: 0.5,
        302.5: cosine(0.5, 0, 297 / 595),
        599.5: cosine(0.5, 0, 594 / 595),
    },
    "imagenet-resnet50-rsb-a1": {0.5: 1e-4, 5.5: cosine(5e-3, 1e-6, 5 / 600)},
    "imagenet-resnet50-rsb-a3": {
        0.5: 1e-4,
        4.5: 1e-4 + 4 / 5 * (8e-3 - 1e-4),
        5.5: cosine(8e-3, 1e-6, 5 / 100),
        99.5: cosine(8e-3, 1e-6, 99 / 100),
    },
    "imagenet-resnext50-timm-ra": {0.5: 1e-4, 120.5: 0.3},
    "imagenet-resnet50-flax": {0: 0, 2.5: 0.2, 5: 0.4, 52.5: 0.2},
    # 1,000 steps of 4,096 images are 3.23 epochs of 99 % of the images.
    "imagenet-resnet50-big-vision": {1.6147: 0.8, 3.2294: 1.6, 46.6147: 0.8},
    "imagenet-resnetrs50": {
        2.5: cosine(1.6, 0, 5 / 350) / 2,
        5: cosine(1.6, 0, 5 / 350),
        175: 0.8,
    },
    "imagenet-resnet50-mlperf-lars": {1: 5.25, 2: 10.5, 19.5: 1e-4 + (10.5 - 1e-4) / 4},
    "imagenet-resnet50-nvidia-90ep": {0.5: 0.256, 7.5: 2.048, 8.5: 2.048, 49.5: 1.024},
    "imagenet-resnet50-ffcv-16ep": {0: 1.7e-4, 1: 0.850085, 2: 1.7, 9: 0.85},
    "imagenet-resnet18-ffcv-88ep": {0: 5e-5, 2: 0.5, 45: 0.25},
    "imagenet-resnet50-mosaic-mild": {0: 0, 4: 1.024, 8: 2.048, 22: 1.024},
}
IMAGES = {"imagenet": 1_281_167, "cifar10": 50_000, "fashionmnist": 60_000}


@pytest.mark.parametrize("name", RATES)
def test_learning_rates_follow_the_formulas_of_their_sources(name: str) -> None:
    config = EXPERIMENTS[name]
    images = IMAGES[name.partition("-")[0]]
    if name == "imagenet-resnet50-big-vision":
        images = round(0.99 * images)

    def steps(epochs: float) -> int:
        return config.steps(epochs, images)

    schedule = config.schedule.create(config.peak_learning_rate, epochs=config.epochs, steps=steps)
    for epoch, expected in RATES[name].items():
        rate = float(schedule(steps(epoch) if epoch else 0))
        assert rate == pytest.approx(expected, rel=2e-3, abs=1e-9), epoch


def test_the_steps_of_the_cifar_papers_are_exact() -> None:
    config = EXPERIMENTS["cifar10-resnet20"]
    epochs = (*config.schedule.decay_epochs, config.epochs)
    assert [config.steps(count, 50_000) for count in epochs] == [32_000, 48_000, 64_000]


def test_every_experiment_names_its_command_and_its_accuracy() -> None:
    for name in EXPERIMENTS:
        description = load_experiment(name).description
        assert f"resnet-jax train {name}" in description
        if name not in TUNED and name.startswith(("cifar", "imagenet", "fashionmnist")):
            assert re.search(r"[Pp]ublish|target|no result", description), name
            assert re.search(r"not\s+been\s+measured|[Mm]easured", description), name


def test_every_experiment_is_in_the_table_of_recipes() -> None:
    page = (ROOT / "docs" / "recipes.md").read_text()
    named = set(re.findall(r"^\| `([\w-]+)` \|", page, re.MULTILINE))
    assert named == set(EXPERIMENTS)

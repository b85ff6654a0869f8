"""The experiment that fine-tunes weights: what it takes from the data and from the weights."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from resnet_jax import create_model, save_weights
from resnet_jax.config import ConfigError, FolderConfig, StepsConfig, TrainConfig
from resnet_jax.data import DataError
from resnet_jax.training.finetuning import FinetunePlan, finetune_config, plan
from resnet_jax.training.finetuning.hyper_rule import epochs_of, hyper_rule, learning_rate_of
from resnet_jax.training.finetuning.starting_point import _name_of, starting_point
from resnet_jax.training.memory import BatchFit
from resnet_jax.training.setup import Run
from tests.variables import random_variables


def write_images(folder: Path, **counts: int) -> Path:
    rng = np.random.default_rng(0)
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 256, (12, 12, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 and 5 images, of which 12 and 1 are held out."""
    return write_images(tmp_path_factory.mktemp("images") / "photos", common=60, rare=5)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a network for seven classes."""
    model = create_model("cifar_resnet20", num_classes=7)
    variables = random_variables(model, np.zeros((1, 32, 32, 3), np.float32))
    path = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    save_weights(model, variables, path)
    return path


def reasons(plan: FinetunePlan) -> dict[str, str]:
    return {choice.name: f"{choice.value} | {choice.reason}" for choice in plan.choices}


@pytest.mark.parametrize(
    ("num_images", "batch_size", "expected"),
    [
        (10_000, 512, 26),  # 500 steps
        (19_999, 64, 5),  # 500 steps would be fewer than two epochs
        (50, 16, 100),
        (100_000, 512, 51),  # 10,000 steps
        (1_281_167, 512, 8),  # 20,000 steps
    ],
)
def test_the_epochs_are_those_of_the_hyper_rule(
    num_images: int, batch_size: int, expected: int
) -> None:
    assert epochs_of(num_images, batch_size) == expected


def test_the_rule_is_that_of_bit_for_its_batch_and_its_networks() -> None:
    # get_schedule and get_mixup of bit_hyperrule.py.
    published = {
        19_999: ([100, 200, 300, 400, 500], 0.0),
        20_000: ([500, 3000, 6000, 9000, 10_000], 0.1),
        500_000: ([500, 6000, 12_000, 18_000, 20_000], 0.1),
    }
    for num_images, (steps, mixup) in published.items():
        rule = hyper_rule(num_images)
        found = [share * rule.steps for share in (rule.warmup, *rule.decays, 1)]
        assert found == pytest.approx(steps)
        assert rule.mixup_alpha == mixup
    assert learning_rate_of(512, batch_norm=False) == 0.003
    assert learning_rate_of(512, batch_norm=True) == 0.03
    assert learning_rate_of(128, batch_norm=True) == 0.015


def test_the_experiment_follows_from_the_images_and_the_weights(photos: Path, file: Path) -> None:
    found = finetune_config(photos, file, "cifar_resnet20", batch_size=16, image_size=16)
    config = found.config
    assert isinstance(config.data, FolderConfig)
    assert (config.data.path, config.data.hold_out_validation) == (str(photos), True)
    assert (config.model.name, config.model.weights) == ("cifar_resnet20", str(file))
    assert (config.batch_size, config.epochs, config.finetune.head_epochs) == (16, 100.0, 10.0)
    assert config.optimizer.learning_rate == 0.0053
    assert (config.optimizer.weight_decay, config.averaging.warmup) == (0.0, "tensorflow")
    schedule = config.schedule
    assert isinstance(schedule, StepsConfig)
    assert schedule.warmup_epochs == pytest.approx(18)
    assert schedule.decay_epochs == pytest.approx((36, 54, 72))
    assert (config.early_stopping.patience, config.evaluate_every_epochs) == (10, 4.0)
    assert TrainConfig.from_json(config.to_json()) == config
    shown = reasons(found)
    assert shown["classes"] == f"2: common, rare | those of {photos}"
    assert shown["images"].startswith("52 train, 13 validation | 20% of each class held out")
    assert shown["class balance"].startswith("4 (rare) to 48 (common) | 12.0 to 1")
    assert shown["batch size"] == "16 images | given"
    assert shown["image size"] == "16 pixels | given"
    (warning,) = found.warnings
    assert "12 times the images of the smallest" in warning
    assert 'option sampling "square_root" or "balanced"' in warning
    # The run has these images, and the epochs of the rule are its steps.
    run = Run.create(config)
    assert (len(run.dataset.train), run.dataset.evaluation_split) == (52, "validation")
    assert (run.head_steps, run.total_steps) == (33, 325)


def test_options_replace_what_would_be_derived(photos: Path, file: Path) -> None:
    found = finetune_config(
        photos,
        file,
        "cifar_resnet20",
        epochs=3,
        learning_rate=0.5,
        batch_size=8,
        head_epochs=0,
        early_stopping=0,
        sampling="balanced",
        seed=7,
    )
    config = found.config
    assert (config.epochs, config.finetune.head_epochs, config.seed) == (3, 0, 7)
    assert config.early_stopping.patience is None
    assert (config.optimizer.learning_rate, config.evaluate_every_epochs) == (0.5, 1.0)
    shown = reasons(found)
    for name in ("epochs", "learning rate", "head first", "early stopping", "batch size"):
        assert shown[name].endswith("| given"), name
    # Both classes are drawn equally often, so the warning that they differ in size is not needed.
    assert (shown["sampling"], found.warnings) == ("every class equally often | given", [])
    split: Any = Run.create(config).dataset.train
    assert np.bincount(split.labels[split.sampling.epoch(0, 0)]).tolist() == [26, 26]


def test_the_batch_size_is_the_one_that_fits(
    photos: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def fit(run: Run, sizes: list[int]) -> BatchFit:
        asked.append((run.config.data, sizes))
        return BatchFit(8, 10**9, 10**9, {16: 2 * 10**9, 8: 10**9})

    monkeypatch.setattr(plan, "largest_batch_that_fits", fit)
    found = finetune_config(photos, file, "cifar_resnet20")
    assert asked == [(found.config.data, [8, 16])], "eight devices, and an eighth of the images"
    assert found.config.batch_size == 8
    assert found.config.optimizer.learning_rate == learning_rate_of(8, batch_norm=True)
    assert "16 images would need 2 GB" in reasons(found)["batch size"]
    assert "Even a batch of 8 needs 1 GB" in found.warnings[1]


def test_bit_is_trained_with_its_own_mean_and_rate(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "read_starting_weights", lambda *_: None)
    weights = "resnetv2_50x1_bit.goog_in21k_ft_in1k"
    config = finetune_config(photos, weights, batch_size=8).config
    assert config.model.name == "resnetv2_50x1_bit"
    assert config.model.weights == f"hf://timm/{weights}"
    assert isinstance(config.data, FolderConfig)
    images = config.data.images
    assert images.augment.mean == images.augment.std == (0.5, 0.5, 0.5)
    assert (images.image_size, images.crop_fraction) == (448, 1.0)
    assert images.eval_interpolation == images.train_interpolation == "pil_bilinear"
    assert config.optimizer.learning_rate == learning_rate_of(8, batch_norm=False)
    # The classifier of the run will have the same preprocessing.
    preprocessing = Run.create(config).dataset.preprocessing
    assert preprocessing.mean == preprocessing.std == (0.5, 0.5, 0.5)


def test_published_weights_are_used_at_their_training_size() -> None:
    start = starting_point("resnet50.a1_in1k")
    assert start.model.name == "resnet50"
    assert (start.preprocessing.image_size, start.preprocessing.crop_fraction) == (224, 0.95)
    assert start.num_classes == 1000
    assert start.has_batch_norm
    assert starting_point("hf://timm/resnet50.a1_in1k") == start


def test_the_name_of_a_network_is_found_by_its_fields() -> None:
    for name in ("resnet50", "resnetv2_50x1_bit", "seresnext50_32x4d", "resnet50_clip"):
        assert _name_of(create_model(name, num_classes=5), "x") == name
    # As `transformers` describes a ResNet-18.
    basic = create_model("resnet18", stage_sizes=(2, 2, 2, 2), width=64, stem_widths=None)
    assert _name_of(basic, "x") == "resnet18"
    with pytest.raises(ConfigError, match="x: its network is none of those"):
        _name_of(create_model("resnet18", width=32), "x")


@pytest.mark.parametrize(
    ("weights", "model", "options", "message"),
    [
        ("resnet50", None, {}, "name one of them, such as resnet50"),
        ("resnet50.a1_in2k", None, {}, "did you mean resnet50"),
        ("absent.safetensors", None, {}, "there is no such file"),
        ("FILE", None, {}, "give its name as well, as in --model resnet50"),
        ("FILE", "cifar_resnet32", {}, "these weights do not fit the model"),
        ("FILE", "cifar_resnet", {}, "unknown model 'cifar_resnet'"),
        ("PHOTOS", None, {}, "there is no checkpoint in it"),
        ("resnet50_ibn_a.in1k", None, {}, "download them, and give the path"),
        ("FILE", "cifar_resnet20", {"epochs": -1}, "epochs must be above 0 and finite"),
        ("FILE", "cifar_resnet20", {"batch_size": 0}, "batch_size must be above 0"),
        ("FILE", "cifar_resnet20", {"batch_size": 9}, "cannot be shared evenly by 8 devices"),
        ("FILE", "cifar_resnet20", {"image_size": -1}, "image_size must be above 0"),
        ("FILE", "cifar_resnet20", {"epochs": 2, "head_epochs": 2}, "head_epochs must be from 0"),
        ("FILE", "cifar_resnet20", {"early_stopping": -1}, "patience must be above 0"),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_compiled(
    weights: str,
    model: str | None,
    options: dict[str, Any],
    message: str,
    photos: Path,
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plan, "largest_batch_that_fits", None)
    weights = {"FILE": str(file), "PHOTOS": str(photos)}.get(weights, weights)
    with pytest.raises(ConfigError, match=message) as error:
        finetune_config(photos, weights, model, **options)
    assert "\n" not in str(error.value)


def test_images_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a directory"):
        finetune_config(tmp_path / "absent", "resnet50.a1_in1k")
    with pytest.raises(DataError, match="a classifier needs one for each"):
        finetune_config(tmp_path, "resnet50.a1_in1k")

"""A plan for fine-tuning: the experiment, every decision with its reason, and warnings."""

import dataclasses
import os
from typing import NamedTuple, Unpack

import jax

from resnet_jax.config import FolderConfig, TrainConfig
from resnet_jax.training.finetuning.experiment import (
    HEAD_SHARE,
    FinetuneOptions,
    experiment_of,
    images_of,
)
from resnet_jax.training.finetuning.hyper_rule import (
    BATCH_SIZE,
    MAX_EPOCHS,
    MIN_EPOCHS,
    hyper_rule,
)
from resnet_jax.training.finetuning.photos import Photos, count_photos
from resnet_jax.training.finetuning.starting_point import StartingPoint, starting_point
from resnet_jax.training.memory import (
    SHARE,
    BatchFit,
    batch_sizes,
    largest_batch_that_fits,
)
from resnet_jax.training.setup import Run, check
from resnet_jax.training.starting_weights import read_starting_weights

IMBALANCE = 10
"""How many times the images of the smallest class the largest one may have without a warning."""

_GIVEN = "given"
_SMALLEST_BATCH, _SMALL_BATCH = 16, 64
_GIGABYTE = 1e9


class Choice(NamedTuple):
    """A decision, for people.

    Attributes:
        name: What is decided.
        value: The outcome.
        reason: Why.
    """

    name: str
    value: str
    reason: str


class FinetunePlan(NamedTuple):
    """An experiment, and how it came about.

    Attributes:
        config: The experiment, for `resnet_jax.training.train`.
        choices: Every decision with its reason.
        warnings: What may harm the result, in one line each.
    """

    config: TrainConfig
    choices: list[Choice]
    warnings: list[str]


def finetune_config(
    data: str | os.PathLike[str],
    weights: str | os.PathLike[str],
    model: str | None = None,
    **options: Unpack[FinetuneOptions],
) -> FinetunePlan:
    """Return the experiment that fine-tunes weights on a folder of images.

    The values follow from the data and the weights, most of them by the hyper-rule of BiT, see
    `resnet_jax.training.finetuning.hyper_rule`.  Unless the batch size is given, the training step
    is compiled, usually once, to find out whether its memory suffices.

    Args:
        data: Folder or table of images, see `resnet_jax.config.FolderConfig`. Test images are
            never used.
        weights: Name of published weights, ``hf://OWNER/NAME``, a run directory, or a file.
        model: Name of the network, for a file.
        **options: Values that are given, see `FinetuneOptions`. None is the same as leaving it out.

    Raises:
        ConfigError: The weights cannot be used, or an option has an impossible value.
        DataError: The images cannot be used.
        ImportError: The libraries that read the images are not installed.

    Examples:
        Fine-tune a ResNet-50::

            from resnet_jax.training import finetune_config, train

            plan = finetune_config("photos", "resnet50.a1_in1k", epochs=20)
            result = train(plan.config, "runs/photos")
    """
    photos = count_photos(FolderConfig(os.fspath(data), hold_out_validation=True))
    start = starting_point(weights, model)
    if not start.is_run and jax.default_backend() != "cpu":
        in_bfloat16 = dataclasses.replace(start.model, dtype="bfloat16")
        start = start._replace(model=in_bfloat16)
    num_train = photos.num_train
    images = images_of(data, start, options, mixup_alpha=hyper_rule(num_train).mixup_alpha)
    sizes = batch_sizes(jax.device_count(), largest=_largest_batch(num_train))
    given = options.get("batch_size")
    batch_size = sizes[-1] if given is None else given
    config = experiment_of(start, images, num_train, batch_size, options)
    network, mesh = check(config)
    # Weights that do not fit are refused before anything is compiled.
    tensors = read_starting_weights(config.model, network)
    fit = None
    if given is None:
        fit = largest_batch_that_fits(Run.open(config, network, mesh, tensors), sizes)
        config = experiment_of(start, images, num_train, fit.batch_size, options)
    choices = [
        *_about_data(images, photos),
        Choice("network", f"{start.model.name}, {start.model.dtype}", _named_by(start, model)),
        *_about_weights(start, images, len(photos.counts), options),
        _about_batch(config, photos, fit),
        *_about_training(config, photos, start, options),
    ]
    return FinetunePlan(config, choices, _warnings(photos, images, fit))


def _largest_batch(num_images: int) -> int:
    """Return the largest batch that is useful, even if more memory is free."""
    if num_images >= 20_000:
        return BATCH_SIZE
    return min(max(num_images // 8, _SMALLEST_BATCH), _SMALL_BATCH)


def _about_data(data: FolderConfig, photos: Photos) -> list[Choice]:
    names = list(photos.counts)
    listed = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    smallest, *_, largest = sorted(names, key=photos.counts.__getitem__)
    share = f"{data.evaluation_share:.0%} of each class held out"
    return [
        Choice("classes", f"{len(names)}: {listed}", f"those of {data.path}"),
        Choice(
            "images",
            f"{photos.num_train:,} train, {photos.num_validation:,} validation",
            f"{share}; test images are never used" if photos.held_out else "the splits of the data",
        ),
        Choice(
            "class balance",
            f"{photos.counts[smallest]:,} ({smallest}) to {photos.counts[largest]:,} ({largest})",
            f"{photos.imbalance:.1f} to 1; there is a warning above {IMBALANCE} to 1",
        ),
        *_about_sampling(data),
    ]


def _about_sampling(data: FolderConfig) -> list[Choice]:
    if data.sampling.classes == "uniform":
        return []
    value = {
        "balanced": "every class equally often",
        "square_root": "each class by the square root of its number of images",
    }[data.sampling.classes]
    return [Choice("sampling", value, _GIVEN)]


def _named_by(start: StartingPoint, model: str | None) -> str:
    return f"that of {start.model.weights}" if model is None else _GIVEN


def _about_weights(
    start: StartingPoint, data: FolderConfig, num_classes: int, options: FinetuneOptions
) -> list[Choice]:
    images = data.images
    same = start.num_classes == num_classes
    smallest, largest = images.crop_scale
    return [
        Choice(
            "head",
            f"{num_classes} classes",
            "that of the weights, which have as many" if same else "a new one for these classes",
        ),
        Choice(
            "image size",
            f"{images.image_size} pixels",
            "that of the weights" if options.get("image_size") is None else _GIVEN,
        ),
        Choice(
            "interpolation",
            images.eval_interpolation.removeprefix("pil_"),
            "that of the weights, in training too",
        ),
        Choice(
            "evaluation crop",
            f"{images.crop_fraction:.3g} of the short side"
            + ("" if images.crop_mode == "center" else f", {images.crop_mode}"),
            "that of the weights",
        ),
        Choice(
            "mean, std",
            f"{_numbers(images.augment.mean)}; {_numbers(images.augment.std)}",
            "those of the weights",
        ),
        Choice(
            "augmentation",
            f"crops of {smallest:.0%} to {largest:.0%} of the area, mirrored at random"
            + (f", mixup {images.augment.mixup_alpha}" if images.augment.mixup_alpha else ""),
            "little, as in BiT, because the run is short",
        ),
    ]


def _about_batch(config: TrainConfig, photos: Photos, fit: BatchFit | None) -> Choice:
    value = f"{config.batch_size} images"
    if fit is None:
        return Choice("batch size", value, _GIVEN)
    limit = _largest_batch(photos.num_train)
    usage = (
        f"its step needs {fit.needed / _GIGABYTE:.2g} GB of {fit.available / _GIGABYTE:.3g} GB free"
    )
    larger = [size for size in fit.analyses if size > fit.batch_size]
    why = (
        f"{larger[0]} images would need {fit.analyses[larger[0]] / _GIGABYTE:.3g} GB"
        if larger
        else f"at most {limit} for {photos.num_train:,} images"
    )
    return Choice("batch size", value, f"{usage}; {why}")


def _about_training(
    config: TrainConfig, photos: Photos, start: StartingPoint, options: FinetuneOptions
) -> list[Choice]:
    rule, early = hyper_rule(photos.num_train), config.early_stopping
    steps = config.steps(config.epochs, photos.num_train)
    every = config.evaluate_every_epochs
    network = "with BatchNorm" if start.has_batch_norm else "without BatchNorm"
    reasons = {
        "epochs": f"BiT's {rule.steps:,} steps for {rule.size}; "
        f"here within {MIN_EPOCHS} to {MAX_EPOCHS} epochs",
        "learning_rate": f"BiT's, for batches of {config.batch_size} and networks {network}",
        "head_epochs": f"{HEAD_SHARE:.0%} of the epochs; "
        "the gradients of a new head would spoil the features",
        "early_stopping": "the learning rate falls twice in this time, and may help",
    }
    reasons |= {name: _GIVEN for name in reasons if options.get(name) is not None}
    return [
        Choice("epochs", f"{config.epochs:g}, {steps:,} steps", reasons["epochs"]),
        Choice("learning rate", f"{config.peak_learning_rate:g}", reasons["learning_rate"]),
        Choice(
            "schedule",
            f"warm-up for {100 * rule.warmup:g}%, falls to a tenth at "
            + ", ".join(f"{share:.0%}" for share in rule.decays),
            "BiT's; no weight decay either",
        ),
        Choice("head first", f"{config.finetune.head_epochs:g} epochs", reasons["head_epochs"]),
        Choice(
            "averages",
            f"decay {config.averaging.decay}, with warm-up",
            "they are evaluated; the warm-up suits short runs",
        ),
        Choice(
            "early stopping",
            f"after {early.patience} evaluations without a lower validation loss"
            if early.patience
            else "off",
            reasons["early_stopping"],
        ),
        Choice("evaluation", f"every {every:g} epoch{'s' if every > 1 else ''}", "on validation"),
    ]


def _warnings(photos: Photos, data: FolderConfig, fit: BatchFit | None) -> list[str]:
    warnings = []
    if photos.imbalance > IMBALANCE and data.sampling.classes == "uniform":
        warnings.append(
            f"The largest class has {photos.imbalance:.0f} times the images of the smallest. The "
            "network will prefer it: collect more images of the small classes, or draw them more "
            'often with the option sampling "square_root" or "balanced", and look at the recall of '
            "each class rather than at the accuracy."
        )
    if fit is not None and not fit.fits:
        warnings.append(
            f"Even a batch of {fit.batch_size} needs {fit.needed / _GIGABYTE:.3g} GB, and "
            f"{SHARE:.0%} of the free {fit.available / _GIGABYTE:.3g} GB is all that should be "
            "used: give a smaller image size, or choose a smaller network."
        )
    return warnings


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.3f}" for value in values)

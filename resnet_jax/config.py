"""What a training run is made of: frozen dataclasses that refuse impossible values.

The docstring below each field is its help on the command line, with its unit; the default stands
beside it there.
"""

import dataclasses
import itertools
import json
import math
import re
from collections.abc import Iterator
from typing import Any, Literal


class ConfigError(Exception):
    """A configuration that cannot work; the message names the field, its value and the remedy."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def _require_positive(config: Any, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        _require(0 < value < math.inf, f"{name} must be above 0 and finite, but it is {value}")


def _require_not_negative(config: Any, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        _require(0 <= value < math.inf, f"{name} must be finite and not below 0, not {value}")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The network; see `resnet_jax.ResNet`."""

    name: str
    """One of resnet_jax.list_models()."""
    weights: str | None = None
    """Where training starts: a source of load_weights, such as hf://timm/resnet50.a1_in1k or a
    file; the head is new where the number of classes differs.  None starts from scratch."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type in which convolutions compute; parameters, statistics and logits stay float32."""
    zero_init_residual: bool = True
    """Start each block as the identity (Goyal et al. 2017, section 5.1)."""
    bn_decay: float = 0.9
    """Share of BatchNorm's running statistics that a step keeps, from 0 to below 1."""
    bn_epsilon: float = 1e-5
    """Added to BatchNorm's variance."""
    dropout_rate: float = 0.0
    """Share of the pooled features that training sets to zero before the head, 0 to below 1."""
    block_dropout_rate: float = 0.0
    """Share of the activations between the convolutions of pre-activation blocks that training sets
    to zero (Wide ResNet), 0 to below 1."""
    drop_path_rate: float = 0.0
    """Probability that an example skips the last block in training (stochastic depth); it rises
    linearly from 0 at the first block."""
    bn_group_size: int | Literal["batch", "device"] = "batch"
    """Consecutive images that share BatchNorm's statistics in training: the whole global batch, the
    share of each device (no communication, but the result depends on the number of devices), or so
    many."""
    freeze_bn: bool = False
    """Use BatchNorm's running statistics in training too, and leave them as they are."""
    remat: bool = False
    """Recompute each block in the backward pass instead of keeping its activations: less memory,
    more time."""
    scan: bool = False
    """Run the identical blocks of a stage of five blocks and more as one loop: a deep network
    compiles much quicker."""

    def __post_init__(self) -> None:
        _require(
            0 <= self.bn_decay < 1,
            f"bn_decay must be in [0, 1), but it is {self.bn_decay}",
        )
        _require_positive(self, "bn_epsilon")
        if isinstance(self.bn_group_size, int):
            _require_positive(self, "bn_group_size")
        for name in ("dropout_rate", "block_dropout_rate", "drop_path_rate"):
            rate = getattr(self, name)
            _require(0 <= rate < 1, f"{name} must be in [0, 1), but it is {rate}")


@dataclasses.dataclass(frozen=True)
class DigitsConfig:
    """scikit-learn's handwritten digits: 1,437 images to train on, 360 to test on."""

    evaluate_on: Literal["test", "validation"] = "test"
    """"validation" holds 360 of the 1,437 back for tuning and leaves the test images alone."""
    image_size: int = 16
    """Height and width that the 8x8 originals are resampled to, in pixels."""
    max_rotation: float = 15.0
    """Each training image is turned by up to this angle either way, in degrees."""
    max_scaling: float = 0.15
    """Each training image is magnified by up to this factor either way, as a natural logarithm."""
    max_shift: float = 1.0
    """Each training image is moved by up to this distance in y and in x, in original pixels."""

    @property
    def num_classes(self) -> int:
        """The digits from 0 to 9."""
        return 10

    def __post_init__(self) -> None:
        _require_positive(self, "image_size")
        _require_not_negative(self, "max_rotation", "max_scaling", "max_shift")


@dataclasses.dataclass(frozen=True)
class SyntheticConfig:
    """Random images and labels, made once, to measure speed without a data set."""

    image_size: int = 224
    """Height and width, in pixels."""
    num_classes: int = 1000
    """Labels are drawn from this many classes."""
    train_examples: int = 320
    """Size of the training split, in images."""
    test_examples: int = 64
    """Size of the test split, in images."""

    def __post_init__(self) -> None:
        _require_positive(self, "image_size", "num_classes", "train_examples", "test_examples")


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """What the device does to training images, in this order; see docs/augmentation.md."""

    crop_padding: int = 0
    """Crop the image's own size at random from the image with this many pixels added on every side;
    0 turns it off, 4 is usual for CIFAR."""
    crop_padding_mode: Literal["zeros", "reflect"] = "zeros"
    """What is added: black, or the image mirrored at its border."""
    flip: float = 0.5
    """Probability that left and right are swapped."""
    policy: Literal[
        "none",
        "randaugment",
        "timm_randaugment",
        "timm_randaugment_increasing",
        "trivial",
        "autoaugment",
        "autoaugment_cifar10",
        "three_augment",
    ] = "none"
    """Random operations on shapes and colours; timm's "rand-m9-mstd0.5-inc1" is
    "timm_randaugment_increasing", the other names are those of torchvision and DeiT III."""
    num_ops: int = 2
    """Operations an image (all RandAugments)."""
    magnitude: float = 9.0
    """Strength: a bin, from 0 to magnitude_bins - 1 (randaugment), or from 0 to 10 (timm's)."""
    magnitude_bins: int = 31
    """Number of strengths (randaugment, trivial)."""
    magnitude_std: float = 0.5
    """Standard deviation of the strength from image to image (timm's RandAugments)."""
    op_probability: float = 0.5
    """Probability that a drawn operation is done (timm's RandAugments)."""
    interpolation: Literal["nearest", "bilinear"] = "nearest"
    """Of the policy's shears, translations and rotations."""
    fill: tuple[int, ...] = (0,)
    """Grey level outside the image in these, 0 to 255; one value or one per channel."""
    color_jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """Brightness, contrast and saturation change by factors from 1 minus to 1 plus these; the hue
    turns by up to this share of the circle either way, at most 0.5."""
    grayscale: float = 0.0
    """Probability that an image loses its colours."""
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    """Subtracted from levels between 0 and 1; one value or one per channel.  ImageNet's."""
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    """What they are then divided by; one value or one per channel.  ImageNet's."""
    erasing: float = 0.0
    """Probability that rectangles are erased."""
    erasing_mode: Literal["const", "rand", "pixel"] = "pixel"
    """What they show: the mean, one random colour, or noise."""
    erasing_area: tuple[float, float] = (0.02, 1 / 3)
    """Smallest and largest share of the image that they cover together."""
    erasing_aspect: tuple[float, float] = (0.3, 1 / 0.3)
    """Smallest and largest height over width."""
    erasing_max_count: int = 1
    """Their number is uniform from 1 to this."""
    mixup_alpha: float = 0.0
    """Mixup's share comes from Beta(alpha, alpha); 0 turns it off."""
    cutmix_alpha: float = 0.0
    """The area that CutMix keeps comes from Beta(alpha, alpha); 0 turns it off."""
    mix_probability: float = 1.0
    """Probability that a batch is mixed."""
    mix_switch_probability: float = 0.5
    """Probability that it is CutMix, where both are on."""

    def __post_init__(self) -> None:
        _require_not_negative(
            self, "crop_padding", "magnitude", "magnitude_std", "mixup_alpha", "cutmix_alpha"
        )
        _require_positive(self, "num_ops", "erasing_max_count")
        for name in (
            "flip",
            "op_probability",
            "grayscale",
            "erasing",
            "mix_probability",
            "mix_switch_probability",
        ):
            probability = getattr(self, name)
            _require(
                0 <= probability <= 1,
                f"{name} is a probability, from 0 to 1, but it is {probability}",
            )
        _require(
            self.magnitude_bins >= 2,
            f"magnitude_bins must be at least 2, but it is {self.magnitude_bins}",
        )
        highest = {
            "randaugment": self.magnitude_bins - 1,
            "timm_randaugment": 10,
            "timm_randaugment_increasing": 10,
        }.get(self.policy, math.inf)
        _require(
            self.magnitude <= highest,
            f"magnitude must be at most {highest} for {self.policy}, but it is {self.magnitude}",
        )
        _require(
            min(self.color_jitter) >= 0 and self.color_jitter[3] <= 0.5,
            f"color_jitter must not be negative, and its last value, the hue, at most 0.5; "
            f"it is {self.color_jitter}",
        )
        _require(
            all(0 <= level <= 255 for level in self.fill) and bool(self.fill),
            f"fill must be one level from 0 to 255 or one per channel, but it is {self.fill}",
        )
        _require(
            bool(self.mean) and bool(self.std) and min(self.std, default=0) > 0,
            f"mean and std must have one value or one per channel, and std must be above 0; "
            f"they are {self.mean} and {self.std}",
        )
        for name, lowest, highest in (
            ("erasing_area", 0, 1),
            ("erasing_aspect", 0, math.inf),
        ):
            smaller, larger = getattr(self, name)
            _require(
                lowest < smaller <= larger <= highest,
                f"{name} must be a smallest and a largest value above {lowest} and up to "
                f"{highest}, but it is {(smaller, larger)}",
            )


@dataclasses.dataclass(frozen=True)
class ImageConfig:
    """What the host does to images in files; a data set of them adds where they are."""

    image_size: int = 224
    """Height and width that the network gets, in pixels."""
    crop_scale: tuple[float, float] = (0.08, 1.0)
    """Smallest and largest share of the area of a training image that is cut out."""
    crop_ratio: tuple[float, float] = (0.75, 4 / 3)
    """Smallest and largest width over height of it."""
    train_interpolation: Literal["linear", "pil_bilinear", "pil_bicubic"] = "linear"
    """How it is resized: OpenCV's without antialiasing is fastest, the others are Pillow's."""
    crop_fraction: float = 0.875
    """In evaluation, side of the central crop over the short side of the image, above 0 to 1."""
    eval_interpolation: Literal["linear", "pil_bilinear", "pil_bicubic"] = "pil_bilinear"
    """How the image is resized before it; published weights ask for Pillow's."""
    repeats: int = 1
    """Each image that an epoch draws comes so often in a row, cropped anew (repeated augmentation,
    Hoffer et al. 2019); the epoch is as long as ever."""
    on_unreadable: Literal["fail", "skip"] = "fail"
    """A file that is no whole image ends the run, or is skipped and reported."""
    threads: int = 0
    """That read and decode; 0 for as many as this process may use cores."""
    workers: int = 0
    """Processes of so many threads each; 0 leaves the threads in the main one."""
    augment: AugmentConfig = AugmentConfig()
    """What the device then does to training images."""

    def __post_init__(self) -> None:
        _require_positive(self, "image_size", "repeats")
        _require_not_negative(self, "threads", "workers")
        for name in ("crop_scale", "crop_ratio"):
            low, high = getattr(self, name)
            _require(
                0 < low <= high < math.inf,
                f"{name} must go from a number above 0 to one not below it, not {low} to {high}",
            )
        _require(self.crop_scale[1] <= 1, f"crop_scale ends at 1, not at {self.crop_scale[1]}")
        _require(
            0 < self.crop_fraction <= 1,
            f"crop_fraction must be in (0, 1], but it is {self.crop_fraction}",
        )


@dataclasses.dataclass(frozen=True)
class FolderConfig:
    """Images in a folder for each class, or named by a table."""

    path: str
    """Directory with train/CLASS/ and val/CLASS/ (or test/CLASS/), or with CLASS/ alone; or a .csv
    or .jsonl with columns image, label and perhaps split.  A path, or a URL such as gs://BUCKET."""
    evaluation_share: float = 0.2
    """Where there is no evaluation split, this share of the images of each class, above 0 and below
    1."""
    split_seed: int = 0
    """Decides which images those are."""
    images: ImageConfig = ImageConfig()
    """How the images are read."""

    def __post_init__(self) -> None:
        _require_not_negative(self, "split_seed")
        _require(
            0 < self.evaluation_share < 1,
            f"evaluation_share must be above 0 and below 1, but it is {self.evaluation_share}",
        )


@dataclasses.dataclass(frozen=True)
class _TfdsSplits:
    directory: str
    """Of the prepared data set, with dataset_info.json in it; or the one above, with a name.  A
    path, or a URL such as gs://BUCKET/DIRECTORY."""
    name: str | None = None
    """Such as imagenet2012 or imagenet2012:5.1.0."""
    train_split: str = "train"
    """Such as "train" or "train[:90%]"."""
    evaluation_split: str = "validation"
    """The accuracy is reported on it.  Unless its name begins with "test", checkpoints are chosen
    by it."""
    image_key: str = "image"
    """Name of the feature that holds the image."""
    label_key: str = "label"
    """Name of the feature that holds the label."""


@dataclasses.dataclass(frozen=True)
class TfdsConfig(_TfdsSplits):
    """A data set prepared by TensorFlow Datasets, as array_record, parquet or TFRecord."""

    images: ImageConfig = ImageConfig()
    """How the images are read."""


@dataclasses.dataclass(frozen=True)
class TfdsArraysConfig(_TfdsSplits):
    """A data set of the same kind, of images of one size such as CIFAR-10's: kept in memory."""

    augment: AugmentConfig = AugmentConfig()
    """What the device does to training images."""


DataConfig = DigitsConfig | SyntheticConfig | FolderConfig | TfdsConfig | TfdsArraysConfig


@dataclasses.dataclass(frozen=True)
class SGDConfig:
    """Stochastic gradient descent with momentum, and the schedule of its learning rate."""

    learning_rate: float = 0.1
    """Learning rate at the end of the warm-up, for the global batch as it is."""
    warmup_epochs: float = 5.0
    """The learning rate rises linearly from 0 over this many epochs."""
    schedule: Literal["cosine", "steps"] = "cosine"
    """After the warm-up, half a cosine down to zero, or constant but for the decay_epochs."""
    decay_epochs: tuple[float, ...] = ()
    """After so many epochs each, the learning rate is multiplied by decay_factor (steps)."""
    decay_factor: float = 0.1
    """At each of the decay_epochs, above 0 (steps)."""
    momentum: float = 0.9
    """Share of the last update that is kept, from 0 to below 1."""
    nesterov: bool = True
    """Use Nesterov momentum."""
    weight_decay: float = 1e-4
    """L2 coefficient; times the parameter, it is added to the gradient as in PyTorch's SGD."""
    decay_norm_and_bias: bool = False
    """Decay norm scales and all biases too, as torchvision's first recipe does."""
    freeze: tuple[str, ...] = ()
    """Regular expressions, such as "stem" and "stage[12]/.*norm"; parameters whose path one of them
    matches from its start stay as they are."""
    layer_decay: float = 1.0
    """The learning rate of a block is this times that of the next one, and the head has it all; for
    fine-tuning, 0.5 to 1."""

    def __post_init__(self) -> None:
        _require_positive(self, "learning_rate", "decay_factor")
        _require_not_negative(self, "warmup_epochs", "weight_decay")
        _require(
            (self.schedule == "steps") == bool(self.decay_epochs),
            f"schedule steps needs decay_epochs, and cosine takes none; they are "
            f"{self.schedule} and {self.decay_epochs}",
        )
        _require(
            all(a < b for a, b in itertools.pairwise((self.warmup_epochs, *self.decay_epochs))),
            f"decay_epochs must rise and lie behind warmup_epochs ({self.warmup_epochs}), but they "
            f"are {self.decay_epochs}",
        )
        _require(
            0 <= self.momentum < 1,
            f"momentum must be in [0, 1), but it is {self.momentum}",
        )
        _require(
            0 < self.layer_decay <= 1,
            f"layer_decay must be in (0, 1], but it is {self.layer_decay}",
        )
        for pattern in self.freeze:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ConfigError(
                    f"freeze: {pattern!r} is no regular expression: {error}"
                ) from None
        _require(
            self.momentum > 0 or not self.nesterov,
            "nesterov needs momentum above 0; set momentum, or nesterov to False",
        )


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """When checkpoints are written and which ones stay."""

    every_steps: int = 1000
    """Save each time this many steps are done, and at the end."""
    keep_latest: int = 2
    """How many of the newest checkpoints stay."""
    keep_best: int = 1
    """How many of the best stay: by validation error, or by training loss where the data has no
    validation split.  Test images never take part in the choice."""

    def __post_init__(self) -> None:
        _require_positive(self, "every_steps", "keep_latest")
        _require_not_negative(self, "keep_best")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """An experiment: everything that decides the result of a training run."""

    model: ModelConfig
    """The network."""
    data: DataConfig
    """The images."""
    optimizer: SGDConfig = SGDConfig()
    """The optimizer and its schedule."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    """Checkpoints."""
    batch_size: int = 128
    """Global batch, in images; every device gets an equal share."""
    epochs: float = 90.0
    """Passes over the training split."""
    label_smoothing: float = 0.0
    """Share of the target spread evenly over all classes, from 0 to below 1."""
    ema_decay: float = 0.0
    """Share that a step keeps of the moving averages of parameters and running statistics, which
    are then what is evaluated; 0 turns them off, 0.9999 is usual for ImageNet."""
    ema_warmup: bool = False
    """Keep at most (1 + t) / (10 + t) after t steps, so that short runs forget how they began."""
    shard_optimizer: bool = False
    """Spread the optimizer's state and the moving averages over the devices instead of keeping all
    on each (ZeRO, stage 1): less memory, the same result."""
    seed: int = 0
    """Decides initial parameters, data order and augmentation."""
    log_every_steps: int = 50
    """Metrics are fetched and written each time this many steps are done."""
    evaluate_every_epochs: float = 1.0
    """Evaluate each time this many epochs are done, and at the end."""

    def __post_init__(self) -> None:
        _require_positive(self, "batch_size", "epochs", "log_every_steps", "evaluate_every_epochs")
        _require_not_negative(self, "seed")
        _require(
            0 <= self.label_smoothing < 1,
            f"label_smoothing must be in [0, 1), but it is {self.label_smoothing}",
        )
        _require(
            0 <= self.ema_decay < 1, f"ema_decay must be in [0, 1), but it is {self.ema_decay}"
        )
        _require(
            self.ema_decay > 0 or not self.ema_warmup,
            "ema_warmup needs ema_decay above 0; set ema_decay, or ema_warmup to False",
        )
        _require(
            self.optimizer.warmup_epochs < self.epochs,
            f"optimizer.warmup_epochs ({self.optimizer.warmup_epochs}) must be below epochs "
            f"({self.epochs})",
        )
        _require(
            max(self.optimizer.decay_epochs, default=0) < self.epochs,
            f"optimizer.decay_epochs {self.optimizer.decay_epochs} must be below epochs "
            f"({self.epochs}); change both",
        )

    def check_devices(self, num_devices: int) -> None:
        """Raises `ConfigError` where the global batch cannot be shared evenly by the devices."""
        if self.batch_size % num_devices:
            lower = self.batch_size // num_devices * num_devices
            near = [str(size) for size in (lower, lower + num_devices) if size > 0]
            raise ConfigError(
                f"batch_size {self.batch_size} cannot be shared evenly by {num_devices} devices; "
                f"use {' or '.join(near)}"
            )

    def statistics_size(self, num_devices: int) -> int | None:
        """Images that share BatchNorm's statistics on so many devices; None is the whole batch.

        Raises:
            ConfigError: the batch does not consist of whole groups.
        """
        size = self.model.bn_group_size
        if size == "batch":
            return None
        if size == "device":
            return self.batch_size // num_devices
        if self.batch_size % size:
            raise ConfigError(
                f"batch_size {self.batch_size} has no whole groups of model.bn_group_size {size}; "
                "use a divisor of the batch size"
            )
        return size

    def steps(self, epochs: float, train_examples: int) -> int:
        """The number of steps nearest to so many epochs, at least 1."""
        return max(1, math.floor(epochs * train_examples / self.batch_size + 0.5))

    def to_json(self) -> dict[str, Any]:
        """Nested plain values, each data set with its kind."""
        plain = dataclasses.asdict(self)
        plain["data"] = {"kind": type(self.data).__name__, **plain["data"]}
        return json.loads(json.dumps(plain))


@dataclasses.dataclass(frozen=True)
class DistributedConfig:
    """Several processes for one run.

    It is no part of the experiment: a run may be continued with another number of them.
    """

    coordinator_address: str | None = None
    """HOST:PORT at which process 0 listens; the same in every process."""
    num_processes: int | None = None
    """Number of processes."""
    process_id: int | None = None
    """Number of this process, from 0."""
    auto: bool = False
    """Take all three from the cluster: Slurm, Open MPI, Kubernetes, GKE or Cloud TPU."""
    initialization_timeout: int = 300
    """In seconds; all processes must have come by then."""
    heartbeat_timeout: int = 30
    """In seconds; a process that gives no sign of life for so long ends the run."""

    @property
    def requested(self) -> bool:
        """Whether the run has several processes at all."""
        return self.auto or self.coordinator_address is not None

    def __post_init__(self) -> None:
        _require_positive(self, "initialization_timeout", "heartbeat_timeout")
        given = (self.coordinator_address, self.num_processes, self.process_id)
        if self.auto:
            _require(
                given == (None, None, None),
                "distributed.auto finds coordinator_address, num_processes and process_id; give "
                "either it or them",
            )
        elif given != (None, None, None):
            _require(
                None not in given,
                "distributed needs coordinator_address, num_processes and process_id, not only "
                "some of them; or auto",
            )
            host, _, port = str(self.coordinator_address).rpartition(":")
            _require(
                bool(host) and port.isdigit() and 0 < int(port) < 2**16,
                f"distributed.coordinator_address must be HOST:PORT, not "
                f"{self.coordinator_address!r}",
            )
            _require(
                0 <= int(self.process_id or 0) < int(self.num_processes or 0),
                f"distributed.process_id must be from 0 to below num_processes "
                f"({self.num_processes}), not {self.process_id}",
            )


@dataclasses.dataclass(frozen=True)
class ProfileConfig:
    """A trace of some steps for xprof and TensorBoard, in the work directory."""

    steps: tuple[int, int] | None = None
    """First and last step to trace, counted from 1; they must not have been done already."""

    def __post_init__(self) -> None:
        _require(
            self.steps is None or 1 <= self.steps[0] <= self.steps[1],
            f"profile.steps must be a first step of at least 1 and a last one, not {self.steps}",
        )

    def check_steps(self, total_steps: int) -> None:
        """Raises `ConfigError` where the run ends before."""
        _require(
            self.steps is None or self.steps[1] <= total_steps,
            f"profile.steps {self.steps} is out of reach: the run has {total_steps} steps",
        )


def differing_fields(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """The dotted names in which two `TrainConfig.to_json` differ, with both values."""
    left, right = dict(_flatten(ours)), dict(_flatten(theirs))
    return [
        f"{name}: {right.get(name, 'absent')!r} there, {left.get(name, 'absent')!r} here"
        for name in left | right
        if left.get(name, "absent") != right.get(name, "absent")
    ]


def _flatten(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value

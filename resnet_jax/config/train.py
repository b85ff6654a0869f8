"""Configuration of a whole training run."""

import dataclasses
import math
from typing import Any, Literal

from resnet_jax.config.averaging import AveragingConfig
from resnet_jax.config.checkpoint import CheckpointConfig
from resnet_jax.config.clip import ClipConfig
from resnet_jax.config.data import DataConfig, augmentation_of
from resnet_jax.config.distillation import DistillationConfig
from resnet_jax.config.early_stopping import EarlyStoppingConfig
from resnet_jax.config.finetune import FinetuneConfig
from resnet_jax.config.guard import GuardConfig
from resnet_jax.config.loss import LossConfig, SoftmaxConfig
from resnet_jax.config.model import ModelConfig
from resnet_jax.config.optimizers import LambConfig, MuonConfig, OptimizerConfig, SGDConfig
from resnet_jax.config.resizing import ResizingConfig
from resnet_jax.config.sam import SamConfig
from resnet_jax.config.schedules import CosineConfig, ScheduleConfig
from resnet_jax.config.validation import (
    ConfigError,
    require,
    require_not_negative,
    require_positive,
)

SCALING_BATCH_SIZE = 256
"""Batch size for which `TrainConfig.learning_rate_scaling` does not change the learning rate."""


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """An experiment, that is, everything that decides the result of a training run.

    Every field has a default under which the runs of older versions continue.
    """

    model: ModelConfig
    """The network."""
    data: DataConfig
    """The images."""
    optimizer: OptimizerConfig = SGDConfig()
    """The optimizer."""
    clip: ClipConfig = ClipConfig()
    """Limits of the gradients."""
    schedule: ScheduleConfig = CosineConfig()
    """How the learning rate changes during the run."""
    learning_rate_scaling: Literal["none", "linear", "square_root"] = "none"
    """Rule that computes the peak of the schedule from optimizer.learning_rate. "none" uses it
    unchanged. "linear" multiplies it by batch_size / 256 (Goyal et al. 2017). "square_root"
    multiplies it by the square root of batch_size / 256, which is usual for LAMB and Adam."""
    loss: LossConfig = SoftmaxConfig()
    """What training minimizes."""
    distillation: DistillationConfig = DistillationConfig()
    """Learning from a teacher."""
    averaging: AveragingConfig = AveragingConfig()
    """Averages of parameters and running statistics."""
    sam: SamConfig = SamConfig()
    """Sharpness-aware minimization."""
    guard: GuardConfig = GuardConfig()
    """What happens if the loss or a gradient of a step is not finite."""
    resizing: ResizingConfig = ResizingConfig()
    """Smaller training images at the beginning of the run."""
    finetune: FinetuneConfig = FinetuneConfig()
    """Which layers are trained, when, and how fast."""
    early_stopping: EarlyStoppingConfig = EarlyStoppingConfig()
    """When the run ends before its last epoch."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    """Checkpoints."""
    batch_size: int = 128
    """Number of images in the global batch. The devices share it evenly."""
    accumulate_steps: int = 1
    """Number of microbatches into which each batch is divided, so that a step needs less memory.
    The gradients of the microbatches are averaged. BatchNorm uses the statistics of each microbatch
    by itself. A teacher and evaluations also use batches of the size of a microbatch. 1 computes
    the whole batch at once."""
    epochs: float = 90.0
    """Number of passes over the training split."""
    shard_optimizer: bool = False
    """Distribute the optimizer state and the moving averages over the devices instead of keeping a
    copy on each (ZeRO, stage 1): less memory, the same result."""
    seed: int = 0
    """Seed of the initial parameters, the order of the data and the augmentation."""
    log_every_steps: int = 50
    """Number of steps from one record of the metrics to the next."""
    evaluate_every_epochs: float = 1.0
    """Number of epochs from one evaluation to the next. The last step is always evaluated."""
    tta: Literal["none", "flip"] = "none"
    """Views of an image over which evaluations average the logits (test-time augmentation). "flip"
    adds the mirror image, which takes twice the time."""

    def __post_init__(self) -> None:
        require_positive(self, "batch_size", "accumulate_steps", "epochs", "log_every_steps")
        require_positive(self, "evaluate_every_epochs")
        require(
            self.batch_size % self.accumulate_steps == 0,
            f"batch_size {self.batch_size} cannot be divided into {self.accumulate_steps} equal "
            "microbatches; set accumulate_steps to a divisor of the batch size",
        )
        require_not_negative(self, "seed")
        head_epochs = self.finetune.head_epochs
        require(
            head_epochs < self.epochs,
            f"finetune.head_epochs ({head_epochs:g}) must be below epochs ({self.epochs:g}), which "
            "include them; change one of them",
        )
        require(
            self.early_stopping.patience is None or self.checkpoint.keep_best > 0,
            "early_stopping needs the best checkpoint; set checkpoint.keep_best to 1, or "
            "early_stopping.patience to None",
        )
        require(
            not (isinstance(self.optimizer, MuonConfig) and self.optimizer.renormalize)
            or self.finetune.layer_decay == 1,
            "optimizer.renormalize sets the norms of kernels, which finetune.layer_decay "
            f"({self.finetune.layer_decay:g}) would undo; set renormalize to False, or layer_decay "
            "to 1",
        )
        self.schedule.check_epochs(self.schedule_epochs)
        require(
            self.averaging.start_epoch < self.epochs,
            f"averaging.start_epoch ({self.averaging.start_epoch:g}) must be below epochs "
            f"({self.epochs:g})",
        )
        require(
            self.model.dtype != "float16" or self.guard.skip is not False,
            "model.dtype float16 needs a guard, because loss scaling skips the steps that "
            "overflow; set guard.skip to None or True",
        )
        require(
            self.averaging.statistics != "recomputed"
            or not (self.model.freeze_bn or self.finetune.freezes_statistics),
            'averaging.statistics "recomputed" changes the statistics of all layers, but some are '
            'frozen; set it to "averaged" or "copied"',
        )
        augment = augmentation_of(self.data)
        mixes = augment is not None and augment.mixes
        require(
            not (mixes and self.distillation.is_file),
            f"distillation.teacher {self.distillation.teacher} has logits of images that are not "
            "mixed; set mixup_alpha and cutmix_alpha to 0, or give a network as the teacher",
        )

        sampling = getattr(self.data, "sampling", None)
        require(
            sampling is None or sampling.classes == "uniform" or not self.loss.uses_class_counts,
            "data.sampling.classes and loss.class_weights or logit_adjustment would correct twice "
            'for classes of different sizes; set data.sampling.classes to "uniform", or '
            'loss.class_weights to "none" and logit_adjustment to 0',
        )
        require(
            not isinstance(self.optimizer, LambConfig)
            or self.optimizer.max_gradient_norm is None
            or self.clip.global_norm is None,
            "the optimizer lamb limits the norm of all gradients itself; leave out "
            "clip.global_norm and set optimizer.max_gradient_norm",
        )
        resizing = self.resizing
        require(
            resizing.initial_size is None or math.ceil(resizing.end_epoch) < self.epochs,
            f"resizing.end_epoch ({resizing.end_epoch:g}) leaves no epoch of {self.epochs:g} with "
            "images of full size; lower it, or set resizing.initial_size to None",
        )
        averaging = self.averaging
        halves = averaging.half_life_steps > 0 and averaging.every_steps == "epoch"
        require(
            not self.resizing.batch_sizes or not (halves or averaging.warmup == "torchvision"),
            "resizing.batch_sizes makes the number of steps differ between epochs, but the decays "
            'of averaging.warmup "torchvision", and of half_life_steps with every_steps "epoch", '
            "depend on it; leave out either",
        )

    @property
    def schedule_epochs(self) -> float:
        """Number of epochs of the schedule, which begins after ``finetune.head_epochs``."""
        return self.epochs - self.finetune.head_epochs

    @property
    def skips_steps(self) -> bool:
        """Whether a step whose loss or gradients are not finite is skipped."""
        return self.model.dtype == "float16" if self.guard.skip is None else self.guard.skip

    @property
    def microbatch_size(self) -> int:
        """Number of images that the network is given at once, on all devices together."""
        return self.batch_size // self.accumulate_steps

    @property
    def learning_rate_factor(self) -> float:
        """Factor by which ``learning_rate_scaling`` multiplies the learning rate."""
        if self.learning_rate_scaling == "none":
            return 1.0
        share = self.batch_size / SCALING_BATCH_SIZE
        return share if self.learning_rate_scaling == "linear" else math.sqrt(share)

    @property
    def peak_learning_rate(self) -> float:
        """Learning rate at the peak of the schedule, scaled for the batch size."""
        return self.optimizer.learning_rate * self.learning_rate_factor

    def check_devices(self, num_devices: int) -> None:
        """Raise `ConfigError` if the devices cannot share the global batch evenly."""
        shares = num_devices * self.accumulate_steps
        if self.batch_size % shares:
            lower = self.batch_size // shares * shares
            near = [str(size) for size in (lower, lower + shares) if size > 0]
            each = f" in {self.accumulate_steps} microbatches" if self.accumulate_steps > 1 else ""
            raise ConfigError(
                f"batch_size {self.batch_size} cannot be shared evenly by {num_devices} "
                f"devices{each}; use {' or '.join(near)}"
            )

    def statistics_size(self, num_devices: int) -> int | None:
        """Return how many images share BatchNorm statistics; None means the whole microbatch.

        Args:
            num_devices: number of devices of the run.

        Raises:
            ConfigError: the batch, or each microbatch, does not consist of whole groups.
        """
        size, whole = self.model.bn_group_size, self.microbatch_size
        if size == "batch":
            return None
        if size == "device":
            return whole // num_devices
        if whole % size:
            name = "batch_size" if self.accumulate_steps == 1 else "a microbatch of"
            raise ConfigError(
                f"{name} {whole} has no whole groups of model.bn_group_size {size}; use a divisor "
                f"of {'the batch size' if self.accumulate_steps == 1 else whole}"
            )
        return size

    def steps(self, epochs: float, train_examples: int) -> int:
        """Return the number of steps nearest to a number of epochs, at least 1."""
        return max(1, math.floor(epochs * train_examples / self.batch_size + 0.5))

    def check_types(self) -> None:
        """Raise `ConfigError` if a field has a value of another type, or none of its choices.

        Python accepts such a value, and ``config.json`` could not be read again.
        """
        type(self).from_json(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """Return nested plain values; see `resnet_jax.config.serialization`."""
        from resnet_jax.config.serialization import to_json

        return to_json(self)

    @classmethod
    def from_json(cls, plain: Any) -> "TrainConfig":
        """Return the configuration that `to_json` of this or an older version wrote.

        Raises:
            ConfigError: a field is unknown or has an impossible value, or a newer version of
                resnet_jax wrote it.
        """
        from resnet_jax.config.serialization import from_json

        return from_json(plain)

"""Configuration of a whole training run."""

import dataclasses
import math
from typing import Any

from resnet_jax.config.averaging import AveragingConfig
from resnet_jax.config.checkpoint import CheckpointConfig
from resnet_jax.config.data import DataConfig
from resnet_jax.config.early_stopping import EarlyStoppingConfig
from resnet_jax.config.finetune import FinetuneConfig
from resnet_jax.config.loss import LossConfig, SoftmaxConfig
from resnet_jax.config.model import ModelConfig
from resnet_jax.config.optimizers import OptimizerConfig, SGDConfig
from resnet_jax.config.resizing import ResizingConfig
from resnet_jax.config.schedules import CosineConfig, ScheduleConfig
from resnet_jax.config.validation import (
    ConfigError,
    require,
    require_not_negative,
    require_positive,
)


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
    schedule: ScheduleConfig = CosineConfig()
    """How the learning rate changes during the run."""
    loss: LossConfig = SoftmaxConfig()
    """What training minimizes."""
    averaging: AveragingConfig = AveragingConfig()
    """Moving averages of parameters and running statistics."""
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

    def __post_init__(self) -> None:
        require_positive(self, "batch_size", "epochs", "log_every_steps", "evaluate_every_epochs")
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
        self.schedule.check_epochs(self.schedule_epochs)

    @property
    def schedule_epochs(self) -> float:
        """Number of epochs of the schedule, which begins after ``finetune.head_epochs``."""
        return self.epochs - self.finetune.head_epochs

    def check_devices(self, num_devices: int) -> None:
        """Raise `ConfigError` if the devices cannot share the global batch evenly."""
        if self.batch_size % num_devices:
            lower = self.batch_size // num_devices * num_devices
            near = [str(size) for size in (lower, lower + num_devices) if size > 0]
            raise ConfigError(
                f"batch_size {self.batch_size} cannot be shared evenly by {num_devices} devices; "
                f"use {' or '.join(near)}"
            )

    def statistics_size(self, num_devices: int) -> int | None:
        """Return how many images share BatchNorm statistics; None means the whole batch.

        Args:
            num_devices: number of devices of the run.

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
        """Return the number of steps nearest to a number of epochs, at least 1."""
        return max(1, math.floor(epochs * train_examples / self.batch_size + 0.5))

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

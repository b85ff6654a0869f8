"""A run that is small enough for tests: a narrow network on digits of eight pixels."""

from collections.abc import Iterator

import pytest

from resnet_jax.config import (
    CheckpointConfig,
    CosineConfig,
    DigitsConfig,
    ModelConfig,
    SGDConfig,
    SoftmaxConfig,
    TrainConfig,
)
from resnet_jax.models.variants import _VARIANTS
from tests.training.tiny_train import NETWORKS

NETWORK = "cifar_resnet8"


@pytest.fixture(scope="module")
def small_config() -> Iterator[TrainConfig]:
    """An experiment of about 22 steps per epoch, whose network is known to the tests of a file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(_VARIANTS, NETWORK, NETWORKS[NETWORK])
        yield TrainConfig(
            model=ModelConfig(NETWORK),
            data=DigitsConfig(image_size=8),
            optimizer=SGDConfig(learning_rate=0.1, weight_decay=5e-4),
            schedule=CosineConfig(warmup_epochs=0.1),
            checkpoint=CheckpointConfig(every_steps=10),
            batch_size=64,
            epochs=1,
            loss=SoftmaxConfig(label_smoothing=0.1),
            log_every_steps=5,
        )

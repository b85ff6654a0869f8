"""A run that is small enough for tests: a narrow network on digits of eight pixels."""

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


@pytest.fixture(scope="session")
def small_config() -> TrainConfig:
    """An experiment of about 22 steps per epoch, of about 50 ms each."""
    return TrainConfig(
        model=ModelConfig("cifar_resnet20"),
        data=DigitsConfig(image_size=8),
        optimizer=SGDConfig(learning_rate=0.1, weight_decay=5e-4),
        schedule=CosineConfig(warmup_epochs=0.1),
        checkpoint=CheckpointConfig(every_steps=10),
        batch_size=64,
        epochs=1,
        loss=SoftmaxConfig(label_smoothing=0.1),
        log_every_steps=5,
    )

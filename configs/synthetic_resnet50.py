r"""ResNet-50 on random 224x224 images, to measure the training speed of a machine.

The accuracy has no meaning. The images are kept in memory, so the speed is that of the training
step alone. Two CPU cores need a few minutes for the 20 steps. On an accelerator, use a larger batch
and more examples:

    resnet-jax train synthetic-resnet50 --batch-size 256 --data.train-examples 25600 \
        --model.dtype bfloat16

Two cores of a Xeon with jax 0.10.2 reached 2.3 images/s and took 165 s in total.
"""

from resnet_jax.config import (
    CheckpointConfig,
    CosineConfig,
    ModelConfig,
    SGDConfig,
    SyntheticConfig,
    TrainConfig,
)

CONFIG = TrainConfig(
    model=ModelConfig("resnet50"),
    data=SyntheticConfig(),
    optimizer=SGDConfig(learning_rate=0.1),
    schedule=CosineConfig(warmup_epochs=0.0),
    checkpoint=CheckpointConfig(every_steps=1000),
    batch_size=16,
    epochs=1,
    log_every_steps=2,
)

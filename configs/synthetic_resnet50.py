"""ResNet-50 on random 224x224 images: how fast is training on this machine?

Accuracy means nothing here.  The images lie in memory, so the numbers show the training step
alone.  Two CPU cores need minutes for the 20 steps; on an accelerator raise the batch and the
number of examples:

    resnet-jax train synthetic-resnet50 --batch-size 256 --data.train-examples 25600 \
        --model.dtype bfloat16

Measured on two cores of a Xeon with jax 0.10.2: 2.3 images/s, 165 s in all.
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

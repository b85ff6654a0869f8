"""ResNet-50 on your own images, in one folder per class.

The folders are PATH/train/CLASS/ and PATH/val/CLASS/, or only PATH/CLASS/.

    resnet-jax train folder-resnet50 --data.path PATH

Images may have any format that Pillow reads, at any depth below the folder of their class. If there
is no val or test folder, a fifth of each class is held out for validation.
"""

from resnet_jax.config import (
    CosineConfig,
    FolderConfig,
    ModelConfig,
    SGDConfig,
    SoftmaxConfig,
    TrainConfig,
)

CONFIG = TrainConfig(
    model=ModelConfig("resnet50"),
    data=FolderConfig("images"),
    optimizer=SGDConfig(learning_rate=0.05),
    schedule=CosineConfig(warmup_epochs=2.0),
    batch_size=64,
    epochs=30.0,
    loss=SoftmaxConfig(label_smoothing=0.1),
    log_every_steps=10,
)

"""ResNet-50 on a folder of images: PATH/train/CLASS/ and PATH/val/CLASS/, or PATH/CLASS/ alone.

    resnet-jax train folder-resnet50 --data.path PATH

Every format that Pillow reads, at any depth below the folder of a class.  Without a val (or test)
folder, a fifth of each class is held back for validation.
"""

from resnet_jax.config import CosineConfig, FolderConfig, ModelConfig, SGDConfig, TrainConfig

CONFIG = TrainConfig(
    model=ModelConfig("resnet50"),
    data=FolderConfig("images"),
    optimizer=SGDConfig(learning_rate=0.05),
    schedule=CosineConfig(warmup_epochs=2.0),
    batch_size=64,
    epochs=30.0,
    label_smoothing=0.1,
    log_every_steps=10,
)

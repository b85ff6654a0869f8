"""Fine-tuning of all layers of a trained ResNet-50 on your own images.

The network starts from timm's weights resnet50.a1_in1k and a new head. In the first three epochs,
only the head is trained. After that, all layers are trained at the same learning rate, which falls
as a cosine. Averages of the parameters are evaluated.

    resnet-jax train folder-resnet50-finetune --data.path PATH

PATH is as in `folder-resnet50`. `resnet-jax finetune PATH --weights resnet50.a1_in1k` derives such
settings from your images and explains them. To train other parts of the network, see
`folder-resnet50-head` and `folder-resnet50-layer-decay`. The accuracy depends on the images, so
none is published.
"""

from resnet_jax.config import (
    AugmentConfig,
    AveragingConfig,
    CosineConfig,
    FinetuneConfig,
    FolderConfig,
    ImageConfig,
    ModelConfig,
    SGDConfig,
    TrainConfig,
)

CONFIG = TrainConfig(
    model=ModelConfig("resnet50", weights="hf://timm/resnet50.a1_in1k"),
    data=FolderConfig(
        "images",
        images=ImageConfig(
            # Most of the image, because a short run sees few crops of each.
            crop_scale=(0.35, 1.0),
            crop_fraction=0.95,
            train_interpolation="pil_bicubic",
            eval_interpolation="pil_bicubic",
            augment=AugmentConfig(),
        ),
    ),
    optimizer=SGDConfig(learning_rate=0.01, weight_decay=0.0),
    schedule=CosineConfig(warmup_epochs=1.0),
    averaging=AveragingConfig(decay=0.999, warmup="tensorflow"),
    finetune=FinetuneConfig(head_epochs=3.0),
    batch_size=64,
    epochs=30.0,
    log_every_steps=10,
)

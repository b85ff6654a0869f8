"""ResNet-50 on ImageNet-1k by procedure A3 of "ResNet strikes back" (arXiv:2110.00476), 100 epochs.

This is `imagenet-resnet50-rsb-a2` with a third of the epochs, a learning rate of 0.008, training at
160x160 pixels and evaluation at 224x224, RandAugment of strength 6, no repeated images and no
stochastic depth. BatchNorm uses groups of 512 images, as on four GPUs.

The published top-1 accuracy is 78.1 % (78.05 % in timm's results). The accuracy of this experiment
has not been measured yet.

    resnet-jax train imagenet-resnet50-rsb-a3 --data.directory ~/tensorflow_datasets
"""

import dataclasses

from resnet_jax.config import (
    CosineConfig,
    LambConfig,
    SamplingConfig,
    SigmoidConfig,
    TfdsConfig,
    load_experiment,
)

A2 = load_experiment("imagenet-resnet50-rsb-a2").config
assert isinstance(A2.data, TfdsConfig)
IMAGES = A2.data.images

CONFIG = dataclasses.replace(
    A2,
    model=dataclasses.replace(A2.model, drop_path_rate=0.0, bn_group_size=512),
    data=dataclasses.replace(
        A2.data,
        sampling=SamplingConfig(),
        images=dataclasses.replace(
            IMAGES,
            image_size=160,
            eval_image_size=224,
            repeats=1,
            augment=dataclasses.replace(IMAGES.augment, magnitude=6.0),
        ),
    ),
    optimizer=LambConfig(learning_rate=8e-3, weight_decay=0.02),
    schedule=CosineConfig(
        warmup_epochs=5.0,
        # 1e-4 and 1e-6 of a peak of 0.008.
        warmup_start=0.0125,
        end=1.25e-4,
        granularity="epoch",
        warmup_prefix=False,
    ),
    loss=SigmoidConfig(target_threshold=0.2),
    epochs=100.0,
)

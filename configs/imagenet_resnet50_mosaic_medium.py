"""ResNet-50 on ImageNet-1k by Mosaic's recipe "medium", 135 epochs.

This is `imagenet-resnet50-mosaic-mild` with 135 epochs, label smoothing of 0.1, mixup with alpha
0.2, and sharpness-aware minimization with a radius of 0.5 in every tenth step. The radius applies
to the gradient of the whole batch, and in the original to the gradient on each GPU.

No accuracy of exactly this run is published. The accuracy of this experiment has not been measured
yet.

    resnet-jax train imagenet-resnet50-mosaic-medium --data.directory ~/tensorflow_datasets
"""

import dataclasses

from resnet_jax.config import (
    AugmentConfig,
    ResizingConfig,
    SamConfig,
    SigmoidConfig,
    TfdsConfig,
    load_experiment,
)

MILD = load_experiment("imagenet-resnet50-mosaic-mild").config
assert isinstance(MILD.data, TfdsConfig)

CONFIG = dataclasses.replace(
    MILD,
    data=dataclasses.replace(
        MILD.data,
        images=dataclasses.replace(
            MILD.data.images, augment=AugmentConfig(mixup_alpha=0.2, mix_partner="random")
        ),
    ),
    loss=SigmoidConfig(label_smoothing=0.1, reduction="sum"),
    sam=SamConfig(rho=0.5, interval=10),
    # A delay of 40 % of the run, and 20 % of it at full size.
    resizing=ResizingConfig(initial_size=88, start_epoch=54.0, end_epoch=108.0, multiple_of=4),
    epochs=135.0,
)

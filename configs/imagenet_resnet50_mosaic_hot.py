"""ResNet-50 on ImageNet-1k by Mosaic's recipe "hot", 270 epochs, without ColOut.

This is `imagenet-resnet50-mosaic-medium` with 270 epochs, label smoothing of 0.13, mixup with alpha
0.25, sharpness-aware minimization in every fifth step, RandAugment with one operation, stochastic
depth of 0.1, and images that grow from 104x104 pixels between 20 and 80 % of the run.

There are three more differences than in "medium". The original also drops 5 % of the rows and
columns of the images (ColOut), which this library does not have. Its RandAugment is Composer's with
severity 9; here it is timm's with strength 9, which has other operations. Its stochastic depth
rises from a small rate in the first block; here it rises from 0.

No accuracy of exactly this run is published. The accuracy of this experiment has not been measured
yet.

    resnet-jax train imagenet-resnet50-mosaic-hot --data.directory ~/tensorflow_datasets
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

MEDIUM = load_experiment("imagenet-resnet50-mosaic-medium").config
assert isinstance(MEDIUM.data, TfdsConfig)

CONFIG = dataclasses.replace(
    MEDIUM,
    model=dataclasses.replace(MEDIUM.model, drop_path_rate=0.1),
    data=dataclasses.replace(
        MEDIUM.data,
        images=dataclasses.replace(
            MEDIUM.data.images,
            augment=AugmentConfig(
                policy="timm_randaugment",
                num_ops=1,
                magnitude=9.0,
                magnitude_std=0.0,
                op_probability=1.0,
                mixup_alpha=0.25,
                mix_partner="random",
            ),
        ),
    ),
    loss=SigmoidConfig(label_smoothing=0.13, reduction="sum"),
    sam=SamConfig(rho=0.5, interval=5),
    # A delay of 20 % of the run, and 20 % of it at full size.
    resizing=ResizingConfig(initial_size=104, start_epoch=54.0, end_epoch=216.0, multiple_of=4),
    epochs=270.0,
)

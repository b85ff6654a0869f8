"""ResNet-18 on ImageNet-1k in 88 epochs, by FFCV's recipe (Leclerc et al. 2022).

This is `imagenet-resnet18-ffcv-16ep` with 88 epochs. The images grow from 160x160 to 192x192 pixels
in epoch 71, as in rn18_configs/rn18_88_epochs.yaml of https://github.com/libffcv/ffcv-imagenet.

The published top-1 accuracy is 72.4 %, reached in 187.3 minutes on one A100 (README of the
repository). The accuracy of this experiment has not been measured yet.

    resnet-jax train imagenet-resnet18-ffcv-88ep --data.directory ~/tensorflow_datasets
"""

import dataclasses

from resnet_jax.config import ResizingConfig, load_experiment

CONFIG = dataclasses.replace(
    load_experiment("imagenet-resnet18-ffcv-16ep").config,
    resizing=ResizingConfig(initial_size=160, start_epoch=65.0, end_epoch=76.0),
    epochs=88.0,
)

"""ResNet-18 on ImageNet-1k in 32 epochs, by FFCV's recipe (Leclerc et al. 2022).

This is `imagenet-resnet18-ffcv-16ep` with 32 epochs. The images grow from 160x160 to 192x192 pixels
in epoch 25, as in rn18_configs/rn18_32_epochs.yaml of https://github.com/libffcv/ffcv-imagenet.

The published top-1 accuracy is 70.0 %, reached in 68.9 minutes on one A100 (README of the
repository). The accuracy of this experiment has not been measured yet.

    resnet-jax train imagenet-resnet18-ffcv-32ep --data.directory ~/tensorflow_datasets
"""

import dataclasses

from resnet_jax.config import ResizingConfig, load_experiment

CONFIG = dataclasses.replace(
    load_experiment("imagenet-resnet18-ffcv-16ep").config,
    resizing=ResizingConfig(initial_size=160, start_epoch=23.0, end_epoch=27.0),
    epochs=32.0,
)

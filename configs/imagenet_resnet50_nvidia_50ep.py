"""ResNet-50 (v1.5) on ImageNet-1k by NVIDIA's recipe for 50 epochs.

This is `imagenet-resnet50-nvidia-90ep` with 50 epochs. Nothing else differs.

The published top-1 accuracy is 75.81 % plus or minus 0.08 (README of
PyTorch/Classification/ConvNets/resnet50v1.5 in https://github.com/NVIDIA/DeepLearningExamples). It
was measured on a DGX-2 with a batch of 4,096, which is `--batch-size 4096`. The accuracy of this
experiment has not been measured yet.

    resnet-jax train imagenet-resnet50-nvidia-50ep --data.directory ~/tensorflow_datasets
"""

import dataclasses

from resnet_jax.config import load_experiment

CONFIG = dataclasses.replace(
    load_experiment("imagenet-resnet50-nvidia-90ep").config,
    epochs=50.0,
)

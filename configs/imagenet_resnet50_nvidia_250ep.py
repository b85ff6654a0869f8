"""ResNet-50 (v1.5) on ImageNet-1k by NVIDIA's recipe for 250 epochs, with mixup.

This is `imagenet-resnet50-nvidia-90ep` with 250 epochs and mixup with alpha 0.2. Mixup mixes the
images of a batch with the same images in a random order.

The published top-1 accuracy is 78.43 % plus or minus 0.11 on eight A100 (README of
PyTorch/Classification/ConvNets/resnet50v1.5 in https://github.com/NVIDIA/DeepLearningExamples). The
accuracy of this experiment has not been measured yet.

    resnet-jax train imagenet-resnet50-nvidia-250ep --data.directory ~/tensorflow_datasets
"""

import dataclasses

from resnet_jax.config import AugmentConfig, ImageConfig, TfdsConfig, load_experiment

CONFIG = dataclasses.replace(
    load_experiment("imagenet-resnet50-nvidia-90ep").config,
    data=TfdsConfig(
        "~/tensorflow_datasets",
        name="imagenet2012",
        images=ImageConfig(
            train_interpolation="pil_bilinear",
            augment=AugmentConfig(mixup_alpha=0.2, mix_partner="random"),
        ),
    ),
    epochs=250.0,
)

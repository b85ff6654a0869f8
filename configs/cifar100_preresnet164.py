"""Pre-activation ResNet-164 on CIFAR-100 (He et al. 2016, https://arxiv.org/abs/1603.05027).

This is `cifar10-preresnet164` with the images, mean and standard deviation of CIFAR-100.

The published test error is 24.33 %, the median of five runs. The test error of this experiment has
not been measured yet.

    resnet-jax train cifar100-preresnet164 --data.directory ~/tensorflow_datasets
"""

import dataclasses

from resnet_jax.config import load_experiment

CONFIG = dataclasses.replace(
    load_experiment("cifar10-preresnet164").config,
    data=load_experiment("cifar100-resnet110").config.data,
)

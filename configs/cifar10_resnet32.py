"""ResNet-32 on CIFAR-10 (He et al. 2015, https://arxiv.org/abs/1512.03385, section 4.2).

This is `cifar10-resnet20` with a deeper network. Nothing else differs.

The published test error is 7.51 %. The test error of this experiment has not been measured yet.

    resnet-jax train cifar10-resnet32 --data.directory ~/tensorflow_datasets
"""

import dataclasses

from resnet_jax.config import ModelConfig, load_experiment

CONFIG = dataclasses.replace(
    load_experiment("cifar10-resnet20").config,
    model=ModelConfig("cifar_resnet32", zero_init_residual=False),
)

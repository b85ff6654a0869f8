"""Pre-activation ResNet-164 on CIFAR-10 (He et al. 2016, https://arxiv.org/abs/1603.05027).

This is `cifar10-resnet110` with bottleneck blocks that normalize and activate before each
convolution. The training is the same in both papers.

The published test error is 5.46 %, the median of five runs. The test error of this experiment has
not been measured yet.

    resnet-jax train cifar10-preresnet164 --data.directory ~/tensorflow_datasets
"""

import dataclasses

from resnet_jax.config import ModelConfig, load_experiment

CONFIG = dataclasses.replace(
    load_experiment("cifar10-resnet110").config,
    model=ModelConfig("cifar_preresnet164", zero_init_residual=False),
)

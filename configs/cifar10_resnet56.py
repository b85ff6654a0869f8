"""ResNet-56 on CIFAR-10 (He et al. 2015, https://arxiv.org/abs/1512.03385, section 4.2).

This is the recipe of `cifar10-resnet20` with a deeper network.

Published test error: 6.97 %. It has not been measured here.

    resnet-jax train cifar10-resnet56 --data.directory ~/tensorflow_datasets

The data set is cifar10, as prepared by TensorFlow Datasets in array_record, parquet or TFRecord
format. Reading it does not need TensorFlow. All of it is kept in device memory.
"""

import dataclasses

from resnet_jax.config import ModelConfig, load_experiment

CONFIG = dataclasses.replace(
    load_experiment("cifar10-resnet20").config,
    model=ModelConfig("cifar_resnet56", zero_init_residual=False),
)

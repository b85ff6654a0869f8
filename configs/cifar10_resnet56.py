"""ResNet-56 on CIFAR-10 (He et al. 2015, https://arxiv.org/abs/1512.03385, section 4.2).

The recipe of `cifar10-resnet20`.  Published: 6.97 % test error; it has not been measured here.

    resnet-jax train cifar10-resnet56 --data.directory ~/tensorflow_datasets

The data set is cifar10 as TensorFlow Datasets prepares it, as array_record, parquet or TFRecord;
TensorFlow is not needed to read it.  It lies on the device as a whole.
"""

import dataclasses

from resnet_jax.config import ModelConfig, load_experiment

CONFIG = dataclasses.replace(
    load_experiment("cifar10-resnet20").config,
    model=ModelConfig("cifar_resnet56", zero_init_residual=False),
)

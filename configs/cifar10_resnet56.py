"""ResNet-56 on CIFAR-10 (He et al. 2015, https://arxiv.org/abs/1512.03385, section 4.2).

The recipe of `cifar10-resnet20`.  Published: 6.97 % test error; it has not been measured here.

    python train.py cifar10-resnet56 --data.directory ~/tensorflow_datasets

The data set is cifar10 as TensorFlow Datasets prepares it, as array_record, parquet or TFRecord;
TensorFlow is not needed to read it.  It lies on the device as a whole.
"""

import dataclasses

from configs import cifar10_resnet20
from resnet_jax.config import ModelConfig

CONFIG = dataclasses.replace(
    cifar10_resnet20.CONFIG, model=ModelConfig("cifar_resnet56", zero_init_residual=False)
)

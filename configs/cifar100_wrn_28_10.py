"""Wide ResNet-28-10 on CIFAR-100 (Zagoruyko and Komodakis 2016, https://arxiv.org/abs/1605.07146).

This is `cifar10-wrn-28-10` with the images of CIFAR-100. The mean and the standard deviation are
still those of CIFAR-10.

The published test error is 19.25 %. With a dropout rate of 0.3, which is
`--model.block-dropout-rate 0.3`, it is 18.85 %. Both are medians of five runs (README of the
repository). The test error of this experiment has not been measured yet.

    resnet-jax train cifar100-wrn-28-10 --data.directory ~/tensorflow_datasets
"""

import dataclasses

from resnet_jax.config import TfdsArraysConfig, load_experiment

CIFAR10 = load_experiment("cifar10-wrn-28-10").config
assert isinstance(CIFAR10.data, TfdsArraysConfig)

CONFIG = dataclasses.replace(CIFAR10, data=dataclasses.replace(CIFAR10.data, name="cifar100"))

"""ResNet-110 on CIFAR-10 (He et al. 2015, https://arxiv.org/abs/1512.03385, section 4.2).

This is `cifar10-resnet20` with a deeper network. The first 400 steps have a learning rate of 0.01,
as in the paper.

The published test error is 6.43 % in the best of five runs, and 6.61 % plus or minus 0.16 on
average. The test error of this experiment has not been measured yet.

    resnet-jax train cifar10-resnet110 --data.directory ~/tensorflow_datasets
"""

import dataclasses

from resnet_jax.config import LinearConfig, ModelConfig, load_experiment

CONFIG = dataclasses.replace(
    load_experiment("cifar10-resnet20").config,
    model=ModelConfig("cifar_resnet110", zero_init_residual=False),
    # 0.01 for 400 steps, 0.1 until step 32,000, 0.01 until step 48,000, and then 0.001.
    schedule=LinearConfig(
        warmup_epochs=0.0,
        points=(
            *((0.0, 0.1), (1.024, 0.1), (1.024, 1.0)),
            *((81.92, 1.0), (81.92, 0.1), (122.88, 0.1), (122.88, 0.01)),
        ),
        end=0.01,
    ),
)

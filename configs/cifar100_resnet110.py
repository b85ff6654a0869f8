"""ResNet-110 on CIFAR-100 (He et al. 2015, https://arxiv.org/abs/1512.03385, section 4.2).

This trains like `cifar10-resnet20`, but starts with one epoch of linear warm-up. The paper instead
trains a network of this depth at a learning rate of 0.01 for about the first 400 steps.

The paper has no result for CIFAR-100. Its best run of this network on CIFAR-10 has a test error of
6.43 %. The test error of this experiment has not been measured yet.

    resnet-jax train cifar100-resnet110 --data.directory ~/tensorflow_datasets

The data set is cifar100, as prepared by TensorFlow Datasets in array_record, parquet or TFRecord
format. It can be read without TensorFlow. The whole data set is kept in device memory.
"""

from resnet_jax.config import (
    AugmentConfig,
    ModelConfig,
    SGDConfig,
    StepsConfig,
    TfdsArraysConfig,
    TrainConfig,
)

CONFIG = TrainConfig(
    model=ModelConfig("cifar_resnet110", zero_init_residual=False),
    data=TfdsArraysConfig(
        "~/tensorflow_datasets",
        name="cifar100",
        evaluation_split="test",
        augment=AugmentConfig(
            crop_padding=4,
            mean=(0.5071, 0.4865, 0.4409),
            std=(0.2673, 0.2564, 0.2762),
        ),
    ),
    optimizer=SGDConfig(
        learning_rate=0.1,
        nesterov=False,
        weight_decay=1e-4,
        decay_on="all",
    ),
    schedule=StepsConfig(
        warmup_epochs=1.0,
        # Steps 32,000 and 48,000 of 64,000.
        decay_epochs=(81.92, 122.88),
    ),
    batch_size=128,
    epochs=163.84,
)

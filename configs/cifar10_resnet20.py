"""ResNet-20 on CIFAR-10 (He et al. 2015, https://arxiv.org/abs/1512.03385, section 4.2).

This follows the paper. Training takes 64,000 steps with 128 images each. The learning rate is 0.1,
and is divided by 10 after 32,000 and after 48,000 steps. Every parameter has a weight decay of
1e-4. Images get 4 black pixels on each side, are cropped at random, and are flipped horizontally.

There is one difference: each channel is normalized by its mean and standard deviation. The paper
subtracts the mean of each pixel.

The published test error is 8.75 %. The test error of this experiment has not been measured yet.

    resnet-jax train cifar10-resnet20 --data.directory ~/tensorflow_datasets

The data set is cifar10, as prepared by TensorFlow Datasets in array_record, parquet or TFRecord
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
    model=ModelConfig("cifar_resnet20", zero_init_residual=False),
    data=TfdsArraysConfig(
        "~/tensorflow_datasets",
        name="cifar10",
        evaluation_split="test",
        augment=AugmentConfig(
            crop_padding=4,
            mean=(0.4914, 0.4822, 0.4465),
            std=(0.2470, 0.2435, 0.2616),
        ),
    ),
    optimizer=SGDConfig(
        learning_rate=0.1,
        nesterov=False,
        weight_decay=1e-4,
        decay_on="all",
    ),
    schedule=StepsConfig(
        warmup_epochs=0.0,
        # Steps 32,000 and 48,000 of 64,000.
        decay_epochs=(81.92, 122.88),
    ),
    batch_size=128,
    epochs=163.84,
)

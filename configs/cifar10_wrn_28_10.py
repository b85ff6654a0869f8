"""Wide ResNet-28-10 on CIFAR-10 (Zagoruyko and Komodakis 2016, https://arxiv.org/abs/1605.07146).

This follows https://github.com/szagoruyko/wide-residual-networks. Training takes 200 epochs with a
batch of 128 and Nesterov momentum. The learning rate is 0.1, and is multiplied by 0.2 after 60, 120
and 160 epochs. Every parameter has a weight decay of 5e-4. Images get 4 mirrored pixels on each
side, are cropped at random, and are flipped horizontally. The last images of an epoch that do not
fill a batch are left out.

The published test error is 4.00 %. With a dropout rate of 0.3, which is `--model.block-dropout-rate
0.3`, it is 3.89 %. Both are medians of five runs (README of the repository). The test error of this
experiment has not been measured yet.

    resnet-jax train cifar10-wrn-28-10 --data.directory ~/tensorflow_datasets

The data set is cifar10, as prepared by TensorFlow Datasets. It is kept in device memory.
"""

from resnet_jax.config import (
    AugmentConfig,
    ModelConfig,
    SamplingConfig,
    SGDConfig,
    StepsConfig,
    TfdsArraysConfig,
    TrainConfig,
)

CONFIG = TrainConfig(
    model=ModelConfig("wrn_28_10", zero_init_residual=False),
    data=TfdsArraysConfig(
        "~/tensorflow_datasets",
        name="cifar10",
        evaluation_split="test",
        sampling=SamplingConfig(epoch_multiple=128),
        augment=AugmentConfig(
            crop_padding=4,
            crop_padding_mode="reflect",
            mean=(125.3 / 255, 123.0 / 255, 113.9 / 255),
            std=(63.0 / 255, 62.1 / 255, 66.7 / 255),
        ),
    ),
    optimizer=SGDConfig(learning_rate=0.1, weight_decay=5e-4, decay_on="all"),
    schedule=StepsConfig(warmup_epochs=0.0, decay_epochs=(60.0, 120.0, 160.0), decay_factor=0.2),
    batch_size=128,
    epochs=200.0,
)

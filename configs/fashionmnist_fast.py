"""ResNet-8 on Fashion-MNIST in 15 epochs, for two CPU cores and less than an hour.

The network is wide and shallow, because a CPU computes a few large convolutions faster than many
small ones. It has three stages of one block each, with 64, 128 and 256 channels, and max-pooling
after the stem. The learning rate rises from a fifth of its peak in the first 20 % of the run and
then falls to 0, both in straight lines. Images are shifted by up to two pixels and mirrored, and a
part of each is erased with probability 0.5.

    resnet-jax train fashionmnist-fast --data.directory /usr/share/datasets/fashion-mnist

This is the directory of Debian's package dataset-fashion-mnist.
"""

import dataclasses

from resnet_jax.config import (
    AugmentConfig,
    IdxConfig,
    ModelConfig,
    SGDConfig,
    SoftmaxConfig,
    TrainConfig,
    TriangularConfig,
    load_experiment,
)

DATA = load_experiment("fashionmnist-resnet20").config.data
assert isinstance(DATA, IdxConfig)

CONFIG = TrainConfig(
    model=ModelConfig("cifar_resnet8_w64"),
    data=dataclasses.replace(
        DATA,
        augment=AugmentConfig(
            crop_padding=2,
            mean=(0.2860,),
            std=(0.3530,),
            erasing=0.5,
            erasing_mode="const",
            erasing_area=(0.02, 0.4),
        ),
    ),
    optimizer=SGDConfig(learning_rate=0.1, weight_decay=5e-4),
    schedule=TriangularConfig(peak_at=0.2, warmup_start=0.2, end=0.0),
    loss=SoftmaxConfig(label_smoothing=0.1),
    batch_size=128,
    epochs=15.0,
    evaluate_every_epochs=5.0,
)

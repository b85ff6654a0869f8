"""ResNet-20 on CIFAR-10 (He et al. 2015, https://arxiv.org/abs/1512.03385, section 4.2).

The recipe of the paper: 64,000 steps of 128 images, learning rate 0.1, a tenth of it from step
32,000 on and a hundredth from 48,000 on, weight decay 1e-4 of every parameter, crops of the image
with 4 black pixels around it, flips.  Channels are normalised, where the paper subtracts the mean
of each pixel.  Published: 8.75 % test error; it has not been measured here.

    resnet-jax train cifar10-resnet20 --data.directory ~/tensorflow_datasets

The data set is cifar10 as TensorFlow Datasets prepares it, as array_record, parquet or TFRecord;
TensorFlow is not needed to read it.  It lies on the device as a whole.
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
        decay_norm_and_bias=True,
    ),
    schedule=StepsConfig(
        warmup_epochs=0.0,
        # Steps 32,000 and 48,000 of 64,000.
        decay_epochs=(81.92, 122.88),
    ),
    batch_size=128,
    epochs=163.84,
)

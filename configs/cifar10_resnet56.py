"""ResNet-56 on CIFAR-10 (He et al. 2015, https://arxiv.org/abs/1512.03385, section 4.2).

The recipe of `cifar10-resnet20`.  Published: 6.97 % test error; it has not been measured here.

    python train.py cifar10-resnet56 --data.directory ~/tensorflow_datasets

The data set is cifar10 as TensorFlow Datasets prepares it, as array_record, parquet or TFRecord;
TensorFlow is not needed to read it.  It lies on the device as a whole.
"""

from resnet_jax.config import (
    AugmentConfig,
    ModelConfig,
    SGDConfig,
    TfdsArraysConfig,
    TrainConfig,
)

CONFIG = TrainConfig(
    model=ModelConfig("cifar_resnet56", zero_init_residual=False),
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
        warmup_epochs=0,
        # Of 64,000 steps, the 32,000th and the 48,000th.
        schedule="steps",
        decay_epochs=(81.92, 122.88),
        nesterov=False,
        weight_decay=1e-4,
        decay_norm_and_bias=True,
    ),
    batch_size=128,
    epochs=163.84,
)

"""ResNet-20 on scikit-learn's handwritten digits: real images, no download, half a minute.

The network is that of He et al. 2015 (https://arxiv.org/abs/1512.03385), section 4.2. The data are
1,797 real 8x8 digits from UCI's optdigits, which scikit-learn contains: 1,437 for training and 360
for testing, split within each class. The images are resampled to 12x12. Training rotates, scales
and shifts them slightly.

    resnet-jax train digits-resnet20

Measured on two cores of an AMD EPYC with jax 0.10.2, compilation included: test top-1 99.72 %,
100.00 %, 100.00 % with seeds 0, 1, 2, in 29 s, 24 s, 26 s.
"""

from resnet_jax.config import (
    CheckpointConfig,
    CosineConfig,
    DigitsConfig,
    ModelConfig,
    SGDConfig,
    TrainConfig,
)

CONFIG = TrainConfig(
    model=ModelConfig("cifar_resnet20", zero_init_residual=False),
    data=DigitsConfig(image_size=12),
    optimizer=SGDConfig(learning_rate=0.05, weight_decay=5e-4),
    schedule=CosineConfig(warmup_epochs=2.0),
    checkpoint=CheckpointConfig(every_steps=100),
    batch_size=64,
    epochs=25,
    label_smoothing=0.1,
    log_every_steps=20,
    evaluate_every_epochs=5,
)

"""ResNet-20 on Fashion-MNIST (Zhong et al. 2017, https://arxiv.org/abs/1708.04896).

This follows fashionmnist.py of https://github.com/zhunzhong07/Random-Erasing, without erasing. The
network has projections where the number of channels changes (option B of He et al. 2015), and takes
images of 28x28 pixels. Training takes 300 epochs with a batch of 128 and no warm-up. The learning
rate is 0.1, and is divided by 10 after 150 and 225 epochs. Every parameter has a weight decay of
5e-4.

The published test error is 4.39 % (README of the repository). The authors report the lowest error
of all epochs. The number cannot be compared with results on today's data, because it was measured
before August 31, 2017, when Fashion-MNIST still had some images in both the training and the test
set. Its authors expect about 0.4 points more on the corrected data (issue 9 of the repository). A
user of their code reports 4.82 % plus or minus 0.04 on the corrected data (issue 10). This
experiment reports the last epoch. Its test error has not been measured yet.

    resnet-jax train fashionmnist-resnet20 --data.directory /usr/share/datasets/fashion-mnist

This is the directory of Debian's package dataset-fashion-mnist, which has the corrected data:
60,000 training and 10,000 test images, all of them different. ResNet-32 is `--model.name
cifar_resnet32_b`.
"""

from resnet_jax.config import (
    AugmentConfig,
    IdxConfig,
    ModelConfig,
    SGDConfig,
    StepsConfig,
    TrainConfig,
)

CONFIG = TrainConfig(
    model=ModelConfig("cifar_resnet20_b", zero_init_residual=False),
    data=IdxConfig(
        "/usr/share/datasets/fashion-mnist",
        class_names=(
            *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
            *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        ),
        # The original uses the mean and the standard deviation of MNIST.
        augment=AugmentConfig(crop_padding=4, mean=(0.1307,), std=(0.3081,)),
    ),
    optimizer=SGDConfig(learning_rate=0.1, nesterov=False, weight_decay=5e-4, decay_on="all"),
    schedule=StepsConfig(warmup_epochs=0.0, decay_epochs=(150.0, 225.0)),
    batch_size=128,
    epochs=300.0,
)

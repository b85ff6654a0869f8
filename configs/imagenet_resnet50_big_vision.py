"""ResNet-50 with GroupNorm and standardized kernels on ImageNet-1k, as in big_vision (bit_i1k.py).

This follows big_vision/configs/bit_i1k.py of https://github.com/google-research/big_vision. It
trains the network of Big Transfer (Kolesnikov et al. 2019, arXiv:1912.11370) in the usual order of
layers, without BatchNorm.

Training takes 90 epochs of 99 % of the training images with a batch of 4,096. The momentum is 0.9
without Nesterov's term, and is kept in bfloat16. The learning rate is 0.1 per 256 images. It rises
in 1,000 steps and then falls as a cosine, step by step. Kernels have a weight decay of 1e-4 per 256
images, which follows the schedule and not the learning rate. Gradients are clipped to a norm of 1.
The levels of the images are scaled to the range from -1 to 1.

There are three differences. The head starts from PyTorch's uniform distribution, and in the
original from zero. Crops are resized with antialiasing, and in the original without. The small
numbers that prevent a division by zero differ: GroupNorm adds 1e-5 to the variance as in PyTorch,
and the original adds 1e-6; standardized kernels add 1e-8 to the variance as in BiT, and the
original adds 1e-5 to the standard deviation.

No accuracy is published. The accuracy of this experiment has not been measured yet. The original
takes about 32 minutes on a TPU v3-128.

    resnet-jax train imagenet-resnet50-big-vision --data.directory ~/tensorflow_datasets

The data set is imagenet2012, as prepared by TensorFlow Datasets.
"""

from resnet_jax.config import (
    AugmentConfig,
    ClipConfig,
    CosineConfig,
    ImageConfig,
    ModelConfig,
    SGDConfig,
    TfdsConfig,
    TrainConfig,
)

CONFIG = TrainConfig(
    model=ModelConfig("resnet50_gn", conv="standardized"),
    data=TfdsConfig(
        "~/tensorflow_datasets",
        name="imagenet2012",
        train_split="train[:99%]",
        images=ImageConfig(
            crop_scale=(0.05, 1.0),
            train_interpolation="pil_bilinear",
            augment=AugmentConfig(mean=(0.5,), std=(0.5,)),
        ),
    ),
    optimizer=SGDConfig(
        learning_rate=0.1,
        nesterov=False,
        # 1e-4 per 256 images.
        weight_decay=1.6e-3,
        decay="schedule",
        accumulator_dtype="bfloat16",
    ),
    learning_rate_scaling="linear",
    clip=ClipConfig(global_norm=1.0),
    schedule=CosineConfig(warmup_steps=1000),
    batch_size=4096,
    epochs=90.0,
)

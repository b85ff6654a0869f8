"""ResNet-50 with GroupNorm and standardized kernels on ImageNet-1k, as in big_vision (bit_i1k.py).

This follows big_vision/configs/bit_i1k.py of https://github.com/google-research/big_vision, which
trains the network of Big Transfer (Kolesnikov et al. 2019, arXiv:1912.11370) in the usual order of
layers: 90 epochs of 99 % of the training images with a batch of 4,096; momentum of 0.9, kept in
bfloat16, without Nesterov's term; a learning rate of 0.1 per 256 images, which rises in 1,000 steps
and then falls as a cosine, step by step; weight decay of 1e-4 per 256 images on kernels, which
follows the schedule and not the learning rate; gradients clipped to a norm of 1; levels from -1 to
1; no BatchNorm.

There are three differences: the head starts from PyTorch's uniform distribution, and in the
original from zero; crops are resized with antialiasing, and in the original without; the small
numbers that are added to variances are those of PyTorch and BiT, 1e-5 and 1e-8, and in the original
1e-6 and, for the standard deviation of a kernel, 1e-5.

No accuracy is published. That of this experiment has not been measured. The original takes about 32
minutes on a TPU v3-128.

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

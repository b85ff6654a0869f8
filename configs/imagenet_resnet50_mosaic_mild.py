"""ResNet-50 on ImageNet-1k by Mosaic's recipe "mild", 36 epochs.

This follows examples/benchmarks/resnet_imagenet of https://github.com/mosaicml/examples. Training
takes 36 epochs with a batch of 2,048. The momentum is 0.875 without Nesterov's term. The learning
rate rises to 2.048 in eight epochs and then falls as a cosine, step by step. Every parameter has a
weight decay of 5e-4, which follows the schedule and not the learning rate. The loss is a binary
cross entropy, summed over the classes, with label smoothing of 0.08. BatchNorm uses groups of 256
images, as on the eight A100 of the original.

The biases of the head start at -log(1000), kernels start by their fan-in, and scales start
uniformly between 0 and 1. The inputs of convolutions that have a stride are blurred, and so is the
max-pooling. The training images grow from 88x88 to 176x176 pixels between 40 and 80 % of the run,
and evaluation uses 224x224 pixels. Averages of the parameters with a half-life of 100 steps are
updated every 20 steps and evaluated.

There are three differences. The head starts from PyTorch's uniform distribution, and in the
original from a normal distribution. The size of the images changes between epochs, and in the
original between steps. Convolutions compute in bfloat16, and in the original in float16.

The published top-1 accuracies are 75 to 78.1 %, for runs of this recipe with different lengths
(https://www.databricks.com/blog/mosaic-resnet-deep-dive). The accuracy of this experiment has not
been measured yet.

    resnet-jax train imagenet-resnet50-mosaic-mild --data.directory ~/tensorflow_datasets

The data set is imagenet2012, as prepared by TensorFlow Datasets.
"""

import math

from resnet_jax.config import (
    AveragingConfig,
    CosineConfig,
    ImageConfig,
    ModelConfig,
    ResizingConfig,
    SGDConfig,
    SigmoidConfig,
    TfdsConfig,
    TrainConfig,
)

CONFIG = TrainConfig(
    model=ModelConfig(
        "resnet50",
        dtype="bfloat16",
        conv="blurred",
        stem_pool="blurred_max",
        zero_init_residual=False,
        conv_init="fan_in",
        norm_scale_init="uniform",
        head_bias_init=-math.log(1000),
        bn_group_size=256,
    ),
    data=TfdsConfig(
        "~/tensorflow_datasets",
        name="imagenet2012",
        images=ImageConfig(
            image_size=176,
            eval_image_size=224,
            train_interpolation="pil_bilinear",
            crop_fraction=224 / 232,
        ),
    ),
    optimizer=SGDConfig(
        learning_rate=2.048,
        momentum=0.875,
        nesterov=False,
        weight_decay=5e-4,
        decay_on="all",
        decay="schedule",
    ),
    schedule=CosineConfig(warmup_epochs=8.0),
    loss=SigmoidConfig(label_smoothing=0.08, reduction="sum"),
    averaging=AveragingConfig(half_life_steps=100.0, every_steps=20),
    # A delay of 40 % of the run, and 20 % of it at full size.
    resizing=ResizingConfig(initial_size=88, start_epoch=14.4, end_epoch=28.8, multiple_of=4),
    batch_size=2048,
    epochs=36.0,
)

"""ResNet-50 on ImageNet-1k as in Flax's example, examples/imagenet of github.com/google/flax.

This follows the configuration tpu.py of the example. Training takes 100 epochs with a batch of
1,024 and Nesterov momentum. The learning rate is 0.1 per 256 images. It rises from 0 in five epochs
and then falls as a cosine, step by step. Kernels have an L2 penalty of 1e-4. Labels are not
smoothed. BatchNorm uses the statistics of the whole batch. The last scale of each block starts at
zero. Crops cover at least 10 % of the image.

There are three differences. Kernels start from He et al.'s normal distribution, and in the example
from that of LeCun. Strided convolutions are padded as in PyTorch, and in the example as in
TensorFlow. Bicubic interpolation has antialiasing, and in the example it has none.

The published top-1 accuracies are 76.37 to 76.72 % in float32, and 76.27 % in mixed precision,
which took 4.4 hours on a TPU v3-8 (README of the example). The accuracy of this experiment has not
been measured yet.

    resnet-jax train imagenet-resnet50-flax --data.directory ~/tensorflow_datasets

The data set is imagenet2012, as prepared by TensorFlow Datasets.
"""

from resnet_jax.config import (
    CosineConfig,
    ImageConfig,
    ModelConfig,
    SGDConfig,
    TfdsConfig,
    TrainConfig,
)

CONFIG = TrainConfig(
    model=ModelConfig("resnet50", dtype="bfloat16"),
    data=TfdsConfig(
        "~/tensorflow_datasets",
        name="imagenet2012",
        images=ImageConfig(
            crop_scale=(0.1, 1.0),
            train_interpolation="pil_bicubic",
            eval_interpolation="pil_bicubic",
        ),
    ),
    optimizer=SGDConfig(learning_rate=0.1, weight_decay=1e-4),
    learning_rate_scaling="linear",
    schedule=CosineConfig(warmup_epochs=5.0),
    batch_size=1024,
    epochs=100.0,
)

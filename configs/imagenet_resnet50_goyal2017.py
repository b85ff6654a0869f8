"""ResNet-50 on ImageNet-1k in large batches (Goyal et al. 2017, https://arxiv.org/abs/1706.02677).

This follows the paper. Training takes 90 epochs with a batch of 8,192 and Nesterov momentum. The
learning rate is 0.1 per 256 images, which is 3.2. It rises linearly from 0.1 in five epochs, step
by step, and is divided by 10 after 30, 60 and 80 epochs. All parameters have a weight decay of
1e-4, except the scales and biases of BatchNorm. BatchNorm uses the statistics of 32 images, as on
256 GPUs. The last scale of each block starts at zero. `imagenet-resnet50` is a modern variant with
a cosine and label smoothing.

There is one difference: the head starts from PyTorch's uniform distribution. In the paper it starts
from a normal distribution with a standard deviation of 0.01.

The published top-1 accuracy is 76.26 % plus or minus 0.09, and 76.40 % plus or minus 0.12 with a
batch of 256 (table 1; mean and standard deviation of five runs). The accuracy of this experiment
has not been measured yet.

    resnet-jax train imagenet-resnet50-goyal2017 --data.directory ~/tensorflow_datasets

The data set is imagenet2012, as prepared by TensorFlow Datasets. The learning rate follows the
batch size, so `--batch-size 256 --schedule.warmup-epochs 0` is the baseline of the paper.
"""

from resnet_jax.config import (
    ImageConfig,
    ModelConfig,
    SGDConfig,
    StepsConfig,
    TfdsConfig,
    TrainConfig,
)

CONFIG = TrainConfig(
    model=ModelConfig("resnet50", bn_group_size=32),
    data=TfdsConfig(
        "~/tensorflow_datasets",
        name="imagenet2012",
        images=ImageConfig(train_interpolation="pil_bilinear"),
    ),
    optimizer=SGDConfig(learning_rate=0.1, weight_decay=1e-4, decay_on="all_but_norm"),
    learning_rate_scaling="linear",
    schedule=StepsConfig(
        warmup_epochs=5.0,
        # 0.1 of a peak of 3.2.
        warmup_start=1 / 32,
        decay_epochs=(30.0, 60.0, 80.0),
    ),
    batch_size=8192,
    epochs=90.0,
)

"""ResNet-18 on ImageNet-1k (Goyal et al. 2017, https://arxiv.org/abs/1706.02677).

This follows the paper in most points. Training takes 90 epochs. The learning rate is 0.1 per 256
images, with five epochs of warm-up. The weight decay is 1e-4. The last scale of each block starts
at zero. Images get random resized crops and horizontal flips.

There are two main differences: the learning rate falls as a cosine instead of in steps, and labels
are smoothed by 0.1. In addition, only kernels decay, BatchNorm uses the statistics of the whole
batch, the warm-up starts from 0, convolutions compute in bfloat16, and the head starts from
PyTorch's uniform distribution.

torchvision publishes 69.76 % top-1 for training with step decay and without label smoothing. The
accuracy of this experiment has not been measured yet.

    resnet-jax train imagenet-resnet18 --data.directory ~/tensorflow_datasets

The data set is imagenet2012, as prepared by TensorFlow Datasets in TFRecord or array_record format.
It can be read without TensorFlow.
"""

from resnet_jax.config import (
    CosineConfig,
    ModelConfig,
    SGDConfig,
    SoftmaxConfig,
    TfdsConfig,
    TrainConfig,
)

CONFIG = TrainConfig(
    model=ModelConfig("resnet18", dtype="bfloat16"),
    data=TfdsConfig("~/tensorflow_datasets", name="imagenet2012"),
    optimizer=SGDConfig(learning_rate=0.4, weight_decay=1e-4),
    schedule=CosineConfig(warmup_epochs=5.0),
    batch_size=1024,
    epochs=90.0,
    loss=SoftmaxConfig(label_smoothing=0.1),
)

"""ResNet-50 (v1.5) on ImageNet-1k by NVIDIA's recipe for 90 epochs.

This follows PyTorch/Classification/ConvNets of https://github.com/NVIDIA/DeepLearningExamples: 90
epochs with a batch of 2,048 on eight GPUs; momentum of 0.875 without Nesterov's term; a learning
rate of 0.256 per 256 images, which rises in eight epochs from an eighth and then falls as a cosine,
epoch by epoch; weight decay of 1/32768 on all parameters but the scales and biases of BatchNorm
outside of shortcuts; label smoothing of 0.1; kernels that start from He et al.'s normal
distribution by the fan-in; no scale initialized to zero.

There is one difference: convolutions compute in bfloat16, and in the original in float16 with a
loss scale of 128.

The published top-1 accuracy is 77.12 % plus or minus 0.11 on eight A100 (README of the repository).
That of this experiment has not been measured.

    resnet-jax train imagenet-resnet50-nvidia-90ep --data.directory ~/tensorflow_datasets

The data set is imagenet2012, as prepared by TensorFlow Datasets. ResNeXt-101 (32x4d) has a batch of
1,024 and twice the decay: `--model.name resnext101_32x4d --batch-size 1024 --optimizer.weight-decay
6.104e-5` (79.47 %).
"""

from resnet_jax.config import (
    CosineConfig,
    ImageConfig,
    ModelConfig,
    SGDConfig,
    SoftmaxConfig,
    TfdsConfig,
    TrainConfig,
)

CONFIG = TrainConfig(
    model=ModelConfig(
        "resnet50",
        dtype="bfloat16",
        zero_init_residual=False,
        conv_init="fan_in",
        bn_group_size=256,
    ),
    data=TfdsConfig(
        "~/tensorflow_datasets",
        name="imagenet2012",
        images=ImageConfig(train_interpolation="pil_bilinear"),
    ),
    optimizer=SGDConfig(
        learning_rate=0.256,
        momentum=0.875,
        nesterov=False,
        weight_decay=1 / 32768,
        decay_on="all_but_named_norm",
    ),
    learning_rate_scaling="linear",
    # The rate is (e + 1) / 8 of the peak in the epochs e from 0 to 7, and the cosine begins at 8.
    schedule=CosineConfig(
        warmup_epochs=7.0, warmup_start=1 / 8, hold_epochs=1.0, granularity="epoch"
    ),
    loss=SoftmaxConfig(label_smoothing=0.1),
    batch_size=2048,
    epochs=90.0,
)

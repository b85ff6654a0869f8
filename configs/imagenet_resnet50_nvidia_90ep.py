"""ResNet-50 (v1.5) on ImageNet-1k by NVIDIA's recipe for 90 epochs.

This follows PyTorch/Classification/ConvNets of https://github.com/NVIDIA/DeepLearningExamples.
Training takes 90 epochs with a batch of 2,048 on eight GPUs. The momentum is 0.875 without
Nesterov's term. The learning rate is 0.256 per 256 images. It rises in eight epochs from an eighth
of its peak and then falls as a cosine, epoch by epoch. All parameters have a weight decay of
1/32768, except the scales and biases of BatchNorm outside of shortcuts. Labels are smoothed by 0.1.
Kernels start from He et al.'s normal distribution by the fan-in, and no scale starts at zero.

There is one difference: convolutions compute in bfloat16. The original computes in float16 with a
loss scale of 128.

The published top-1 accuracy is 77.12 % plus or minus 0.11 on eight A100 (README of the repository).
The accuracy of this experiment has not been measured yet.

    resnet-jax train imagenet-resnet50-nvidia-90ep --data.directory ~/tensorflow_datasets

The data set is imagenet2012, as prepared by TensorFlow Datasets. ResNeXt-101 (32x4d) has a batch of
1,024, twice the decay, and an accuracy of 79.47 %: `--model.name resnext101_32x4d --batch-size 1024
--optimizer.weight-decay 6.104e-5`.
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

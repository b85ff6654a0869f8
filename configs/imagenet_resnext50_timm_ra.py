"""ResNeXt-50 (32x4d) on ImageNet-1k with RandAugment, as trained in timm (Wightman 2019).

This follows "Training scripts" in the documentation of
https://github.com/huggingface/pytorch-image-models. Training takes 240 epochs with a batch of 1,536
on eight GPUs, which share no statistics of BatchNorm. The optimizer is SGD with Nesterov momentum.
The learning rate rises from 1e-4 (timm's default at the time) to 0.6 in five epochs and falls as a
cosine, epoch by epoch. The warm-up replaces the beginning of the cosine. Kernels have a weight
decay of 1e-4. Labels are smoothed by 0.1. Images get RandAugment of strength 7. In 40 % of the
images, one to three rectangles are replaced by noise.

There is one difference: crops are always resized by bicubic interpolation, while timm draws
bilinear or bicubic for each image.

The published top-1 accuracy is 79.8 % (79.80 % in timm's results). The accuracy of this experiment
has not been measured yet.

    resnet-jax train imagenet-resnext50-timm-ra --data.directory ~/tensorflow_datasets

The data set is imagenet2012, as prepared by TensorFlow Datasets.
"""

from resnet_jax.config import (
    AugmentConfig,
    CosineConfig,
    ImageConfig,
    ModelConfig,
    SGDConfig,
    SoftmaxConfig,
    TfdsConfig,
    TrainConfig,
)

CONFIG = TrainConfig(
    model=ModelConfig("resnext50_32x4d", dtype="bfloat16", bn_group_size=192),
    data=TfdsConfig(
        "~/tensorflow_datasets",
        name="imagenet2012",
        images=ImageConfig(
            train_interpolation="pil_bicubic",
            eval_interpolation="pil_bicubic",
            augment=AugmentConfig(
                # timm's "rand-m7-mstd0.5-inc1", which fills with the mean.
                policy="timm_randaugment_increasing",
                magnitude=7.0,
                interpolation="bilinear",
                fill=(124, 116, 104),
                erasing=0.4,
                erasing_mode="pixel",
                erasing_max_count=3,
            ),
        ),
    ),
    optimizer=SGDConfig(learning_rate=0.6, weight_decay=1e-4),
    schedule=CosineConfig(
        warmup_epochs=5.0,
        # 1e-4 of a peak of 0.6.
        warmup_start=1e-4 / 0.6,
        granularity="epoch",
        warmup_prefix=False,
    ),
    loss=SoftmaxConfig(label_smoothing=0.1),
    batch_size=1536,
    epochs=240.0,
)

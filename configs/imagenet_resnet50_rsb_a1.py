"""ResNet-50 on ImageNet-1k by procedure A1 of "ResNet strikes back" (arXiv:2110.00476), 600 epochs.

This follows Wightman et al. 2021, with the details of timm, in which the weights resnet50.a1_in1k
were trained. Training takes 600 epochs with a batch of 2,048. The optimizer is LAMB. The learning
rate rises from 1e-4 to 0.005 in five epochs and falls to 1e-6 as a cosine, epoch by epoch. The
warm-up replaces the beginning of the cosine. Kernels have a weight decay of 0.01. The loss is a
binary cross entropy for each class with label smoothing of 0.1. Images get RandAugment of strength
7, and mixup with alpha 0.2 or CutMix. Each image occurs three times in a batch. Stochastic depth
has a rate of 0.05.

The sources disagree in one point. The paper has label smoothing for A1. Public commands have a
threshold of 0.2 for the targets, with which smoothing has no effect. This experiment follows the
paper.

There are two differences. Crops are always resized by bicubic interpolation, while timm draws
bilinear or bicubic for each image. The copies of an image follow each other in one batch, for which
BatchNorm has one mean and variance. In the original, the copies are on different GPUs, of which
there are four with batches of 512 each. Gradients are clipped to a norm of 1, as timm's LAMB does,
although the paper says that they are not clipped.

The published top-1 accuracy is 80.4 % (80.38 % in timm's results). The accuracy of this experiment
has not been measured yet.

    resnet-jax train imagenet-resnet50-rsb-a1 --data.directory ~/tensorflow_datasets

The data set is imagenet2012, as prepared by TensorFlow Datasets. Other networks of the family are
`--model.name resnet101` (81.49 %), `resnet152` (82.00 %), `resnext50_32x4d` (80.53 %), `seresnet50`
(80.01 %) and `resnet50d` (80.73 %).
"""

from resnet_jax.config import (
    AugmentConfig,
    CosineConfig,
    ImageConfig,
    LambConfig,
    ModelConfig,
    SamplingConfig,
    SigmoidConfig,
    TfdsConfig,
    TrainConfig,
)

CONFIG = TrainConfig(
    model=ModelConfig("resnet50", dtype="bfloat16", drop_path_rate=0.05),
    data=TfdsConfig(
        "~/tensorflow_datasets",
        name="imagenet2012",
        sampling=SamplingConfig(epoch_multiple=256),
        images=ImageConfig(
            train_interpolation="pil_bicubic",
            crop_fraction=0.95,
            eval_interpolation="pil_bicubic",
            repeats=3,
            augment=AugmentConfig(
                # timm's "rand-m7-mstd0.5-inc1", which fills with the mean.
                policy="timm_randaugment_increasing",
                magnitude=7.0,
                interpolation="bilinear",
                fill=(124, 116, 104),
                mixup_alpha=0.2,
                cutmix_alpha=1.0,
            ),
        ),
    ),
    optimizer=LambConfig(learning_rate=5e-3, weight_decay=0.01),
    schedule=CosineConfig(
        warmup_epochs=5.0,
        # 1e-4 and 1e-6 of a peak of 0.005.
        warmup_start=0.02,
        end=2e-4,
        granularity="epoch",
        warmup_prefix=False,
    ),
    loss=SigmoidConfig(label_smoothing=0.1),
    batch_size=2048,
    epochs=600.0,
)

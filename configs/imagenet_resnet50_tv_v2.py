"""ResNet-50 on ImageNet-1k by torchvision's second recipe, that of its weights IMAGENET1K_V2.

This follows the command for ResNet-50 in README.md of references/classification in
https://github.com/pytorch/vision. Training takes 600 epochs with a batch of 1,024. The learning
rate rises from a hundredth of its peak to 0.5 in five epochs and then falls as a cosine, epoch by
epoch. All parameters have a weight decay of 2e-5, except those of normalization layers. Labels are
smoothed by 0.1. Images get TrivialAugment, mixup or CutMix, and random erasing. Each image occurs
four times in a batch. Training uses 176x176 pixels, and evaluation uses 224x224. Averages of the
parameters are evaluated.

There is one difference. The copies of an image follow each other in one batch of 1,024. In the
original, they are on different ones of eight V100, each of which has its own batch of 128.
Therefore, BatchNorm uses groups of 512 here, which contain 128 different images. Mixing uses random
partners, because torchvision's partner, the neighbor in the batch, would often be a copy of the
same image.

The published top-1 accuracy is 80.858 % (documentation of torchvision). It was evaluated with
images whose shorter side is 232 pixels, a size that was chosen on the validation images after
training. The accuracy of this experiment has not been measured yet.

    resnet-jax train imagenet-resnet50-tv-v2 --data.directory ~/tensorflow_datasets

The data set is imagenet2012, as prepared by TensorFlow Datasets. torchvision has trained other
networks of the family at 224x224 pixels and without repeated images. Their options are
`--data.images.image-size 224 --data.images.repeats 1` with `--model.name resnet101` (81.886 %),
`resnet152` (82.284 %) or `resnext50_32x4d` (81.198 %).
"""

from resnet_jax.config import (
    AugmentConfig,
    AveragingConfig,
    CosineConfig,
    ImageConfig,
    ModelConfig,
    SamplingConfig,
    SGDConfig,
    SoftmaxConfig,
    TfdsConfig,
    TrainConfig,
)

CONFIG = TrainConfig(
    model=ModelConfig("resnet50", zero_init_residual=False, bn_group_size=512),
    data=TfdsConfig(
        "~/tensorflow_datasets",
        name="imagenet2012",
        sampling=SamplingConfig(epoch_multiple=256),
        images=ImageConfig(
            image_size=176,
            eval_image_size=224,
            train_interpolation="pil_bilinear",
            crop_fraction=224 / 232,
            repeats=4,
            augment=AugmentConfig(
                policy="trivial",
                interpolation="bilinear",
                erasing=0.1,
                erasing_mode="const",
                erasing_area=(0.02, 0.33),
                erasing_aspect=(0.3, 3.3),
                mixup_alpha=0.2,
                cutmix_alpha=1.0,
                mix_partner="random",
                cutmix_even_sides=True,
            ),
        ),
    ),
    optimizer=SGDConfig(
        learning_rate=0.5, nesterov=False, weight_decay=2e-5, decay_on="all_but_norm"
    ),
    schedule=CosineConfig(warmup_epochs=5.0, warmup_start=0.01, granularity="epoch"),
    loss=SoftmaxConfig(label_smoothing=0.1),
    averaging=AveragingConfig(decay=0.99998, warmup="torchvision", every_steps=32, start_epoch=5.0),
    batch_size=1024,
    epochs=600.0,
)

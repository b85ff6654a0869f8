"""ResNet-50 on ImageNet-1k by torchvision's second recipe, that of its weights IMAGENET1K_V2.

This follows the command that README.md of references/classification in
https://github.com/pytorch/vision gives for ResNet-50: 600 epochs with a batch of 1,024; a learning
rate of 0.5, which rises from a hundredth of it in five epochs and then falls as a cosine, epoch by
epoch; weight decay of 2e-5 on everything but normalization layers; label smoothing of 0.1;
TrivialAugment, mixup or CutMix, and random erasing; each image four times in a batch; training at
176x176 pixels and evaluation at 224x224; averages of the parameters, which are evaluated.

There is one difference. The copies of an image follow each other in one batch of 1,024, and in the
original they are on different ones of eight V100, which have batches of 128 of their own. Therefore
BatchNorm uses groups of 512 here, which show 128 images, and the partners of mixing are random; the
neighbor, which torchvision takes, would often be a copy of the same image.

The published top-1 accuracy is 80.858 % (documentation of torchvision). It was evaluated with
images whose shorter side is 232 pixels, a size that was chosen on the validation images after
training. That of this experiment has not been measured.

    resnet-jax train imagenet-resnet50-tv-v2 --data.directory ~/tensorflow_datasets

The data set is imagenet2012, as prepared by TensorFlow Datasets. torchvision has trained other
members at 224x224 pixels without repeated images:
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

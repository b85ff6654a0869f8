"""ResNet-50 on ImageNet-1k by torchvision's first recipe, that of its weights IMAGENET1K_V1.

This follows references/classification of https://github.com/pytorch/vision with its default
options. Training takes 90 epochs with a batch of 256. The learning rate is 0.1 without warm-up, and
is divided by 10 every 30 epochs. The momentum is 0.9 without Nesterov's term. Every parameter has a
weight decay of 1e-4. BatchNorm uses the statistics of 32 images, as on the eight V100 of the
original. No scale starts at zero.

The published top-1 accuracy is 76.130 %. ResNet-18 has 69.758 %, ResNet-34 73.314 %, ResNet-101
77.374 % and ResNet-152 78.312 % (documentation of torchvision). The accuracy of this experiment has
not been measured yet.

    resnet-jax train imagenet-resnet50-tv-v1 --data.directory ~/tensorflow_datasets

The data set is imagenet2012, as prepared by TensorFlow Datasets. The other networks of the family
are `--model.name resnet18` and so on. ResNeXt-50, which is `--model.name resnext50_32x4d --epochs
100`, has 77.618 %.
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
    model=ModelConfig("resnet50", zero_init_residual=False, bn_group_size=32),
    data=TfdsConfig(
        "~/tensorflow_datasets",
        name="imagenet2012",
        images=ImageConfig(train_interpolation="pil_bilinear"),
    ),
    optimizer=SGDConfig(learning_rate=0.1, nesterov=False, weight_decay=1e-4, decay_on="all"),
    schedule=StepsConfig(warmup_epochs=0.0, decay_epochs=(30.0, 60.0)),
    batch_size=256,
    epochs=90.0,
)

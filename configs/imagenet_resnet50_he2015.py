"""ResNet-50 on ImageNet-1k as in the paper (He et al. 2015, https://arxiv.org/abs/1512.03385).

This follows section 3.4 of the paper. Training takes 600,000 steps with 256 images each. The
momentum is 0.9 without Nesterov's term. The learning rate is 0.1 without warm-up. Every parameter
has a weight decay of 1e-4. Labels are not smoothed. BatchNorm uses groups of 32 images, as on eight
GPUs.

There are five differences. First, the paper divides the learning rate by 10 when the error
plateaus; here this happens after 30, 60 and 90 of the 120 epochs. Second, the paper resizes the
shorter side of an image to 256 to 480 pixels and crops 224x224 pixels. The crops here have the same
range of sizes for square images, 22 to 77 % of the area, and this share is drawn uniformly. Third,
the paper adds random multiples of the principal components of the colors; here the colors are not
changed. Fourth, the paper also averages ten crops in evaluation; here one central crop is
evaluated. Fifth, the authors recompute BatchNorm's statistics after the training; here BatchNorm
evaluates with running averages.

The published top-1 accuracy with one crop is 75.3 %
(https://github.com/KaimingHe/deep-residual-networks). It is 76.4 % for ResNet-101 and 77.0 % for
ResNet-152. The accuracy of this experiment has not been measured yet.

    resnet-jax train imagenet-resnet50-he2015 --data.directory ~/tensorflow_datasets

The data set is imagenet2012, as prepared by TensorFlow Datasets. The deeper networks are
`--model.name resnet101` and `--model.name resnet152`.
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
        images=ImageConfig(
            # (224 / 480)^2 and (224 / 256)^2.
            crop_scale=(0.218, 0.766),
            crop_ratio=(1.0, 1.0),
            train_interpolation="pil_bilinear",
        ),
    ),
    optimizer=SGDConfig(learning_rate=0.1, nesterov=False, weight_decay=1e-4, decay_on="all"),
    schedule=StepsConfig(warmup_epochs=0.0, decay_epochs=(30.0, 60.0, 90.0)),
    batch_size=256,
    # 600,000 steps.
    epochs=119.89,
)

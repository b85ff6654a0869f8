"""Fine-tuning of Big Transfer's ResNet-50 on CIFAR-10 by its hyper-rule (arXiv:1912.11370).

This follows bit_hyperrule.py of https://github.com/google-research/big_transfer for 50,000 images
of 32x32 pixels. The weights are those that were trained on ImageNet-21k (BiT-M).

Training takes 10,000 steps with a batch of 512. The momentum is 0.9 without Nesterov's term.
Weights do not decay. The learning rate rises to 0.003 during the first 500 steps, and is divided by
10 after 3,000, 6,000 and 9,000 steps. Images are resized to
160x160 pixels, cropped at random to 128x128, and flipped horizontally. Mixup has an alpha of 0.1
and a random partner.

There is one difference: the head starts from PyTorch's uniform distribution. In the original it
starts from zero.

The published top-1 accuracy is 97.4 % (README of the repository). It was measured with a batch of
128 and a learning rate of 0.001, which the README calls nearly identical. The accuracy of this
experiment has not been measured yet.

    resnet-jax train cifar10-bit-resnet50 --data.directory ~/tensorflow_datasets

`resnet-jax finetune` derives such settings for a folder of images. The hyper-rule gives data sets
of fewer than 20,000 images 500 steps and no mixup, and data sets of more than 500,000 images 20,000
steps. Images of 96x96 pixels or more are resized to 512x512 and cropped to 480x480.
"""

from resnet_jax.config import (
    AugmentConfig,
    ImageConfig,
    ModelConfig,
    SGDConfig,
    StepsConfig,
    TfdsConfig,
    TrainConfig,
)

CONFIG = TrainConfig(
    model=ModelConfig("resnetv2_50x1_bit", weights="hf://timm/resnetv2_50x1_bit.goog_in21k"),
    data=TfdsConfig(
        "~/tensorflow_datasets",
        name="cifar10",
        evaluation_split="test",
        images=ImageConfig(
            image_size=128,
            # (128 / 160)^2.
            crop_scale=(0.64, 0.64),
            crop_ratio=(1.0, 1.0),
            train_interpolation="pil_bilinear",
            crop_fraction=1.0,
            augment=AugmentConfig(mean=(0.5,), std=(0.5,), mixup_alpha=0.1, mix_partner="random"),
        ),
    ),
    optimizer=SGDConfig(learning_rate=0.003, nesterov=False, weight_decay=0.0),
    # Steps 3,000, 6,000 and 9,000 of 10,000.
    schedule=StepsConfig(warmup_steps=500, decay_epochs=(30.72, 61.44, 92.16)),
    batch_size=512,
    epochs=102.4,
)

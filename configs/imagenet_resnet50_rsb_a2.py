"""ResNet-50 on ImageNet-1k by procedure A2 of "ResNet strikes back" (arXiv:2110.00476), 300 epochs.

This is `imagenet-resnet50-rsb-a1` with half of the epochs, weight decay of 0.02, mixup with alpha
0.1, and no label smoothing. Targets above 0.2 become 1 and the others become 0, so that a mixed
image shows two classes at once. The threshold of 0.2 comes from commands that others have published
for A2. This experiment differs from the original in the same points as A1.

The published top-1 accuracy is 79.8 % (79.83 % in timm's results). The accuracy of this experiment
has not been measured yet.

    resnet-jax train imagenet-resnet50-rsb-a2 --data.directory ~/tensorflow_datasets
"""

import dataclasses

from resnet_jax.config import LambConfig, SigmoidConfig, TfdsConfig, load_experiment

A1 = load_experiment("imagenet-resnet50-rsb-a1").config
assert isinstance(A1.data, TfdsConfig)
IMAGES = A1.data.images

CONFIG = dataclasses.replace(
    A1,
    data=dataclasses.replace(
        A1.data,
        images=dataclasses.replace(
            IMAGES, augment=dataclasses.replace(IMAGES.augment, mixup_alpha=0.1)
        ),
    ),
    optimizer=LambConfig(learning_rate=5e-3, weight_decay=0.02),
    loss=SigmoidConfig(target_threshold=0.2),
    epochs=300.0,
)

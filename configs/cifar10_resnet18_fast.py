"""ResNet-18 on CIFAR-10 in 16 epochs, in the style of airbench (Jordan 2024, arXiv:2404.00498).

This combines a ResNet-18, whose stem is one 3x3 convolution, with the training procedure of
https://github.com/KellerJordan/cifar10-airbench, which trains a smaller network of its own within
seconds.

The Nesterov momentum is 0.85. The learning rate rises from a fifth of its peak in the first 23 % of
the run and then falls to 7 % of it, both in straight lines. Labels are smoothed by 0.2. Images are
shifted by up to two pixels and mirrored in every other epoch. A step keeps 0.6 of the running
statistics. Each epoch leaves out the images that do not fill a batch.

The network of airbench has a fixed whitening convolution, no scales, kernels that start as the
identity, and an average of its weights (lookahead). Its predictions are averaged over six views.
This experiment has none of these.

No accuracy is published for this combination, and the learning rate has not been tuned. airbench
reports 94.01 % after 9.9 epochs with its own network. The accuracy of this experiment has not been
measured yet.

    resnet-jax train cifar10-resnet18-fast --data.directory ~/tensorflow_datasets

The data set is cifar10, as prepared by TensorFlow Datasets. It is kept in device memory.
"""

from resnet_jax.config import (
    AugmentConfig,
    ModelConfig,
    SamplingConfig,
    SGDConfig,
    SoftmaxConfig,
    TfdsArraysConfig,
    TrainConfig,
    TriangularConfig,
)

CONFIG = TrainConfig(
    model=ModelConfig("resnet18", dtype="bfloat16", small_input=True, bn_decay=0.6),
    data=TfdsArraysConfig(
        "~/tensorflow_datasets",
        name="cifar10",
        evaluation_split="test",
        sampling=SamplingConfig(epoch_multiple=512),
        augment=AugmentConfig(
            crop_padding=2,
            crop_padding_mode="reflect",
            flip_mode="alternating",
            mean=(0.4914, 0.4822, 0.4465),
            std=(0.2470, 0.2435, 0.2616),
        ),
    ),
    optimizer=SGDConfig(learning_rate=0.4, momentum=0.85, weight_decay=5e-4),
    schedule=TriangularConfig(peak_at=0.23, warmup_start=0.2, end=0.07),
    loss=SoftmaxConfig(label_smoothing=0.2),
    batch_size=512,
    epochs=16.0,
)

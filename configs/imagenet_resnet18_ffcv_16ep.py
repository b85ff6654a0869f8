"""ResNet-18 on ImageNet-1k in 16 epochs, by FFCV's recipe (Leclerc et al. 2022).

This follows rn18_configs/rn18_16_epochs.yaml of https://github.com/libffcv/ffcv-imagenet. It is
`imagenet-resnet50-ffcv-16ep` with a smaller network, a batch of 1,024 on one GPU, a learning rate
of 0.5 and a weight decay of 5e-5. In the original, the sides of the stored images have at most 400
pixels. The other difference is the same.

The published top-1 accuracy is 66.9 %, reached in 35.0 minutes on one A100 (README of the
repository). The accuracy of this experiment has not been measured yet.

    resnet-jax train imagenet-resnet18-ffcv-16ep --data.directory ~/tensorflow_datasets
"""

import dataclasses

from resnet_jax.config import ModelConfig, SGDConfig, load_experiment

CONFIG = dataclasses.replace(
    load_experiment("imagenet-resnet50-ffcv-16ep").config,
    model=ModelConfig("resnet18", dtype="bfloat16", conv="blurred", zero_init_residual=False),
    optimizer=SGDConfig(
        learning_rate=0.5, nesterov=False, weight_decay=5e-5, decay_on="all_but_named_norm"
    ),
    batch_size=1024,
)

"""Training of a new head on the features of a trained ResNet-50, on your own images.

This is `folder-resnet50-finetune` with all layers frozen except the head, and with a larger
learning rate. The running statistics of the frozen layers are frozen too. It needs the least memory
and time. It suits data sets that have few images in each class and look like ImageNet.

    resnet-jax train folder-resnet50-head --data.path PATH
"""

import dataclasses

from resnet_jax.config import FinetuneConfig, SGDConfig, load_experiment

CONFIG = dataclasses.replace(
    load_experiment("folder-resnet50-finetune").config,
    optimizer=SGDConfig(learning_rate=0.1, weight_decay=0.0),
    finetune=FinetuneConfig(freeze=("stem", "stage")),
)

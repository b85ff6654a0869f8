"""Training of a new head on the features of a trained ResNet-50, on your own images.

This is `folder-resnet50-finetune` with all layers but the head frozen, together with their running
statistics, and a larger learning rate. It needs the least memory and time, and suits a few images
for each class that look like those of ImageNet.

    resnet-jax train folder-resnet50-head --data.path PATH
"""

import dataclasses

from resnet_jax.config import FinetuneConfig, SGDConfig, load_experiment

CONFIG = dataclasses.replace(
    load_experiment("folder-resnet50-finetune").config,
    optimizer=SGDConfig(learning_rate=0.1, weight_decay=0.0),
    finetune=FinetuneConfig(freeze=("stem", "stage")),
)

"""Fine-tuning of a trained ResNet-50 with slower early layers, on your own images.

This is `folder-resnet50-finetune` with AdamW, and with a learning rate that is multiplied by 0.75
from each block to the one before it. The early layers have general features, which therefore change
little.

    resnet-jax train folder-resnet50-layer-decay --data.path PATH
"""

import dataclasses

from resnet_jax.config import AdamWConfig, FinetuneConfig, load_experiment

CONFIG = dataclasses.replace(
    load_experiment("folder-resnet50-finetune").config,
    optimizer=AdamWConfig(learning_rate=5e-4, weight_decay=0.05),
    finetune=FinetuneConfig(head_epochs=3.0, layer_decay=0.75),
)

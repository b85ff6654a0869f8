"""Fine-tuning on a folder of images, with values that follow from the data and the weights."""

from resnet_jax.training.finetuning.plan import Choice as Choice
from resnet_jax.training.finetuning.plan import FinetuneOptions as FinetuneOptions
from resnet_jax.training.finetuning.plan import FinetunePlan as FinetunePlan
from resnet_jax.training.finetuning.plan import finetune_config as finetune_config

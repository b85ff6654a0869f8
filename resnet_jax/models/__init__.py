"""The residual networks, as Flax Linen modules."""

from resnet_jax.models.blocks import BasicBlock as BasicBlock
from resnet_jax.models.blocks import BottleneckBlock as BottleneckBlock
from resnet_jax.models.resnet import ResNet as ResNet
from resnet_jax.models.variants import create_model as create_model
from resnet_jax.models.variants import list_models as list_models

"""Residual networks as Flax Linen modules, and functions that count and convert them."""

from resnet_jax.models.blocks import BasicBlock as BasicBlock
from resnet_jax.models.blocks import BottleneckBlock as BottleneckBlock
from resnet_jax.models.blocks import PreActivationBasicBlock as PreActivationBasicBlock
from resnet_jax.models.blocks import PreActivationBottleneckBlock as PreActivationBottleneckBlock
from resnet_jax.models.complexity import count_macs as count_macs
from resnet_jax.models.complexity import count_parameters as count_parameters
from resnet_jax.models.create import Overrides as Overrides
from resnet_jax.models.create import create_model as create_model
from resnet_jax.models.normalization import BatchNorm as BatchNorm
from resnet_jax.models.normalization import GroupNorm as GroupNorm
from resnet_jax.models.resnet import FeatureInfo as FeatureInfo
from resnet_jax.models.resnet import ResNet as ResNet
from resnet_jax.models.stacking import stack_blocks as stack_blocks
from resnet_jax.models.stacking import unstack_blocks as unstack_blocks
from resnet_jax.models.variants import list_models as list_models
from resnet_jax.ops.gradients import automatic_gradients as automatic_gradients
from resnet_jax.ops.platform import formulation as formulation

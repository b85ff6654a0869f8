"""The ResNet family for JAX.

from resnet_jax import create_model
model = create_model("resnet50", num_classes=10)
variables = model.init(jax.random.key(0), images, train=False)
logits = model.apply(variables, images, train=False)
"""

from resnet_jax.models import BasicBlock as BasicBlock
from resnet_jax.models import BatchNorm as BatchNorm
from resnet_jax.models import BottleneckBlock as BottleneckBlock
from resnet_jax.models import FeatureInfo as FeatureInfo
from resnet_jax.models import GroupNorm as GroupNorm
from resnet_jax.models import PreActivationBasicBlock as PreActivationBasicBlock
from resnet_jax.models import PreActivationBottleneckBlock as PreActivationBottleneckBlock
from resnet_jax.models import ResNet as ResNet
from resnet_jax.models import automatic_gradients as automatic_gradients
from resnet_jax.models import count_macs as count_macs
from resnet_jax.models import count_parameters as count_parameters
from resnet_jax.models import create_model as create_model
from resnet_jax.models import formulation as formulation
from resnet_jax.models import list_models as list_models
from resnet_jax.models import stack_blocks as stack_blocks
from resnet_jax.models import unstack_blocks as unstack_blocks
from resnet_jax.weights import LoadReport as LoadReport
from resnet_jax.weights import Pretrained as Pretrained
from resnet_jax.weights import list_pretrained as list_pretrained
from resnet_jax.weights import load_matching_weights as load_matching_weights
from resnet_jax.weights import load_weights as load_weights
from resnet_jax.weights import save_weights as save_weights

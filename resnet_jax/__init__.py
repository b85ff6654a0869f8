"""The ResNet family for JAX.

from resnet_jax import create_model
model = create_model("resnet50", num_classes=10)
variables = model.init(jax.random.key(0), images, train=False)
logits = model.apply(variables, images, train=False)
"""

from typing import TYPE_CHECKING

from resnet_jax.lazy_imports import lazy_names

if TYPE_CHECKING:
    from resnet_jax.data.imagenet import imagenet_classes as imagenet_classes
    from resnet_jax.data.preprocessing import Preprocessing as Preprocessing
    from resnet_jax.inference import Classifier as Classifier
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

__version__ = "0.1.0"

# The package that each name comes from. It is imported when the name is first used, so that
# `resnet-jax --help` does not wait a second for JAX and Flax.
_PACKAGES = {
    "Classifier": "inference",
    "Preprocessing": "data.preprocessing",
    "imagenet_classes": "data.imagenet",
    "BasicBlock": "models",
    "BatchNorm": "models",
    "BottleneckBlock": "models",
    "FeatureInfo": "models",
    "GroupNorm": "models",
    "PreActivationBasicBlock": "models",
    "PreActivationBottleneckBlock": "models",
    "ResNet": "models",
    "automatic_gradients": "models",
    "count_macs": "models",
    "count_parameters": "models",
    "create_model": "models",
    "formulation": "models",
    "list_models": "models",
    "stack_blocks": "models",
    "unstack_blocks": "models",
    "LoadReport": "weights",
    "Pretrained": "weights",
    "list_pretrained": "weights",
    "load_matching_weights": "weights",
    "load_weights": "weights",
    "save_weights": "weights",
}

__all__ = [*_PACKAGES, "__version__"]

__getattr__, __dir__ = lazy_names(__name__, _PACKAGES)

"""The ResNet family for JAX.

from resnet_jax import create_model
model = create_model("resnet50", num_classes=10)
variables = model.init(jax.random.key(0), images, train=False)
logits = model.apply(variables, images, train=False)
"""

from resnet_jax.models import BasicBlock as BasicBlock
from resnet_jax.models import BottleneckBlock as BottleneckBlock
from resnet_jax.models import ResNet as ResNet
from resnet_jax.models import create_model as create_model
from resnet_jax.models import list_models as list_models
from resnet_jax.weights import load_weights as load_weights

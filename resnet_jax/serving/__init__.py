"""A trained network behind HTTP."""

from resnet_jax.serving.app import create_app as create_app
from resnet_jax.serving.limits import Limits as Limits
from resnet_jax.serving.model import Model as Model

"""Loading published weights into our variables, and saving variables for other libraries."""

from resnet_jax.weights.catalogue import Pretrained as Pretrained
from resnet_jax.weights.catalogue import list_pretrained as list_pretrained
from resnet_jax.weights.load import LoadReport as LoadReport
from resnet_jax.weights.load import load_matching_weights as load_matching_weights
from resnet_jax.weights.load import load_weights as load_weights
from resnet_jax.weights.save import save_weights as save_weights

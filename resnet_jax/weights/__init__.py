"""Published weights into our variables."""

from resnet_jax.weights.load import load_weights as load_weights

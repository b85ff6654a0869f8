"""Optimizers and parameter groups. Their configurations are in `resnet_jax.config`."""

from resnet_jax.training.optim.head import of_head as of_head
from resnet_jax.training.optim.head import stop_below_head as stop_below_head
from resnet_jax.training.optim.optimizers import create_optimizer as create_optimizer
from resnet_jax.training.optim.parameter_groups import frozen as frozen

"""Optimizers and parameter groups; `resnet_jax.config` holds their configurations."""

from resnet_jax.training.optim.optimizers import create_optimizer as create_optimizer
from resnet_jax.training.optim.parameter_groups import frozen as frozen

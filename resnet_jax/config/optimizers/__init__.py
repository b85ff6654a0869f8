"""Configurations of the optimizers, one in each file.

A new optimizer is one more file with a class that has a `create`, and one more member of
`OptimizerConfig`.
"""

from resnet_jax.config.optimizers.decay import DecayOn as DecayOn
from resnet_jax.config.optimizers.sgd import SGDConfig as SGDConfig

OptimizerConfig = SGDConfig
"""Every optimizer."""

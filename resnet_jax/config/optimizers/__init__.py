"""Configurations of the optimizers, one in each file.

A new optimizer is one more file with a class that has a `create`, and one more member of
`OptimizerConfig`.
"""

from resnet_jax.config.optimizers.adamw import AdamWConfig as AdamWConfig
from resnet_jax.config.optimizers.decay import DecayOn as DecayOn
from resnet_jax.config.optimizers.lamb import LambConfig as LambConfig
from resnet_jax.config.optimizers.lars import LarsConfig as LarsConfig
from resnet_jax.config.optimizers.lion import LionConfig as LionConfig
from resnet_jax.config.optimizers.muon import MuonConfig as MuonConfig
from resnet_jax.config.optimizers.parameters import Parameters as Parameters
from resnet_jax.config.optimizers.rmsprop import RmspropConfig as RmspropConfig
from resnet_jax.config.optimizers.sgd import SGDConfig as SGDConfig

OptimizerConfig = (
    SGDConfig | AdamWConfig | LambConfig | LarsConfig | RmspropConfig | LionConfig | MuonConfig
)
"""Every optimizer."""

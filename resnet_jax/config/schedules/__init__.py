"""Configurations of the learning-rate schedules, one in each file.

A new schedule is one more file with a class that has a `create`, and one more member of
`ScheduleConfig`.
"""

from resnet_jax.config.schedules.constant import ConstantConfig as ConstantConfig
from resnet_jax.config.schedules.cosine import CosineConfig as CosineConfig
from resnet_jax.config.schedules.linear import LinearConfig as LinearConfig
from resnet_jax.config.schedules.one_cycle import OneCycleConfig as OneCycleConfig
from resnet_jax.config.schedules.polynomial import PolynomialConfig as PolynomialConfig
from resnet_jax.config.schedules.steps import StepsConfig as StepsConfig
from resnet_jax.config.schedules.triangular import TriangularConfig as TriangularConfig
from resnet_jax.config.schedules.warmup import WarmupConfig as WarmupConfig

ScheduleConfig = (
    CosineConfig
    | StepsConfig
    | LinearConfig
    | PolynomialConfig
    | ConstantConfig
    | TriangularConfig
    | OneCycleConfig
)
"""Every schedule."""

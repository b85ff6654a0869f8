"""Configurations of the learning-rate schedules, one in each file.

A new schedule is one more file with a class that has a `create`, and one more member of
`ScheduleConfig`.
"""

from resnet_jax.config.schedules.cosine import CosineConfig as CosineConfig
from resnet_jax.config.schedules.steps import StepsConfig as StepsConfig

ScheduleConfig = CosineConfig | StepsConfig
"""Every schedule."""

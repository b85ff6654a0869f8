"""What a training run is made of: frozen dataclasses that refuse impossible values.

The docstring below each field is its help on the command line, and states its unit. The command
line shows the default beside it.
"""

from resnet_jax.config.augment import AugmentConfig as AugmentConfig
from resnet_jax.config.averaging import AveragingConfig as AveragingConfig
from resnet_jax.config.checkpoint import CheckpointConfig as CheckpointConfig
from resnet_jax.config.clip import ClipConfig as ClipConfig
from resnet_jax.config.data import DataConfig as DataConfig
from resnet_jax.config.data import DigitsConfig as DigitsConfig
from resnet_jax.config.data import FolderConfig as FolderConfig
from resnet_jax.config.data import ImageConfig as ImageConfig
from resnet_jax.config.data import SyntheticConfig as SyntheticConfig
from resnet_jax.config.data import TfdsArraysConfig as TfdsArraysConfig
from resnet_jax.config.data import TfdsConfig as TfdsConfig
from resnet_jax.config.distillation import DistillationConfig as DistillationConfig
from resnet_jax.config.early_stopping import EarlyStoppingConfig as EarlyStoppingConfig
from resnet_jax.config.experiments import Experiment as Experiment
from resnet_jax.config.experiments import list_experiments as list_experiments
from resnet_jax.config.experiments import load_experiment as load_experiment
from resnet_jax.config.finetune import FinetuneConfig as FinetuneConfig
from resnet_jax.config.guard import GuardConfig as GuardConfig
from resnet_jax.config.loss import FocalConfig as FocalConfig
from resnet_jax.config.loss import LossConfig as LossConfig
from resnet_jax.config.loss import SigmoidConfig as SigmoidConfig
from resnet_jax.config.loss import SoftmaxConfig as SoftmaxConfig
from resnet_jax.config.model import ModelConfig as ModelConfig
from resnet_jax.config.optimizers import AdamWConfig as AdamWConfig
from resnet_jax.config.optimizers import DecayOn as DecayOn
from resnet_jax.config.optimizers import LambConfig as LambConfig
from resnet_jax.config.optimizers import LarsConfig as LarsConfig
from resnet_jax.config.optimizers import LionConfig as LionConfig
from resnet_jax.config.optimizers import MuonConfig as MuonConfig
from resnet_jax.config.optimizers import OptimizerConfig as OptimizerConfig
from resnet_jax.config.optimizers import RmspropConfig as RmspropConfig
from resnet_jax.config.optimizers import SGDConfig as SGDConfig
from resnet_jax.config.process import DistributedConfig as DistributedConfig
from resnet_jax.config.process import ProfileConfig as ProfileConfig
from resnet_jax.config.range_test import RangeTestConfig as RangeTestConfig
from resnet_jax.config.resizing import ResizingConfig as ResizingConfig
from resnet_jax.config.sam import SamConfig as SamConfig
from resnet_jax.config.sampling import SamplingConfig as SamplingConfig
from resnet_jax.config.schedules import ConstantConfig as ConstantConfig
from resnet_jax.config.schedules import CosineConfig as CosineConfig
from resnet_jax.config.schedules import LinearConfig as LinearConfig
from resnet_jax.config.schedules import OneCycleConfig as OneCycleConfig
from resnet_jax.config.schedules import PolynomialConfig as PolynomialConfig
from resnet_jax.config.schedules import ScheduleConfig as ScheduleConfig
from resnet_jax.config.schedules import StepsConfig as StepsConfig
from resnet_jax.config.schedules import TriangularConfig as TriangularConfig
from resnet_jax.config.serialization import ChangedField as ChangedField
from resnet_jax.config.serialization import changed_fields as changed_fields
from resnet_jax.config.serialization import differing_fields as differing_fields
from resnet_jax.config.serialization import kinds as kinds
from resnet_jax.config.train import TrainConfig as TrainConfig
from resnet_jax.config.validation import ConfigError as ConfigError

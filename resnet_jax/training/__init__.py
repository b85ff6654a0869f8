"""Training: one call trains an experiment and leaves a run directory with its report.

from resnet_jax.training import train
result = train(config)
logits = result.run.model.apply(result.variables, images, train=False)
"""

from typing import TYPE_CHECKING

from resnet_jax.lazy_imports import lazy_names

if TYPE_CHECKING:
    from resnet_jax.training.estimation import Estimate as Estimate
    from resnet_jax.training.estimation import estimate as estimate
    from resnet_jax.training.experiment import train as train
    from resnet_jax.training.finetuning import FinetunePlan as FinetunePlan
    from resnet_jax.training.finetuning import finetune_config as finetune_config
    from resnet_jax.training.hooks import EndEvent as EndEvent
    from resnet_jax.training.hooks import EvaluationEvent as EvaluationEvent
    from resnet_jax.training.hooks import Hook as Hook
    from resnet_jax.training.hooks import StartEvent as StartEvent
    from resnet_jax.training.hooks import StepEvent as StepEvent
    from resnet_jax.training.loop import TrainingDivergedError as TrainingDivergedError
    from resnet_jax.training.loop import TrainResult as TrainResult
    from resnet_jax.training.preview import write_preview as write_preview
    from resnet_jax.training.range_test import RangeTest as RangeTest
    from resnet_jax.training.range_test import learning_rate_range_test as learning_rate_range_test

# The module that each name comes from. It is imported when the name is first used, so that a run
# does not load what finetuning, previews and range tests need.
_MODULES = {
    "EndEvent": "hooks",
    "Estimate": "estimation",
    "EvaluationEvent": "hooks",
    "FinetunePlan": "finetuning",
    "Hook": "hooks",
    "RangeTest": "range_test",
    "StartEvent": "hooks",
    "StepEvent": "hooks",
    "TrainResult": "loop",
    "TrainingDivergedError": "loop",
    "estimate": "estimation",
    "finetune_config": "finetuning",
    "learning_rate_range_test": "range_test",
    "train": "experiment",
    "write_preview": "preview",
}

__all__ = list(_MODULES)

__getattr__, __dir__ = lazy_names(__name__, _MODULES)

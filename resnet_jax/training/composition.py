"""The parts of a training step that an experiment asks for, composed around each other."""

from typing import Any

import jax
import optax

from resnet_jax.config import TrainConfig
from resnet_jax.models import ResNet
from resnet_jax.training.accumulation import accumulated
from resnet_jax.training.averaging import Timeline, averaged
from resnet_jax.training.guard import guarded
from resnet_jax.training.loss_scale import make_scaled_gradients, rescaled
from resnet_jax.training.objective import Objective
from resnet_jax.training.optim import frozen, of_head
from resnet_jax.training.sharpness import sharpness_aware
from resnet_jax.training.step import (
    GradientFunction,
    Update,
    make_gradients,
    make_loss,
    make_update,
)


def create_gradient_function(
    config: TrainConfig, model: ResNet, objective: Objective, *, head_only: bool = False
) -> GradientFunction:
    """Return how an experiment computes gradients.

    Args:
        config: The experiment.
        model: The network.
        objective: The loss of each example.
        head_only: Whether only the head is trained.
    """
    loss = make_loss(model, objective, head_only=head_only)
    scaled = config.model.dtype == "float16"
    gradients = make_scaled_gradients(loss) if scaled else make_gradients(loss)
    if config.accumulate_steps > 1:
        gradients = accumulated(gradients, config.accumulate_steps)
    if config.sam.rho:

        def trained(params: optax.Params) -> Any:
            patterns = config.finetune.freeze
            return jax.tree.map(lambda is_frozen: not is_frozen, frozen(params, patterns))

        gradients = sharpness_aware(
            gradients, rho=config.sam.rho, interval=config.sam.interval, trained=trained
        )
    return gradients


def create_update(
    config: TrainConfig,
    optimizer: optax.GradientTransformation,
    timeline: Timeline,
    *,
    head_only: bool = False,
) -> Update:
    """Return what an experiment does with the gradients of a step.

    Args:
        config: The experiment.
        optimizer: The optimizer of all parameters.
        timeline: How the steps are divided into epochs, for the averages.
        head_only: Whether only the head is trained.
    """
    update = make_update(of_head(optimizer) if head_only else optimizer)
    if config.averaging.enabled:
        update = averaged(update, config.averaging, timeline)
    if config.skips_steps:
        update = guarded(update)
    if config.model.dtype == "float16":
        update = rescaled(update)
    return update

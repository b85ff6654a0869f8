"""The loss of each example."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from resnet_jax.config import FocalConfig, LossConfig, SigmoidConfig, SoftmaxConfig
from resnet_jax.training.class_balance import class_weights

Objective = Callable[[jax.Array, Any], jax.Array]
"""From float32[B, K] logits and either int32[B] labels or float32[B, K] targets to float32[B]
losses, in nats. Training minimizes their mean. With a teacher, targets carry its logits too."""


def create_objective(
    config: LossConfig, num_classes: int = 0, class_counts: np.ndarray | None = None
) -> Objective:
    """Return the loss that a configuration describes.

    Args:
        config: The loss.
        num_classes: Number of classes K. It matters only if the loss treats them differently.
        class_counts: int64[K], number of training images of each class, all above 0. It may be None
            if ``config.uses_class_counts`` is False.

    Raises:
        ConfigError: The number of given class weights is not the number of classes.
    """
    weights = class_weights(config, num_classes, class_counts)
    match config:
        case SoftmaxConfig():
            loss = partial(cross_entropy, label_smoothing=config.label_smoothing)
        case SigmoidConfig():
            loss = partial(
                sigmoid_cross_entropy,
                label_smoothing=config.label_smoothing,
                target_threshold=config.target_threshold,
                reduction=config.reduction,
            )
        case FocalConfig(form="softmax"):
            loss = partial(softmax_focal_loss, gamma=config.gamma)
        case FocalConfig():
            loss = partial(
                sigmoid_focal_loss,
                gamma=config.gamma,
                alpha=config.alpha,
                reduction=config.reduction,
            )
    if weights is not None:
        loss = partial(loss, weights=weights)
    if not config.logit_adjustment:
        return loss
    assert class_counts is not None
    # Menon et al. 2021, equation 10.
    adjustment = config.logit_adjustment * np.log(class_counts / class_counts.sum())

    def adjusted(logits: jax.Array, targets: jax.Array) -> jax.Array:
        return loss(logits + jnp.asarray(adjustment, logits.dtype), targets)

    return adjusted


def cross_entropy(
    logits: jax.Array,
    targets: jax.Array,
    *,
    label_smoothing: float = 0.0,
    weights: np.ndarray | None = None,
) -> jax.Array:
    """Return the softmax cross entropy of each example, in nats.

    Args:
        logits: float32[B, K].
        targets: int32[B], labels from 0 to K - 1, or float32[B, K], targets that sum to 1.
        label_smoothing: Share of the target that is spread evenly over all K classes (Szegedy et
            al. 2015, section 7), as in PyTorch.
        weights: float[K], factor of each class's term, as in PyTorch. The mean of the losses
            divides by B, as PyTorch does for targets of all classes; for labels PyTorch divides by
            the sum of the weights of the labels.

    Returns:
        float32[B].
    """
    targets = optax.smooth_labels(_dense(targets, logits), label_smoothing)
    return optax.softmax_cross_entropy(logits, _class_weighted(targets, weights))


def sigmoid_cross_entropy(
    logits: jax.Array,
    targets: jax.Array,
    *,
    label_smoothing: float = 0.0,
    target_threshold: float | None = None,
    reduction: Literal["mean", "sum"] = "mean",
    weights: np.ndarray | None = None,
) -> jax.Array:
    """Return the binary cross entropy of each example, as timm's ``BinaryCrossEntropy``.

    Args:
        logits: float32[B, K].
        targets: int32[B], labels from 0 to K - 1, or float32[B, K], targets from 0 to 1.
        label_smoothing: Share s of the target that is spread evenly over all K classes: s / K, and
            1 - s + s / K for the class of a label.
        target_threshold: Smoothed targets above this become 1 and all others 0.
        reduction: Whether the loss is the mean or the sum over the classes.
        weights: float[K]. The loss of an example is multiplied with the mean of the weights of its
            classes, weighted by its targets before smoothing (Cui et al. 2019, section 4.2).

    Returns:
        float32[B].
    """
    targets = _dense(targets, logits)
    smoothed = optax.smooth_labels(targets, label_smoothing)
    if target_threshold is not None:
        smoothed = (smoothed > target_threshold).astype(logits.dtype)
    losses = _over_classes(optax.sigmoid_binary_cross_entropy(logits, smoothed), reduction)
    return _weighted(losses, targets, weights)


def softmax_focal_loss(
    logits: jax.Array,
    targets: jax.Array,
    *,
    gamma: float = 2.0,
    weights: np.ndarray | None = None,
) -> jax.Array:
    """Return the focal loss of softmax probabilities of each example.

    It is the sum over the classes of ``-target * (1 - p) ** gamma * log(p)``, the form of Lin et
    al. 2017, equation 4, with the probabilities of a softmax.

    Args:
        logits: float32[B, K].
        targets: int32[B], labels from 0 to K - 1, or float32[B, K], targets that sum to 1.
        gamma: Exponent, at least 0.
        weights: float[K], factor of each class's term.

    Returns:
        float32[B].
    """
    targets = _class_weighted(_dense(targets, logits), weights)
    log_p = jax.nn.log_softmax(logits)
    # At a probability of 1, the derivative of a power below 1 is infinite.
    others = jnp.maximum(-jnp.expm1(log_p), jnp.finfo(logits.dtype).tiny)
    return -jnp.sum(targets * others**gamma * log_p, axis=-1)


def sigmoid_focal_loss(
    logits: jax.Array,
    targets: jax.Array,
    *,
    gamma: float = 2.0,
    alpha: float | None = None,
    reduction: Literal["mean", "sum"] = "sum",
    weights: np.ndarray | None = None,
) -> jax.Array:
    """Return the binary focal loss of each example, as torchvision's ``sigmoid_focal_loss``.

    Args:
        logits: float32[B, K].
        targets: int32[B], labels from 0 to K - 1, or float32[B, K], targets from 0 to 1.
        gamma: Exponent, at least 0.
        alpha: Factor of the loss where the target is 1; where it is 0, the factor is 1 - alpha.
            None leaves both out.
        reduction: Whether the loss is the mean or the sum over the classes.
        weights: float[K], as in `sigmoid_cross_entropy`.

    Returns:
        float32[B].
    """
    targets = _dense(targets, logits)
    losses = optax.sigmoid_focal_loss(logits, targets, alpha=alpha, gamma=gamma)
    return _weighted(_over_classes(losses, reduction), targets, weights)


def _dense(targets: jax.Array, logits: jax.Array) -> jax.Array:
    """Return labels as float32[B, K] targets, and targets unchanged."""
    return jax.nn.one_hot(targets, logits.shape[-1]) if targets.ndim == 1 else targets


def _over_classes(losses: jax.Array, reduction: Literal["mean", "sum"]) -> jax.Array:
    return jnp.mean(losses, axis=-1) if reduction == "mean" else jnp.sum(losses, axis=-1)


def _class_weighted(targets: jax.Array, weights: np.ndarray | None) -> jax.Array:
    """Return float32[B, K] targets, each times the weight of its class."""
    return targets if weights is None else targets * jnp.asarray(weights, targets.dtype)


def _weighted(losses: jax.Array, targets: jax.Array, weights: np.ndarray | None) -> jax.Array:
    """Return the losses, float32[B], times the mean weight of the targets, float32[B, K]."""
    if weights is None:
        return losses
    return losses * jnp.sum(targets * jnp.asarray(weights, losses.dtype), axis=-1)

"""Weights and priors of the classes, from the number of training images of each class."""

from collections.abc import Sequence

import numpy as np

from resnet_jax.config import ConfigError, LossConfig


def count_classes(labels: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
    """Return the number of images of each class.

    Args:
        labels: int32[N], from 0 to K - 1.
        class_names: K names.

    Returns:
        int64[K], all above 0.

    Raises:
        ConfigError: A class has no images.
    """
    counts = np.bincount(labels, minlength=len(class_names))
    if not counts.all():
        missing = [name for name, count in zip(class_names, counts, strict=True) if not count]
        raise ConfigError(
            f"the training split has no images of class {', '.join(missing[:5])}, so the loss "
            "cannot depend on the number of images of each class; give loss.class_weights as "
            "numbers, and set loss.logit_adjustment to 0"
        )
    return counts


def class_weights(
    config: LossConfig, num_classes: int, counts: np.ndarray | None
) -> np.ndarray | None:
    """Return the weight of each class in the loss, or None if all classes count the same.

    Args:
        config: The loss.
        num_classes: Number of classes K.
        counts: int64[K], number of training images of each class, all above 0. It may be None if
            ``config.uses_class_counts`` is False.

    Returns:
        float64[K]. The mean of "balanced" weights over the training images is 1, as in
        scikit-learn; that of "effective_number" over the classes is 1 (Cui et al. 2019, section
        4).

    Raises:
        ConfigError: The number of given weights is not the number of classes.
    """
    rule = config.class_weights
    if rule == "none":
        return None
    if isinstance(rule, tuple):
        if len(rule) != num_classes:
            raise ConfigError(
                f"loss.class_weights has {len(rule)} numbers, but the images have {num_classes} "
                "classes; give one number for each class"
            )
        return np.asarray(rule, np.float64)
    assert counts is not None
    if rule == "balanced":
        return counts.sum() / (num_classes * counts)
    beta = config.effective_number_beta
    inverse = (1 - beta) / (1 - beta**counts)
    return inverse * (num_classes / inverse.sum())

"""Configuration of the loss."""

import dataclasses
import math
from typing import ClassVar, Literal

from resnet_jax.config.validation import require, require_not_negative, require_share

ClassWeights = Literal["none", "balanced", "effective_number"] | tuple[float, ...]
"""How much the examples of each class count: by a rule, or one weight for each class."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _ClassBalance:
    """What every loss can do about classes of different sizes."""

    class_weights: ClassWeights = "none"
    """Weight of each class in the loss. "none" gives every class the weight 1. "balanced" is
    N / (K n) for a class with n of the N training images of K classes, so that all classes count
    the same. "effective_number" is proportional to (1 - beta) / (1 - beta^n), with a mean of 1 over
    the classes (Cui et al. 2019). Numbers, one for each class in the order of the labels, are used
    unchanged. The weighted losses are averaged over the images of the batch."""
    effective_number_beta: float = 0.9999
    """The beta of "effective_number", from 0 to below 1. 0 gives all classes the same weight. With
    values near 1, the weights are nearly inversely proportional to the number of images."""
    logit_adjustment: float = 0.0
    """Factor of logit adjustment (Menon et al. 2021): the logarithm of each class's share of the
    training images, times this factor, is added to the logits in training. Nothing is added in
    evaluation, so its logits are those of balanced classes. 1 is usual; 0 turns it off."""

    def __post_init__(self) -> None:
        if isinstance(self.class_weights, tuple):
            require(
                all(0 <= weight < math.inf for weight in self.class_weights)
                and sum(self.class_weights) > 0,
                "class_weights must be numbers that are not negative and not all 0, but they are "
                f"{self.class_weights}",
            )
        require_share(self, "effective_number_beta")
        require_not_negative(self, "logit_adjustment")

    @property
    def uses_class_counts(self) -> bool:
        """Whether the loss depends on the number of training images of each class."""
        return self.class_weights in ("balanced", "effective_number") or self.logit_adjustment > 0


@dataclasses.dataclass(frozen=True)
class SoftmaxConfig(_ClassBalance):
    """Softmax cross entropy."""

    kind: ClassVar[str] = "softmax"

    label_smoothing: float = 0.0
    """Share of each target that is spread evenly over all classes, from 0 to below 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_share(self, "label_smoothing")


@dataclasses.dataclass(frozen=True)
class SigmoidConfig(_ClassBalance):
    """Binary cross entropy of each class, as in timm's BinaryCrossEntropy (ResNet strikes back)."""

    kind: ClassVar[str] = "sigmoid"

    label_smoothing: float = 0.0
    """Share of each target that is spread evenly over all classes, from 0 to below 1."""
    target_threshold: float | None = None
    """Targets above this value become 1 and all others become 0, after smoothing and mixing. A
    mixed image then shows two classes at once. timm uses 0.2 for ResNet strikes back. None leaves
    the targets unchanged."""
    reduction: Literal["mean", "sum"] = "mean"
    """How the losses of the classes are combined into the loss of an image. "mean" divides the
    gradients by the number of classes, which suits LAMB. "sum" suits SGD."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_share(self, "label_smoothing")
        threshold = self.target_threshold
        require(
            threshold is None or 0 <= threshold < 1,
            f"target_threshold must be in [0, 1) or None, but it is {threshold}",
        )


@dataclasses.dataclass(frozen=True)
class FocalConfig(_ClassBalance):
    """Focal loss, in which well-classified examples count less (Lin et al. 2017)."""

    kind: ClassVar[str] = "focal"

    form: Literal["softmax", "sigmoid"] = "softmax"
    """Form of the loss. "softmax" multiplies the cross entropy of the class by (1 - p)^gamma, where
    p is its probability. "sigmoid" is the loss of the paper, which is a binary loss for each class,
    as in torchvision's sigmoid_focal_loss."""
    gamma: float = 2.0
    """Exponent of the factor (1 - p). 0 gives the cross entropy; 2 is usual."""
    alpha: float | None = None
    """Weight of the class that an image shows, from 0 to 1. All other classes have the weight
    1 - alpha. It needs form "sigmoid". The paper uses 0.25. None gives all classes the same
    weight."""
    reduction: Literal["mean", "sum"] = "sum"
    """How the losses of the classes are combined into the loss of an image. It has an effect only
    for form "sigmoid"."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_not_negative(self, "gamma")
        require(
            self.alpha is None or (self.form == "sigmoid" and 0 <= self.alpha <= 1),
            f'alpha must be from 0 to 1 and needs form "sigmoid", but it is {self.alpha} and the '
            f'form is "{self.form}"; use class_weights for the form "softmax"',
        )


LossConfig = SoftmaxConfig | SigmoidConfig | FocalConfig
"""Every loss."""

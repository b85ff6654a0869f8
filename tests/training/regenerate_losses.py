"""Recompute the reference values of the losses with PyTorch, torchvision and timm, in float64.

    python tests/training/regenerate_losses.py

It needs an environment of its own, because the project does not depend on PyTorch:

    python -m venv .venv
    .venv/bin/pip install torch==2.13.0 torchvision==0.28.0 timm==1.0.31

`losses_values.npz` gets the inputs and, for each case, the loss of each example and the gradient of
their mean with respect to the logits.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from timm.loss import BinaryCrossEntropy
from torch.nn import functional
from torchvision.ops import sigmoid_focal_loss

Loss = Callable[[torch.Tensor], torch.Tensor]

_rng = np.random.default_rng(0)
LOGITS = torch.from_numpy(_rng.normal(0, 4, (6, 5)))
TEACHER = torch.from_numpy(_rng.normal(0, 4, (6, 5)))
LABELS = torch.tensor([3, 0, 1, 4, 4, 2])
PARTNERS = torch.tensor([2, 4, 4, 1, 0, 3])
WEIGHTS = torch.tensor([0.5, 2.0, 1.25, 0.1, 1.0], dtype=torch.float64)
COUNTS = torch.tensor([50.0, 3.0, 20.0, 400.0, 7.0], dtype=torch.float64)
ONE_HOT = functional.one_hot(LABELS, 5).double()
MIXED = 0.7 * ONE_HOT + 0.3 * functional.one_hot(PARTNERS, 5).double()


def smoothed(targets: torch.Tensor, share: float) -> torch.Tensor:
    """Return targets as timm smooths labels before it mixes them."""
    return targets * (1 - share) + share / 5


def softmax_focal(logits: torch.Tensor, targets: torch.Tensor, gamma: float) -> torch.Tensor:
    """Return the focal loss of softmax probabilities, written out."""
    p = torch.softmax(logits, -1)
    return -(targets * (1 - p) ** gamma * torch.log_softmax(logits, -1)).sum(-1)


def bce(targets: torch.Tensor, *, sums: bool = False, **options: float) -> Loss:
    """Return timm's loss of each example, which has its own weight in the mean."""
    loss = BinaryCrossEntropy(reduction="none", **options)
    return lambda logits: loss(logits, targets).sum(-1) if sums else loss(logits, targets).mean(-1)


def distilled(share: float, temperature: float) -> Loss:
    """Return the loss of Hinton et al. 2015 with the factor T^2 of section 2.1."""

    def loss(logits: torch.Tensor) -> torch.Tensor:
        soft = functional.kl_div(
            functional.log_softmax(logits / temperature, -1),
            functional.softmax(TEACHER / temperature, -1),
            reduction="none",
        ).sum(-1)
        hard = functional.cross_entropy(logits, LABELS, reduction="none", label_smoothing=0.1)
        return (1 - share) * hard + share * temperature**2 * soft

    return loss


def focal(targets: torch.Tensor, *, alpha: float, gamma: float) -> Loss:
    """Return torchvision's focal loss, summed over the classes."""
    return lambda logits: sigmoid_focal_loss(logits, targets, alpha, gamma).sum(-1)


def cross_entropy(targets: torch.Tensor, **options: object) -> Loss:
    """Return PyTorch's cross entropy of each example."""
    return lambda logits: functional.cross_entropy(logits, targets, reduction="none", **options)


PRIOR = torch.log(COUNTS / COUNTS.sum())
EFFECTIVE = (1 - 0.99) / (1 - 0.99**COUNTS)

CASES: dict[str, Loss] = {
    "softmax": cross_entropy(LABELS),
    "softmax smoothed": cross_entropy(LABELS, label_smoothing=0.1),
    "softmax mixed": cross_entropy(MIXED, label_smoothing=0.1),
    "softmax weights": cross_entropy(LABELS, weight=WEIGHTS, label_smoothing=0.1),
    "softmax mixed weights": cross_entropy(MIXED, weight=WEIGHTS, label_smoothing=0.1),
    "softmax balanced": cross_entropy(LABELS, weight=COUNTS.sum() / (5 * COUNTS)),
    "softmax effective": cross_entropy(LABELS, weight=EFFECTIVE * 5 / EFFECTIVE.sum()),
    "softmax adjusted": lambda logits: functional.cross_entropy(
        logits + 1.5 * PRIOR, LABELS, reduction="none"
    ),
    "sigmoid": bce(LABELS, smoothing=0.0),
    "sigmoid smoothed sum": bce(LABELS, smoothing=0.1, sums=True),
    # With mixing, timm smooths the labels before it mixes them.
    "sigmoid mixed": bce(smoothed(MIXED, 0.1)),
    "sigmoid threshold": bce(smoothed(MIXED, 0.1), target_threshold=0.2),
    "sigmoid weights": lambda logits: bce(LABELS, smoothing=0.1)(logits) * WEIGHTS[LABELS],
    "focal sigmoid": focal(ONE_HOT, alpha=0.25, gamma=2.0),
    "focal sigmoid plain": focal(MIXED, alpha=-1, gamma=1.5),
    "focal softmax": lambda logits: softmax_focal(logits, ONE_HOT, 2.0),
    "focal softmax mixed": lambda logits: softmax_focal(logits, MIXED, 0.5),
    "focal softmax weights": lambda logits: softmax_focal(logits, ONE_HOT * WEIGHTS, 2.0),
    "distilled": distilled(0.9, 4.0),
}


def main() -> None:
    """Write the values."""
    values = {
        "logits": LOGITS,
        "teacher": TEACHER,
        "labels": LABELS.int(),
        "mixed": MIXED,
        "weights": WEIGHTS,
        "counts": COUNTS.long(),
    }
    for name, loss in CASES.items():
        logits = LOGITS.clone().requires_grad_()
        losses = loss(logits)
        losses.mean().backward()
        assert logits.grad is not None
        values[f"{name} losses"], values[f"{name} gradient"] = losses.detach(), logits.grad
    # PyTorch's own mean of weighted losses, whose divisor differs between labels and targets.
    for name, targets in {"labels": LABELS, "mixed": MIXED}.items():
        values[f"torch mean {name}"] = functional.cross_entropy(LOGITS, targets, weight=WEIGHTS)
    np.savez_compressed(
        Path(__file__).parent / "losses_values.npz",
        **{name: value.numpy() for name, value in values.items()},
    )


if __name__ == "__main__":
    main()

"""Comparison of two classifiers on the same images."""

import csv
import dataclasses
import io
from typing import Any, NamedTuple

import numpy as np

from resnet_jax.inference.class_names import synsets
from resnet_jax.inference.evaluation import Evaluation
from resnet_jax.inference.measures import Measures, Scores, bootstrap_means, interval, summarize


class Disagreement(NamedTuple):
    """An image for which two classifiers predict different classes.

    Attributes:
        name: Where the image comes from.
        label: Name of its class.
        prediction_a: Class that A predicts.
        probability_a: Probability that A gives to it, 0 to 1.
        prediction_b: Class that B predicts.
        probability_b: Probability that B gives to it, 0 to 1.
        right: Which of the two is right: ``"a"``, ``"b"`` or ``"neither"``.
    """

    name: str
    label: str
    prediction_a: str
    probability_a: float
    prediction_b: str
    probability_b: float
    right: str


class Difference(NamedTuple):
    """A measure of B minus that of A.

    Attributes:
        value: The difference.
        interval: Its 95 % confidence interval, from a bootstrap that draws the same images for A
            and B.
    """

    value: float
    interval: tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Comparison of the classifiers A and B on the images that both can read.

    Attributes:
        a: Measures of A.
        b: Measures of B.
        both_right: Number of images that both classify correctly.
        only_a_right: Number of images that only A classifies correctly.
        only_b_right: Number of images that only B classifies correctly.
        both_wrong: Number of images that neither classifies correctly.
        p_value: Two-sided p-value of McNemar's exact test, see `mcnemar`.
        differences: Differences of ``top1``, ``top5``, ``nll`` and ``brier``.
        disagreements: The images for which they predict different classes.
    """

    a: Measures
    b: Measures
    both_right: int
    only_a_right: int
    only_b_right: int
    both_wrong: int
    p_value: float
    differences: dict[str, Difference]
    disagreements: list[Disagreement]

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {
            **{field.name: getattr(self, field.name) for field in dataclasses.fields(self)},
            "a": self.a._asdict(),
            "b": self.b._asdict(),
            "differences": {name: d._asdict() for name, d in self.differences.items()},
            "disagreements": [row._asdict() for row in self.disagreements],
        }

    def to_csv(self) -> str:
        """Return the disagreements as CSV with a header."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerows([Disagreement._fields, *self.disagreements])
        return buffer.getvalue()


def compare(a: Evaluation, b: Evaluation) -> Comparison:
    """Return the comparison of two evaluations of the same images.

    Args:
        a: Evaluation of A.
        b: Evaluation of B, of the same images in the same order. Its classes may have another order
            or be named by their synsets.

    Raises:
        ValueError: The images are not the same, or no image can be read by both.
    """
    if list(a.names) != list(b.names):
        raise ValueError(
            f"the images are not the same: A was evaluated on {a.data} {a.split} and B on {b.data} "
            f"{b.split}; evaluate both on the same data"
        )
    both = a.mask & b.mask
    if not both.any():
        raise ValueError("no image can be read by both")
    of_a, of_b = (
        Scores(*(values[both[evaluation.mask]] for values in evaluation.scores))
        for evaluation in (a, b)
    )
    only_a = int(np.sum(of_a.top1 & ~of_b.top1))
    only_b = int(np.sum(of_b.top1 & ~of_a.top1))
    names = ("top1", "top5", "nll", "brier")
    paired = np.stack(
        [getattr(of_b, name).astype(float) - getattr(of_a, name) for name in names], axis=1
    )
    samples = bootstrap_means(paired)
    return Comparison(
        a=summarize(of_a),
        b=summarize(of_b),
        both_right=int(np.sum(of_a.top1 & of_b.top1)),
        only_a_right=only_a,
        only_b_right=only_b,
        both_wrong=int(np.sum(~of_a.top1 & ~of_b.top1)),
        p_value=mcnemar(only_a, only_b),
        differences={
            name: Difference(float(paired[:, i].mean()), interval(samples[:, i]))
            for i, name in enumerate(names)
        },
        disagreements=_disagreements(a, b, np.flatnonzero(both), of_a, of_b),
    )


def _disagreements(
    a: Evaluation, b: Evaluation, indices: np.ndarray, of_a: Scores, of_b: Scores
) -> list[Disagreement]:
    common_a, common_b = synsets(a.class_names), synsets(b.class_names)
    return [
        Disagreement(
            name=a.names[index],
            label=a.class_names[a.labels[index]],
            prediction_a=a.class_names[of_a.prediction[i]],
            probability_a=float(of_a.confidence[i]),
            prediction_b=b.class_names[of_b.prediction[i]],
            probability_b=float(of_b.confidence[i]),
            right="a" if of_a.top1[i] else "b" if of_b.top1[i] else "neither",
        )
        for i, index in enumerate(indices)
        if common_a[of_a.prediction[i]] != common_b[of_b.prediction[i]]
    ]


def mcnemar(only_a: int, only_b: int) -> float:
    """Return the two-sided p-value of McNemar's exact test.

    If A and B were equally good, each image that only one of them classifies correctly would be
    A's or B's with a probability of one half.  The p-value is twice the binomial probability of at
    most the smaller number, and at most 1.  It is computed with integers and rounded once.

    Args:
        only_a: Number of images that only A classifies correctly.
        only_b: Number of images that only B classifies correctly.

    >>> mcnemar(1, 5)
    0.21875
    """
    total = only_a + only_b
    term = tail = 1
    for i in range(min(only_a, only_b)):
        term = term * (total - i) // (i + 1)
        tail += term
    return min(1.0, 2 * tail / 2**total)

"""The page that shows training batches as the network gets them."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from resnet_jax.report.charts import number
from resnet_jax.report.page import create_environment
from resnet_jax.report.pictures import Picture, thumbnail

# Largest height and width of an image, in pixels.
_SIDE = 224
# Data sets of more classes have only those in the table that appear.
_MAX_ABSENT = 100
# Most classes of one target that are named.
_MAX_NAMED = 4
# Smallest difference of two shares.
_EPSILON = 1e-6


@dataclasses.dataclass(frozen=True, eq=False)
class BatchPreview:
    """A training batch of B images, of which N are shown.

    Attributes:
        step: Number of the step that gets it, from 1.
        images: uint8[N, H, W, 1 or 3], the images after augmentation and mixing.
        targets: float32[N, K], the shares of the classes in the target of each image.
        labels: int[B], the labels before mixing.
        mean: float32[C], mean of the input of the network for each channel, over the whole batch.
        std: float32[C], standard deviation of the input.
    """

    step: int
    images: np.ndarray
    targets: np.ndarray
    labels: np.ndarray
    mean: np.ndarray
    std: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Preview:
    """Everything that a preview shows.

    Attributes:
        title: Title of the page.
        facts: What would be run, by name.
        class_names: K names.
        batch_size: Number of images in a batch, B.
        batches: The batches.
    """

    title: str
    facts: Mapping[str, str]
    class_names: Sequence[str]
    batch_size: int
    batches: Sequence[BatchPreview]


class Target(NamedTuple):
    """The target of an image.

    Attributes:
        classes: Names of classes with their shares, 0 to 1, the largest share first.
        others: Share of all other classes together.
    """

    classes: list[tuple[str, float]]
    others: float


class Shown(NamedTuple):
    """An image with its target."""

    picture: Picture
    target: Target


def write_preview_page(path: Path, preview: Preview) -> None:
    """Write a page that shows training batches.

    Args:
        path: The HTML file. An interruption leaves a whole file or none.
        preview: What the page shows.
    """
    counts = _counts(preview)
    page = (
        create_environment()
        .get_template("preview.html.jinja")
        .render(
            preview=preview,
            batches=[(batch, _shown(batch, preview.class_names)) for batch in preview.batches],
            headline=_headline(preview),
            facts={**preview.facts, "input": _input(preview)},
            counts=counts,
            present=sum(any(row) for _, row in counts),
        )
    )
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        temporary.write_text(page, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def target_of(shares: np.ndarray, class_names: Sequence[str]) -> Target:
    """Return the classes of a target.

    Smoothing gives the same small share to all classes. Of more than four classes, only those with
    a larger share are named.

    >>> target_of(np.array([0.02, 0.42, 0.52, 0.02, 0.02]), ["ant", "bee", "cat", "dog", "elk"])
    Target(classes=[('cat', 0.52), ('bee', 0.42)], others=0.06)

    Args:
        shares: float[K].
        class_names: K names.
    """
    order = np.argsort(-shares, kind="stable")[:_MAX_NAMED]
    smoothing = shares.min() if len(shares) > _MAX_NAMED else 0.0
    named = [int(i) for i in order if shares[i] > smoothing + _EPSILON]
    others = float(np.delete(shares, named).sum())
    return Target(
        [(class_names[i], float(shares[i])) for i in named],
        round(others, 6) if others > _EPSILON else 0.0,
    )


def _shown(batch: BatchPreview, class_names: Sequence[str]) -> list[Shown]:
    return [
        Shown(thumbnail(image, _SIDE), target_of(shares, class_names))
        for image, shares in zip(batch.images, batch.targets, strict=True)
    ]


def _headline(preview: Preview) -> dict[str, str]:
    """Return the few numbers that matter most."""
    height, width, channels = preview.batches[0].images.shape[1:]
    return {
        "images in a batch": f"{preview.batch_size:,}",
        "height, width and channels": f"{height}x{width}x{channels}",
        "classes": f"{len(preview.class_names):,}",
    }


def _input(preview: Preview) -> str:
    """Return mean and standard deviation of the input of the network, for each channel."""

    def mean_of(name: str) -> str:
        means = np.mean([getattr(batch, name) for batch in preview.batches], axis=0)
        return ", ".join(number(round(float(value), 3)) for value in means)

    return f"mean {mean_of('mean')}; standard deviation {mean_of('std')}"


def _counts(preview: Preview) -> list[tuple[str, list[int]]]:
    """Return the names of classes with the number of their images in each batch."""
    num_classes = len(preview.class_names)
    columns = [np.bincount(batch.labels, minlength=num_classes) for batch in preview.batches]
    rows = [
        (name, [int(column[i]) for column in columns]) for i, name in enumerate(preview.class_names)
    ]
    return [row for row in rows if num_classes <= _MAX_ABSENT or any(row[1])]

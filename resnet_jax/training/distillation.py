"""Distillation: a teacher gives every image logits, and the loss compares the network with them.

It is composed around the other pieces: the augmentation is followed by the teacher, and the loss of
the labels is wrapped.  The training step itself does not know of it.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax

from resnet_jax.config import ConfigError, DistillationConfig
from resnet_jax.data import Dataset
from resnet_jax.data.preprocessing import Preprocessing
from resnet_jax.inference.class_names import match_classes
from resnet_jax.inference.classifier import Classifier
from resnet_jax.models import ResNet
from resnet_jax.training.accumulation import microbatches, whole
from resnet_jax.training.objective import Objective
from resnet_jax.weights.formats.digests import describe_arrays, json_digest


class Taught(NamedTuple):
    """Targets together with what the teacher says.

    Attributes:
        targets: int32[B] labels or float32[B, K] targets.
        logits: float32[B, K], of the teacher.
    """

    targets: jax.Array
    logits: jax.Array


class Teacher(Protocol):
    """Where logits come from."""

    @property
    def resident(self) -> Any:
        """Arrays that every device keeps during the whole run: a pytree."""
        ...

    def logits(self, resident: Any, images: jax.Array, drawn: Any) -> jax.Array:
        """Return the logits of a batch, float32[B, K], in the order of the classes of the data.

        Args:
            resident: The arrays in `resident`, on the devices.
            images: float32[B, H, W, C], augmented, the input of the network that is trained.
            drawn: What the iterator of the training split yields, on the devices.
        """
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class NetworkTeacher:
    """A network in evaluation mode that sees the augmented images.

    Attributes:
        model: The network.
        resident: Its variables, in NumPy arrays.
        preprocessing: What it expects.
        given: What the images have been prepared for.
        order: int64[K], which of its logits is that of each class of the data.
    """

    model: ResNet
    resident: Any
    preprocessing: Preprocessing
    given: Preprocessing
    order: np.ndarray

    def logits(self, resident: Any, images: jax.Array, drawn: Any) -> jax.Array:
        """Return the logits of a batch; see `Teacher.logits`."""
        del drawn
        ours, theirs = self.given, self.preprocessing
        if (ours.mean, ours.std) != (theirs.mean, theirs.std):
            levels = images * jnp.asarray(ours.std) + jnp.asarray(ours.mean)
            images = (levels - jnp.asarray(theirs.mean)) / jnp.asarray(theirs.std)
        size = theirs.size if theirs.upsample_size is None else (theirs.upsample_size,) * 2
        if images.shape[1:3] != size:
            shape = (len(images), *size, images.shape[-1])
            images = jax.image.resize(images, shape, "bilinear")
        logits: Any = self.model.apply(resident, images, train=False)
        return logits[:, self.order]


@dataclasses.dataclass(frozen=True, eq=False)
class LogitsTeacher:
    """Logits of all training images, which were computed before.

    Attributes:
        resident: float32[N, K], in the order of the training split.
    """

    resident: np.ndarray

    def logits(self, resident: Any, images: jax.Array, drawn: Any) -> jax.Array:
        """Return the logits of a batch; see `Teacher.logits`."""
        del images
        return jnp.asarray(resident).at[drawn.index].get(mode="promise_in_bounds")


def open_teacher(config: DistillationConfig, dataset: Dataset) -> Teacher | None:
    """Return the teacher that a configuration names, or None if it names none.

    Raises:
        ConfigError: The teacher cannot be read, or does not fit the data; in one line.
    """
    if config.teacher is None:
        return None
    try:
        return (_open_logits if config.is_file else _open_network)(config.teacher, dataset)
    except (ImportError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"distillation.teacher {config.teacher}: {reason}") from error


def digest(teacher: Teacher) -> str:
    """Return a SHA-256 of what a teacher knows. A run is only continued with the same teacher."""
    return json_digest(describe_arrays({"teacher": teacher.resident}))


def taught(
    augment: Callable[..., tuple[jax.Array, jax.Array]],
    teacher: Teacher,
    resident: Any,
    drawn: Any,
    steps: int = 1,
) -> Callable[..., tuple[jax.Array, Taught]]:
    """Return an augmentation whose targets carry the logits of a teacher.

    Args:
        augment: The augmentation, as in `Dataset`.
        teacher: The teacher.
        resident: Its arrays, on the devices.
        drawn: What the iterator of the training split yields, on the devices.
        steps: Number of microbatches that the teacher is given one after the other.
    """

    def ask(images: jax.Array) -> jax.Array:
        if steps == 1:
            return teacher.logits(resident, images, drawn)
        parts = microbatches((images, drawn), steps)
        return whole(jax.lax.map(lambda part: teacher.logits(resident, *part), parts))

    def augment_and_ask(*arguments: jax.Array) -> tuple[jax.Array, Taught]:
        images, targets = augment(*arguments)
        return images, Taught(targets, ask(images))

    return augment_and_ask


def distilled(objective: Objective, *, temperature: float, weight: float) -> Objective:
    """Return the loss of Hinton et al. 2015, for targets that are `Taught`.

    Args:
        objective: The loss of the targets.
        temperature: Number T that both logits are divided by. The divergence is multiplied with
            T^2, so that its gradient keeps its size (section 2.1 of the paper).
        weight: Share of the teacher in the loss, from 0 to 1.
    """

    def loss(logits: jax.Array, taught: Taught) -> jax.Array:
        ours, theirs = (
            jax.nn.log_softmax(values / temperature) for values in (logits, taught.logits)
        )
        divergence = optax.losses.kl_divergence_with_log_targets(ours, theirs)
        hard = objective(logits, taught.targets)
        return (1 - weight) * hard + weight * temperature**2 * divergence

    return loss


def _open_network(source: str, dataset: Dataset) -> NetworkTeacher:
    teacher, names = Classifier.from_pretrained(source), dataset.class_names
    given, expected = dataset.preprocessing, teacher.preprocessing
    if len(teacher.class_names) != len(names):
        raise ValueError(
            f"it has {len(teacher.class_names)} classes, but the images have {len(names)}; give a "
            "teacher for these classes"
        )
    if given.channels != expected.channels:
        raise ValueError(
            f"it takes images of {expected.channels} channels, but the images have "
            f"{given.channels}; give a teacher for such images"
        )
    return NetworkTeacher(
        model=teacher.model,
        resident=jax.tree.map(np.asarray, teacher.variables),
        preprocessing=expected,
        given=given,
        order=match_classes(names, teacher.class_names),
    )


def _open_logits(source: str, dataset: Dataset) -> LogitsTeacher:
    logits = np.load(Path(source).expanduser(), allow_pickle=False)
    expected = len(dataset.train), len(dataset.class_names)
    if logits.shape != expected or not np.issubdtype(logits.dtype, np.floating):
        raise ValueError(
            f"it holds {logits.dtype}{list(logits.shape)}, but the {expected[0]} training images "
            f"of {expected[1]} classes need float{list(expected)}"
        )
    if not np.isfinite(logits).all():
        raise ValueError("some of its logits are not finite; compute them again")
    return LogitsTeacher(logits.astype(np.float32))

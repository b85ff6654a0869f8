"""Configuration of distillation."""

import dataclasses

from resnet_jax.config.validation import require, require_positive


@dataclasses.dataclass(frozen=True)
class DistillationConfig:
    """Learning from the predictions of a teacher (Hinton et al. 2015).

    The loss is (1 - weight) times the loss of the labels, plus weight times temperature^2 times the
    divergence (Kullback-Leibler) of the network's probabilities from those of the teacher, both at
    the temperature.
    """

    teacher: str | None = None
    """The teacher: the directory of a run, the name of published weights, hf://OWNER/NAME, or a
    .npy file of logits, float[N, K] in the order of the training split. Its classes must be those
    of the data. A network sees the augmented images, at its own size and with its own mean and
    standard deviation. The logits of a file are kept on every device. None turns distillation
    off."""
    temperature: float = 4.0
    """Number by which the logits of the network and of the teacher are divided. Higher values also
    teach the order of the unlikely classes. 1 to 5 is usual."""
    weight: float = 0.9
    """Share of the teacher's term in the loss, above 0 and at most 1. The labels have the rest."""

    def __post_init__(self) -> None:
        require_positive(self, "temperature")
        require(
            0 < self.weight <= 1,
            f"weight must be above 0 and at most 1, but it is {self.weight}",
        )

    @property
    def is_file(self) -> bool:
        """Whether the teacher is a file of logits."""
        return self.teacher is not None and self.teacher.endswith(".npy")

"""Learning from a teacher: the loss, what the teacher sees, and teachers that do not fit."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax import create_model
from resnet_jax.config import (
    AugmentConfig,
    ConfigError,
    DistillationConfig,
    FolderConfig,
    ImageConfig,
    ModelConfig,
    SoftmaxConfig,
    TrainConfig,
)
from resnet_jax.data import Selection
from resnet_jax.data.augment import normalize
from resnet_jax.data.preprocessing import Preprocessing
from resnet_jax.inference import Classifier
from resnet_jax.training.distillation import NetworkTeacher, Taught, distilled, open_teacher, taught
from resnet_jax.training.loop import _first_state
from resnet_jax.training.objective import create_objective
from resnet_jax.training.rundir.checkpoints import CheckpointError
from resnet_jax.training.setup import Run
from tests.training.test_finetuning import write_images
from tests.variables import random_variables

DIGITS = tuple(str(digit) for digit in range(10))


@pytest.fixture(scope="module")
def plain(small_config: TrainConfig) -> Run:
    return Run.create(small_config)


@pytest.fixture(scope="module")
def logits() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(1437, 10)).astype(np.float32)


@pytest.fixture(scope="module")
def file(logits: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("teacher") / "logits.npy"
    np.save(path, logits)
    return path


def classifier(
    names: tuple[str, ...] = DIGITS, *, channels: int = 1, mean: float = 0.3, size: int = 16
) -> Classifier:
    """Return a small network with random variables."""
    model = create_model(
        "resnet18", num_classes=len(names), width=8, stage_sizes=(1, 1), in_channels=channels
    )
    variables = random_variables(model, np.zeros((1, size, size, channels), np.float32))
    preprocessing = Preprocessing(
        size, 1.0, "pil_bilinear", mean=(mean,), std=(0.2,), channels=channels
    )
    return Classifier(model, variables, preprocessing, names)


def test_the_loss_is_that_of_hinton_et_al() -> None:
    with np.load(Path(__file__).parent / "losses_values.npz") as archive, jax.enable_x64(True):
        objective = distilled(
            create_objective(SoftmaxConfig(label_smoothing=0.1)), temperature=4.0, weight=0.9
        )
        teacher, labels = jnp.asarray(archive["teacher"]), jnp.asarray(archive["labels"])

        def mean(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
            losses = objective(logits, Taught(labels, teacher))
            return losses.mean(), losses

        gradient, losses = jax.grad(mean, has_aux=True)(jnp.asarray(archive["logits"]))
        np.testing.assert_allclose(losses, archive["distilled losses"], rtol=0, atol=1e-9)
        np.testing.assert_allclose(gradient, archive["distilled gradient"], rtol=0, atol=1e-9)


def test_a_network_sees_the_images_as_it_was_trained_to() -> None:
    names = tuple(reversed(DIGITS))
    teacher = classifier(names)
    given = dataclasses.replace(teacher.preprocessing, mean=(0.5,), std=(0.25,))
    network = NetworkTeacher(
        teacher.model, teacher.variables, teacher.preprocessing, given, np.arange(10)[::-1]
    )
    images = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 1), np.uint8)
    # The network that is trained has another mean, and its classes are in another order.
    augmented = normalize(jnp.asarray(images), given.mean, given.std)
    ours = network.logits(network.resident, augmented, None)
    expected = teacher.logits(images)[:, ::-1]
    np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
    larger = network.logits(network.resident, jnp.repeat(augmented, 2, axis=1), None)
    assert larger.shape == (5, 10)


def test_classes_are_matched_by_name(plain: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    names = tuple(reversed(DIGITS))
    monkeypatch.setattr(Classifier, "from_pretrained", lambda _: classifier(names))
    teacher: Any = open_teacher(DistillationConfig("runs/teacher"), plain.dataset)
    assert teacher.order.tolist() == list(range(9, -1, -1))


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        ({"names": DIGITS[:9]}, "it has 9 classes, but the images have 10"),
        ({"names": (*DIGITS[:9], "ten")}, "1 of the 10 classes of the data are not classes of"),
        ({"channels": 3}, "it takes images of 3 channels, but the images have 1"),
    ],
)
def test_networks_that_do_not_fit_are_refused(
    plain: Run, monkeypatch: pytest.MonkeyPatch, teacher: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr(Classifier, "from_pretrained", lambda _: classifier(**teacher))
    with pytest.raises(ConfigError, match=message) as error:
        open_teacher(DistillationConfig("runs/teacher"), plain.dataset)
    assert str(error.value).startswith("distillation.teacher runs/teacher: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((1437, 9), np.float32), r"float32\[1437, 9\], but the 1437 training images of"),
        (np.zeros((1437, 10), int), r"it holds int64\[1437, 10\]"),
        (np.full((1437, 10), np.nan, np.float32), "not finite"),
        (None, "No such file"),
    ],
)
def test_files_that_do_not_fit_are_refused(
    plain: Run, tmp_path: Path, array: np.ndarray | None, message: str
) -> None:
    path = tmp_path / "logits.npy"
    if array is not None:
        np.save(path, array)
    with pytest.raises(ConfigError, match=message):
        open_teacher(DistillationConfig(str(path)), plain.dataset)


def test_images_in_files_bring_their_positions(tmp_path: Path) -> None:
    data = FolderConfig(
        str(write_images(tmp_path / "photos", a=8, b=4)),
        images=ImageConfig(image_size=12, threads=1),
    )
    path = tmp_path / "logits.npy"
    logits = np.arange(18, dtype=np.float32).reshape(9, 2)
    np.save(path, logits)
    teaching = DistillationConfig(str(path))
    config = TrainConfig(ModelConfig("resnet18"), data, distillation=teaching, batch_size=8)
    run = Run.create(config)
    train = run.dataset.train
    batches = train.train_batches(6, seed=3, start_step=1)
    drawn = next(batches)
    order = [np.random.default_rng((3, epoch)).permutation(9) for epoch in (0, 1)]
    np.testing.assert_array_equal(drawn.index, np.concatenate(order)[6:12])
    np.testing.assert_array_equal(drawn.batch.label, train.labels[drawn.index])
    _, targets = run._augment(jnp.int32(0), jnp.asarray(logits), drawn)(
        jax.random.key(0), *map(jnp.asarray, drawn.batch[:2])
    )
    np.testing.assert_array_equal(targets.logits, logits[drawn.index])
    images = dataclasses.replace(data.images, augment=AugmentConfig(mixup_alpha=0.2))
    mixed = dataclasses.replace(data, images=images)
    with pytest.raises(ConfigError, match="has logits of images that are not mixed"):
        dataclasses.replace(config, data=mixed)


def test_a_step_compares_each_image_with_its_logits(
    small_config: TrainConfig, file: Path, logits: np.ndarray
) -> None:
    config = dataclasses.replace(small_config, distillation=DistillationConfig(str(file)))
    run = Run.create(config)
    index = np.array([3, 1400, 7, 7])
    drawn = Selection(jnp.asarray(index, jnp.int32), jnp.ones(4, bool))
    augment = run._augment(jnp.int32(0), jnp.asarray(logits), drawn)
    labels = jnp.arange(4)
    _, targets = augment(jax.random.key(0), jnp.zeros((4, 8, 8, 1), jnp.uint8), labels)
    np.testing.assert_array_equal(targets.logits, logits[index])
    np.testing.assert_array_equal(targets.targets, labels)
    # The logits are an argument of the program, not a constant in it.
    lowered = run.lower_train_step()
    assert lowered.args_info[0][0][1].shape == (1437, 10)
    assert "dense_resource" not in lowered.as_text()


def test_a_teacher_is_given_microbatches() -> None:
    given = []

    class Recording:
        resident = ()

        def logits(self, resident: Any, images: jax.Array, drawn: Any) -> jax.Array:
            del resident
            given.append(len(images))
            return images.reshape(len(images), -1) + drawn.index[:, None]

    def ask(steps: int) -> jax.Array:
        drawn = Selection(jnp.arange(6), jnp.ones(6, bool))
        augment = taught(lambda _, *arrays: arrays, Recording(), (), drawn, steps)
        images = jnp.arange(24.0).reshape(6, 2, 2, 1)
        return augment(jax.random.key(0), images, jnp.arange(6))[1].logits

    np.testing.assert_array_equal(ask(3), ask(1))
    assert given == [2, 6]


def test_a_run_is_only_continued_with_its_teacher(
    small_config: TrainConfig, file: Path, logits: np.ndarray, tmp_path: Path
) -> None:
    config = dataclasses.replace(small_config, distillation=DistillationConfig(str(file)))
    run = Run.create(config)
    metadata = {
        "data": {"fingerprint": run.dataset.fingerprint},
        "teacher": run.teacher_digest,
    }
    checkpoints: Any = SimpleNamespace(latest_step=5, restore=lambda _: (None, metadata))
    console: Any = SimpleNamespace(print=lambda _: None)
    assert _first_state(run, checkpoints, console) == (None, None)
    other = tmp_path / "logits.npy"
    np.save(other, logits + 1)
    changed = dataclasses.replace(
        run, teacher=open_teacher(DistillationConfig(str(other)), run.dataset)
    )
    with pytest.raises(CheckpointError, match="is not the one that this run began with"):
        _first_state(changed, checkpoints, console)

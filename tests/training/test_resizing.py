"""Training images and batches whose sizes change during a run, and another size for evaluation."""

import dataclasses
import itertools
import signal
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from resnet_jax.config import (
    AugmentConfig,
    AveragingConfig,
    CheckpointConfig,
    ConfigError,
    ConstantConfig,
    CosineConfig,
    DigitsConfig,
    FinetuneConfig,
    FolderConfig,
    ImageConfig,
    ModelConfig,
    ResizingConfig,
    SamplingConfig,
    SGDConfig,
    SyntheticConfig,
    TrainConfig,
)
from resnet_jax.data import open_dataset
from resnet_jax.models.variants import _VARIANTS
from resnet_jax.training.averaging import create_averaging_weight
from resnet_jax.training.description import describe
from resnet_jax.training.loop import train
from resnet_jax.training.phases import Phase, Phases
from resnet_jax.training.process.goodput import Goodput
from resnet_jax.training.process.preemption import PreemptedError
from resnet_jax.training.rundir.workdir import Workdir
from resnet_jax.training.setup import Run
from resnet_jax.training.state import TrainState
from tests.training.tiny_train import NETWORKS

pytestmark = pytest.mark.usefixtures("tiny_networks")


@pytest.mark.parametrize(
    ("start", "end", "first"),
    [(11, 13, 12), (17, 20, 19), (23, 27, 25), (29, 34, 32), (41, 48, 45), (65, 76, 71)],
)
def test_sizes_are_those_of_ffcv(start: int, end: int, first: int) -> None:
    """The ramps of its configurations of 16, 24, 32, 40, 56 and 88 epochs, from 160 to 192."""
    config = ResizingConfig(initial_size=160, start_epoch=start, end_epoch=end)
    sizes = [config.size_at(epoch, 192) for epoch in range(end + 2)]
    assert sizes == [160] * first + [192] * (end + 2 - first)


def test_sizes_are_those_of_composer() -> None:
    """``delay_fraction`` 0.4, ``finetune_fraction`` 0.2 and half of 176 pixels, over 36 epochs."""
    config = ResizingConfig(
        initial_size=88, start_epoch=0.4 * 36, end_epoch=0.8 * 36, multiple_of=4
    )
    for epoch in range(36):
        elapsed = epoch / 36
        share = min((elapsed - 0.4) / (1 - 0.2 - 0.4), 1) if elapsed >= 0.4 else 0.0
        scale = 0.5 + (1 - 0.5) * share
        assert config.size_at(epoch, 176) == round(176 * scale / 4) * 4


CONFIG = TrainConfig(
    model=ModelConfig("tiny_resnet"),
    data=SyntheticConfig(image_size=16, num_classes=3, train_examples=20, test_examples=8),
    optimizer=SGDConfig(learning_rate=0.1),
    schedule=CosineConfig(warmup_epochs=0.5),
    resizing=ResizingConfig(
        initial_size=8, end_epoch=2, multiple_of=4, batch_sizes=((8, 8), (12, 6))
    ),
    batch_size=4,
    epochs=3.0,
    log_every_steps=1,
    evaluate_every_epochs=3.0,
)


def run_of(config: TrainConfig = CONFIG, **changes: Any) -> Run:
    return Run.create(dataclasses.replace(config, **changes), jax.devices()[:1])


def test_the_sizes_change_at_the_steps_nearest_to_epochs() -> None:
    run = run_of()
    # An epoch has 20 examples.
    assert run.phases.phases == (
        Phase(8, 8, first_step=0, first_example=0),
        Phase(12, 6, first_step=3, first_example=24),
        Phase(16, 4, first_step=6, first_example=42),
    )
    assert run.total_steps == 6 + round((60 - 42) / 4 + 0.01)
    assert [run.phases.examples(step) for step in (0, 2, 3, 4, 6, 7)] == [0, 16, 24, 30, 42, 46]
    assert run.epochs_done(6) == 42 / 20
    assert [step for step in range(1, 12) if run.evaluation_due(step)] == [11]
    plain = run_of(resizing=ResizingConfig())
    for epochs in np.linspace(0.1, 3, 20):
        assert max(1, plain.phases.steps(epochs)) == CONFIG.steps(epochs, 20)


def test_averages_follow_the_epochs() -> None:
    averaging = AveragingConfig(equal_weights=True, every_steps="epoch", start_epoch=1.0)
    run = run_of(averaging=averaging, evaluate_every_epochs=1.0)
    evaluated = [step for step in range(1, 12) if run.evaluation_due(step)]
    assert run.timeline.epoch_ends == evaluated == [3, 6, 11]
    weight = create_averaging_weight(averaging, run.timeline)
    weights = [float(weight(jnp.asarray(step))) for step in range(11)]
    np.testing.assert_allclose(weights, [1, 1, 1, 0, 0, 1 / 2, 0, 0, 0, 0, 1 / 3], rtol=1e-6)
    # With batches of 4 alone, every epoch has five steps.
    plain = run_of(averaging=averaging, resizing=ResizingConfig())
    assert plain.timeline.epoch_ends == [5, 10, 15]


def test_an_epoch_shorter_than_half_a_batch_has_no_phase_of_its_own() -> None:
    resizing = ResizingConfig(initial_size=8, end_epoch=2, multiple_of=4)
    run = run_of(batch_size=64, resizing=resizing)
    assert run.phases.phases == (Phase(12, 64, 0, 0), Phase(16, 64, 1, 64))


@pytest.mark.parametrize(
    ("rule", "factors"),
    [("none", (1, 1)), ("linear", (2, 1.5)), ("square_root", (2**0.5, 1.5**0.5))],
)
def test_the_learning_rate_follows_the_batch_size(rule: Any, factors: tuple[float, float]) -> None:
    changes: dict[str, Any] = {"learning_rate_scaling": rule, "schedule": ConstantConfig(0.0)}
    run = run_of(**changes)
    peak = run.config.peak_learning_rate
    rates = [float(run.schedule(step)) for step in range(11)]
    expected = [peak * factors[0]] * 3 + [peak * factors[1]] * 3 + [peak] * 5
    np.testing.assert_allclose(rates, expected, rtol=1e-6)


def test_every_example_comes_in_the_same_order_from_any_start() -> None:
    run = run_of()

    def examples(phases: Phases, start_step: int, steps: int) -> np.ndarray:
        drawn = phases.batches(run.dataset, seed=3, start_step=start_step)
        return np.concatenate([batch.index for batch in itertools.islice(drawn, steps)])

    plain = run_of(resizing=ResizingConfig()).phases
    expected = examples(plain, 0, 16)[:62]
    for start in range(11):
        found = examples(run.phases, start, 11 - start)
        np.testing.assert_array_equal(found, expected[run.phases.examples(start) :])


def test_images_in_memory_are_resized_on_the_devices_after_their_augmentation() -> None:
    images, labels = np.full((2, 16, 16, 3), 200, np.uint8), np.zeros(2, np.int32)
    dataset = run_of().dataset
    assert dataset.train_image_shape == (16, 16, 3)
    resized, _ = dataset.resized(8).augment(jax.random.key(0), images, labels)
    plain, _ = dataset.augment(jax.random.key(0), images, labels)
    assert resized.shape == (2, 8, 8, 3)
    np.testing.assert_allclose(resized, plain[:, :8, :8], rtol=1e-6)
    # Antialiasing averages what plain interpolation would skip.
    images[:, ::4] = 0
    stripes, _ = dataset.resized(4).augment(jax.random.key(0), images, labels)
    assert np.ptp(stripes[:, 1:-1]) < 0.05 * np.ptp(dataset.augment(None, images, labels)[0])
    digits = open_dataset(DigitsConfig())
    assert digits.train_image_shape == (16, 16, 1)
    assert digits.resized(8).train_image_shape == (8, 8, 1)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 training images of three classes, and 6 validation images."""
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 2)):
        for label in "abc":
            folder = root / split / label
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (40, 48, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def photo_config(photos: Path) -> TrainConfig:
    """Nine steps, three with each size, and evaluation at a fourth size."""
    images = ImageConfig(
        image_size=24, eval_image_size=32, threads=1, train_interpolation="pil_bilinear"
    )
    return dataclasses.replace(
        CONFIG,
        data=FolderConfig(str(photos), images=images),
        resizing=ResizingConfig(initial_size=16, end_epoch=2, multiple_of=4),
        checkpoint=CheckpointConfig(every_steps=2),
        batch_size=8,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class RecordingRun(Run):
    """A run that records its compilations and the images of its steps, and may be interrupted.

    Attributes:
        compiled: Shapes of the training images for which a step was compiled.
        seen: Shape of the images of each step.
        interrupted_in: Number of the step in which something happens.
        error: The error of that step. None sends SIGTERM instead.
    """

    compiled: list[Any] = dataclasses.field(default_factory=list)
    seen: list[Any] = dataclasses.field(default_factory=list)
    interrupted_in: int = 0
    error: Exception | None = None

    def compile_train_step(self) -> Any:
        """Return the step, which records."""
        self.compiled.append(self.dataset.train.image_shape)
        train_step = super().compile_train_step()

        def step(state: TrainState, batch: Any, key: jax.Array) -> Any:
            self.seen.append(batch.image.shape)
            if int(state.step) + 1 == self.interrupted_in:
                if self.error:
                    raise self.error
                signal.raise_signal(signal.SIGTERM)
            return train_step(state, batch, key)

        return step


def recording(config: TrainConfig, **options: Any) -> RecordingRun:
    run = run_of(config)
    fields = {field.name: getattr(run, field.name) for field in dataclasses.fields(Run)}
    return RecordingRun(**fields, **options)


def variables_after(run: Run, path: Path) -> Any:
    with Workdir(path, run.config) as workdir:
        result = train(run, workdir, Console(quiet=True), goodput=Goodput())
    assert result.step == run.total_steps
    return jax.device_get(result.variables)


@pytest.fixture(scope="module")
def uninterrupted(
    photo_config: TrainConfig, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RecordingRun, Path, Any]:
    path = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(_VARIANTS, "tiny_resnet", NETWORKS["tiny_resnet"])
        run = recording(photo_config)
        return run, path, variables_after(run, path)


def test_a_step_is_compiled_once_for_each_size(
    uninterrupted: tuple[RecordingRun, Path, Any],
) -> None:
    run, path, _ = uninterrupted
    assert run.compiled == [(size, size, 3) for size in (16, 20, 24)]
    assert run.seen == [(8, size, size, 3) for size in (16, 20, 24) for _ in range(3)]
    with Workdir(path, run.config) as workdir:
        described = describe(run, workdir)["resizing"]
    assert described == ("training images of 16 pixels, 20 from step 4 on, 24 from step 7 on")


def test_what_an_epoch_draws_is_described(photo_config: TrainConfig, photos: Path) -> None:
    assert "sampling" not in describe(run_of(photo_config))
    images = ImageConfig(image_size=24, repeats=3)
    sampling = SamplingConfig("square_root", epoch_multiple=8)
    data = FolderConfig(str(photos), images=images, sampling=sampling)
    assert describe(run_of(photo_config, data=data))["sampling"] == (
        "classes square_root, epoch multiple 8, each drawn image 3 times in a row"
    )


def test_images_of_files_must_have_the_channels_of_the_settings(photos: Path) -> None:
    images = ImageConfig(augment=AugmentConfig(mean=(0.5, 0.5)))
    with pytest.raises(ConfigError, match=r"have 3 channels, but augment\.mean is \(0\.5, 0\.5\)"):
        open_dataset(FolderConfig(str(photos), images=images))


def test_evaluation_has_a_size_of_its_own(uninterrupted: tuple[RecordingRun, Path, Any]) -> None:
    run, _, _ = uninterrupted
    assert run.dataset.train.image_shape == (24, 24, 3)
    assert run.dataset.evaluation.image_shape == (32, 32, 3)
    (batch,) = itertools.islice(run.dataset.evaluation.eval_batches(6), 1)
    assert batch.image.shape == (6, 32, 32, 3)
    assert run.spec.preprocessing.image_size == 32


@pytest.mark.parametrize(("step", "error"), [(3, None), (8, RuntimeError("killed"))])
def test_a_run_continues_bit_for_bit_across_sizes(
    step: int,
    error: Exception | None,
    photo_config: TrainConfig,
    uninterrupted: tuple[RecordingRun, Path, Any],
    tmp_path: Path,
) -> None:
    """Step 3 is the last of the first size, and step 8 is in the third one."""
    run = recording(photo_config, interrupted_in=step, error=error)
    with pytest.raises((PreemptedError, RuntimeError)):
        variables_after(run, tmp_path / "run")
    rest = recording(photo_config)
    found = variables_after(rest, tmp_path / "run")
    # A killed run continues from the checkpoint of step 6.
    first = 6 if error else step
    assert rest.seen == uninterrupted[0].seen[first:]
    assert rest.compiled == uninterrupted[0].compiled[first // 3 :]
    jax.tree.map(np.testing.assert_array_equal, found, uninterrupted[2])


def test_the_last_size_has_the_program_of_a_run_without_resizing(
    photo_config: TrainConfig, uninterrupted: tuple[RecordingRun, Path, Any]
) -> None:
    run = uninterrupted[0]
    plain = run_of(photo_config, resizing=ResizingConfig())
    last = run.of_phase(run.phases.phases[-1])
    assert last.lower_train_step().as_text() == plain.lower_train_step().as_text()


def test_the_head_may_be_trained_first_while_the_size_changes(tmp_path: Path) -> None:
    run = run_of(
        finetune=FinetuneConfig(head_epochs=1.5), checkpoint=CheckpointConfig(every_steps=4)
    )
    # Three steps of 8 images, two of 6, of which the head alone is trained in the first.
    assert run.head_steps == 4
    before = jax.device_get(run.create_state().params)
    after = variables_after(run, tmp_path / "run")["params"]
    assert not np.array_equal(before["stem"]["conv"]["kernel"], after["stem"]["conv"]["kernel"])
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert len([line for line in lines if '"train"' in line]) == run.total_steps


def test_half_the_images_take_half_the_operations() -> None:
    run = run_of()
    eight, four = (run.of_phase(Phase(8, size)).lower_train_step() for size in (8, 4))
    assert four.cost_analysis()["flops"] < 0.52 * eight.cost_analysis()["flops"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resizing": ResizingConfig(initial_size=16, end_epoch=1)}, "16 must be below"),
        (
            {"resizing": dataclasses.replace(CONFIG.resizing, batch_sizes=((10, 4),))},
            "lists images of 10 pixels, but training images have 8, 12, 16 pixels",
        ),
        (
            {"model": ModelConfig("tiny_resnet", bn_group_size=4)},
            "batch_sizes: batch_size 6 has no",
        ),
    ],
)
def test_impossible_sizes_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run_of(**changes)


def test_the_devices_must_share_every_batch() -> None:
    resizing = dataclasses.replace(CONFIG.resizing, batch_sizes=((12, 5),))
    with pytest.raises(ConfigError, match=r"resizing\.batch_sizes: batch_size 5 cannot be shared"):
        Run.create(dataclasses.replace(CONFIG, resizing=resizing), jax.devices()[:2])

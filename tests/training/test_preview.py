"""The preview shows what the first steps get."""

import dataclasses
import html
import re
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.config import (
    AugmentConfig,
    CosineConfig,
    ModelConfig,
    ResizingConfig,
    SyntheticConfig,
    TrainConfig,
)
from resnet_jax.data.augment import augment_batch
from resnet_jax.report.preview import (
    BatchPreview,
    Preview,
    target_of,
    write_preview_page,
)
from resnet_jax.training.metrics import Metrics
from resnet_jax.training.preview import create_preview, write_preview
from resnet_jax.training.setup import Run
from resnet_jax.training.state import TrainState
from resnet_jax.training.step import Examples, Gradients

# Something is drawn at random for each image, and for the batch.
AUGMENT = AugmentConfig(
    mean=(0.4, 0.5, 0.6),
    std=(0.2, 0.25, 0.3),
    crop_padding=2,
    flip=0.5,
    cutmix_alpha=1.0,
)
CONFIG = TrainConfig(
    model=ModelConfig("tiny_resnet"),
    data=SyntheticConfig(image_size=16, num_classes=10, train_examples=24, test_examples=8),
    schedule=CosineConfig(warmup_epochs=0.4),
    batch_size=8,
    epochs=1,
    seed=3,
)


def zero_gradients(state: TrainState, examples: Examples, key: jax.Array) -> Gradients:
    """Return gradients that are computed from nothing but the images, and compile quickly."""
    del key
    total = jnp.sum(examples.images)
    zeros = jax.tree.map(jnp.zeros_like, state.params)
    return Gradients(zeros, Metrics(total, total, total, total), state.batch_stats)


def augmented_run(seen: list[tuple[np.ndarray, ...]]) -> Run:
    """Return a run that mixes the images of its first step, and keeps what its steps get."""
    run = Run.create(CONFIG, jax.devices()[:1])
    augment = partial(augment_batch, config=AUGMENT, num_classes=10, label_smoothing=0.1)

    def recorded(key: jax.Array, images: jax.Array, labels: jax.Array, *, mixing: jax.Array) -> Any:
        inputs, targets = augment(key, images, labels, mixing=mixing)
        jax.debug.callback(lambda *arrays: seen.append(arrays), inputs, targets, labels)
        return inputs, targets

    preprocessing = dataclasses.replace(
        run.dataset.preprocessing, mean=AUGMENT.mean, std=AUGMENT.std
    )
    dataset = dataclasses.replace(
        run.dataset, augment=recorded, preprocessing=preprocessing, mix_until_epoch=1 / 3
    )
    return dataclasses.replace(run, dataset=dataset)


@pytest.mark.usefixtures("tiny_networks")
def test_the_pixels_are_those_that_the_first_steps_get(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "resnet_jax.training.setup.create_gradient_function", lambda *_, **__: zero_gradients
    )
    seen: list[tuple[np.ndarray, ...]] = []
    run = augmented_run(seen)
    train_step = partial(run.lower_train_step().compile(), run._train_arrays)
    state, key = run.create_state(), run.step_key
    drawn = run.dataset.train.train_batches(8, seed=run.config.seed, start_step=0)
    for _ in range(2):
        state, metrics = train_step(state, next(drawn), key)
        jax.block_until_ready(metrics)
    jax.effects_barrier()
    steps = [tuple(np.array(array) for array in arrays) for arrays in seen]
    assert len(steps) == 2
    preview = create_preview(run, images=5)
    assert [batch.step for batch in preview.batches] == [1, 2]
    for batch, (inputs, targets, labels) in zip(preview.batches, steps, strict=True):
        levels = np.rint(255 * (inputs * np.array(AUGMENT.std) + np.array(AUGMENT.mean)))
        np.testing.assert_array_equal(batch.images, levels.clip(0, 255)[:5])
        np.testing.assert_allclose(batch.targets, targets[:5], rtol=1e-6)
        np.testing.assert_array_equal(batch.labels, labels)
        np.testing.assert_allclose(batch.mean, inputs.mean((0, 1, 2)), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(batch.std, inputs.std((0, 1, 2)), rtol=1e-4)
    classes = [int(np.sum(batch.targets[0] > 0.011)) for batch in preview.batches]
    assert classes == [2, 1], "only the first batch is mixed"
    assert not np.array_equal(preview.batches[0].images, preview.batches[1].images)


@pytest.mark.usefixtures("tiny_networks")
def test_the_first_batches_have_the_sizes_of_the_first_phase() -> None:
    resizing = ResizingConfig(initial_size=8, end_epoch=1, multiple_of=8, batch_sizes=((8, 16),))
    run = Run.create(dataclasses.replace(CONFIG, epochs=2, resizing=resizing))
    preview = create_preview(run, images=16)
    assert preview.batch_size == 16
    assert [batch.images.shape for batch in preview.batches] == 2 * [(16, 8, 8, 3)]
    assert preview.facts["batch"] == "16 images, 2 a device"


def text_of(page: str) -> str:
    page = re.sub(r"<(script|style)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


def preview(num_classes: int = 3, **changes: Any) -> Preview:
    """Return a preview of one batch of four images, of which two are shown."""
    targets = np.zeros((2, num_classes), np.float32)
    targets[0, 2] = 1
    targets[1, :2] = 0.375, 0.625
    batch = BatchPreview(
        step=1,
        images=np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8),
        targets=targets,
        labels=np.array([2, 1, 1, 1]),
        mean=np.array([0.1, -0.25, 0.0], np.float32),
        std=np.array([1.0, 0.5, 1.5], np.float32),
    )
    names = ["ant", "<bee>", "cat", *(f"class {i}" for i in range(3, num_classes))]
    made = Preview("resnet18 on photos", {"seed": "0"}, names, 4, [batch])
    return dataclasses.replace(made, **changes)


def test_the_page_shows_images_targets_and_counts(tmp_path: Path) -> None:
    path = tmp_path / "preview.html"
    write_preview_page(path, preview())
    page = path.read_text()
    text = text_of(page)
    assert page.count('src="data:image/png;base64,') == 2
    assert "The first 2 of 4 images" in text
    cards = re.findall(r'<li class="card">.*?</ul>', page, re.DOTALL)
    assert [text_of(card) for card in cards] == ["cat", "62.5% <bee> 37.5% ant"]
    assert "input mean 0.1, -0.25, 0; standard deviation 1, 0.5, 1.5" in text
    assert text.endswith("2 of 3 classes appear. Class Step 1 ant 0 <bee> 3 cat 1")
    for reference in ('src="http', 'href="http', "<link", "url(", "@import", "fetch("):
        assert reference not in page
    assert [file.name for file in tmp_path.iterdir()] == ["preview.html"]
    # Of many classes only those that appear are listed.
    write_preview_page(path, preview(1000))
    assert text_of(path.read_text()).endswith(
        "2 of 1000 classes appear. Class Step 1 <bee> 3 cat 1"
    )


def test_targets_name_the_classes_that_were_mixed() -> None:
    names = list("abcdef")
    assert target_of(np.eye(6)[3], names) == ([("d", 1.0)], 0.0)
    smoothed = 0.9 * np.eye(6)[3] + 0.1 / 6
    ((name, share),), others = target_of(smoothed, names)
    assert name == "d"
    assert share == pytest.approx(0.9 + 0.1 / 6)
    assert others == pytest.approx(0.1 * 5 / 6, abs=1e-6)
    mixed = 0.3 * np.eye(6)[3] + 0.7 * np.eye(6)[0]
    assert target_of(mixed, names) == ([("a", 0.7), ("d", 0.3)], 0.0)
    assert target_of(np.array([0.3, 0.7]), names) == ([("b", 0.7), ("a", 0.3)], 0.0)
    assert target_of(np.full(6, 1 / 6), names) == ([], 1.0)


def test_labels_without_mixing_are_whole_targets(
    tmp_path: Path,
    tiny_networks: None,  # noqa: ARG001
) -> None:
    path = tmp_path / "preview.html"
    write_preview(CONFIG, path, images=100, command=["resnet-jax", "train", "--preview"])
    page = path.read_text()
    assert "The first 8 of 8 images" in text_of(page)
    shown = re.findall(r'<ul class="targets">\s*<li>(\d)</li>\s*</ul>', page)
    counts = re.findall(r'<th scope="row">(\d)</th>((?:<td[^>]*>\d+</td>\s*)+)</tr>', page)
    assert len(shown) == 16
    for name, cells in counts:
        assert shown.count(name) == sum(map(int, re.findall(r">(\d+)<", cells)))
    assert "resnet-jax train --preview" in page

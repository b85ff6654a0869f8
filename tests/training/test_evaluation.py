"""Evaluation is exact: every example counts once."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.config import TrainConfig
from resnet_jax.data import ArraySplit, Batch
from resnet_jax.training.evaluate import evaluate, make_eval_step
from resnet_jax.training.metrics import batch_metrics, mean_metrics
from resnet_jax.training.setup import Run
from resnet_jax.training.sharding import make_mesh
from resnet_jax.training.state import TrainState


@pytest.fixture(scope="module")
def run(small_config: TrainConfig) -> Run:
    return Run.create(small_config)


@pytest.fixture(scope="module")
def state(run: Run) -> TrainState:
    """Variables of an untrained network as NumPy arrays."""
    return jax.tree.map(np.asarray, run.create_state())


@pytest.fixture(scope="module")
def split(run: Run) -> ArraySplit:
    """A split with a prime number of examples, so that no batch size divides it."""
    return ArraySplit(run.dataset.evaluation.images[:59], run.dataset.evaluation.labels[:59])


@pytest.fixture(scope="module")
def reference(
    run: Run, state: TrainState, split: ArraySplit
) -> tuple[dict[str, float], np.ndarray]:
    """Logits of all examples in one batch, and their metrics computed by NumPy."""
    images = run.dataset.prepare(jnp.asarray(split.images))
    logits = np.asarray(run.model.apply(state.variables, images, train=False), np.float64)
    own = np.arange(len(split)), split.labels
    log_normalizer = np.log(np.exp(logits).sum(1))
    rank = (logits > logits[own][:, None]).sum(1)
    return {
        "loss": float(np.mean(log_normalizer - logits[own])),
        "top1": float(np.mean(rank == 0)),
        "top5": float(np.mean(rank < 5)),
    }, logits


@pytest.mark.parametrize(("batch_size", "num_devices"), [(8, 8), (59, 1), (24, 2)])
def test_any_batch_size_on_any_devices_gives_the_same(
    run: Run,
    state: TrainState,
    split: ArraySplit,
    reference: tuple[dict[str, float], np.ndarray],
    batch_size: int,
    num_devices: int,
) -> None:
    mesh = make_mesh(jax.devices()[:num_devices])
    eval_batch = make_eval_step(run.model, run.dataset.prepare)

    @jax.jit
    def eval_step(variables: dict[str, Any], drawn: Any) -> Any:
        return eval_batch(variables, split.fetch(split.resident, drawn))

    metrics, logits, labels, mask = evaluate(
        eval_step, state.variables, split, batch_size=batch_size, mesh=mesh
    )
    np.testing.assert_array_equal(labels, split.labels)
    assert mask.all()
    expected_metrics, expected_logits = reference
    assert metrics["loss"] == pytest.approx(expected_metrics["loss"], rel=1e-5)
    assert metrics["top1"] == expected_metrics["top1"]
    assert metrics["top5"] == expected_metrics["top5"]
    assert 0 < metrics["top1"] < metrics["top5"] < 1, "the check must be able to fail"
    np.testing.assert_allclose(logits, expected_logits, atol=1e-5)


def test_logits_of_an_image_and_its_mirror_image_are_averaged(
    run: Run, state: TrainState, split: ArraySplit
) -> None:
    batch = Batch(jnp.asarray(split.images[:4]), jnp.asarray(split.labels[:4]), jnp.ones(4, bool))
    mirrored = batch._replace(image=batch.image[:, :, ::-1])
    single = jax.jit(make_eval_step(run.model, run.dataset.prepare))
    both = jax.jit(make_eval_step(run.model, run.dataset.prepare, tta="flip"))
    views = [single(state.variables, images).logits for images in (batch, mirrored)]
    assert not np.allclose(*views, atol=1e-3)
    for images in (batch, mirrored):
        found = both(state.variables, images)
        np.testing.assert_allclose(found.logits, sum(views) / 2, atol=1e-5)
        np.testing.assert_array_equal(found.labels, batch.label)


def test_padding_counts_nowhere() -> None:
    logits = jnp.asarray([[9.0, 0.0], [0.0, 9.0], [9.0, 0.0]])
    labels = jnp.asarray([0, 0, 0])
    metrics = batch_metrics(
        logits, labels, jnp.asarray([1.0, 2.0, jnp.nan]), jnp.asarray([True, True, False])
    )
    assert mean_metrics([metrics, metrics]) == {"loss": 1.5, "top1": 0.5, "top5": 1.0}


def test_means_weigh_every_example_equally() -> None:
    def metrics(losses: list[float]) -> object:
        size = len(losses)
        return batch_metrics(
            jnp.zeros((size, 10)), jnp.zeros(size, int), jnp.asarray(losses), jnp.ones(size, bool)
        )

    assert mean_metrics([metrics([1.0, 1.0, 1.0]), metrics([5.0])])["loss"] == 2.0

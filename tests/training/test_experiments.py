"""Every ingredient of the experiments trains: two steps at reduced size, and one evaluation."""

from io import StringIO
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console

from resnet_jax.config import list_experiments, load_experiment
from resnet_jax.models.variants import _VARIANTS
from resnet_jax.training import setup
from resnet_jax.training.loop import train
from resnet_jax.training.process.goodput import Goodput
from resnet_jax.training.rundir.workdir import Workdir
from resnet_jax.training.setup import Run
from tests.training.reduced import reduced, reduced_dataset, reduced_network

# Together they have most ingredients. `tests/nightly/experiments.py` trains all experiments.
LOWERED = (
    "folder-resnet50-layer-decay",
    "imagenet-resnet50-big-vision",
    "imagenet-resnet50-mosaic-medium",
    "imagenet-resnet50-rsb-a2",
    "imagenet-resnet50-tv-v2",
)


def reduced_run(name: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return the run of an experiment at reduced size, on one device."""
    config = load_experiment(name).config
    network = config.model.name
    monkeypatch.setitem(_VARIANTS, network, reduced_network(network))
    monkeypatch.setattr(setup, "open_dataset", reduced_dataset)
    return Run.create(reduced(config), jax.devices()[:1])


def assert_an_experiment_trains(run: Run, directory: Path) -> None:
    """Take all steps of a run and evaluate it, and check that it has learned and is finite."""
    with Workdir(directory, run.config) as workdir:
        result = train(run, workdir, Console(file=StringIO()), goodput=Goodput())
    assert result.step == 2
    assert np.isfinite(result.metrics["loss"])
    before, after = (
        jax.device_get(state) for state in (run.create_state().params, result.variables["params"])
    )
    changed = jax.tree.map(lambda a, b: not np.array_equal(a, b), before, after)
    assert any(jax.tree.leaves(changed))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after))


@pytest.mark.parametrize("name", list_experiments())
def test_every_experiment_can_be_built(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its network, its schedule, its optimizer and its augmentation fit together."""
    run = reduced_run(name, monkeypatch)
    assert run.total_steps == 2
    assert run.num_params > 0


@pytest.mark.parametrize("name", LOWERED)
def test_the_training_step_of_an_experiment_can_be_traced(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reduced_run(name, monkeypatch).lower_train_step()


def test_an_experiment_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This one has two sizes of training images, and a third one for evaluation."""
    run = reduced_run("imagenet-resnet18-ffcv-16ep", monkeypatch)
    assert_an_experiment_trains(run, tmp_path)

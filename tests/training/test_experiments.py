"""Every ingredient of the experiments trains: two steps at reduced size, and one evaluation."""

from io import StringIO
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console

from resnet_jax.config import load_experiment
from resnet_jax.models.variants import _VARIANTS
from resnet_jax.training import setup
from resnet_jax.training.loop import train
from resnet_jax.training.process.goodput import Goodput
from resnet_jax.training.rundir.workdir import Workdir
from tests.training.reduced import reduced, reduced_dataset, reduced_network


def assert_an_experiment_trains(
    name: str, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Train an experiment at reduced size, and check that the result is finite."""
    config = load_experiment(name).config
    network = config.model.name
    monkeypatch.setitem(_VARIANTS, network, reduced_network(network))
    monkeypatch.setattr(setup, "open_dataset", reduced_dataset)
    run = setup.Run.create(reduced(config), jax.devices()[:1])
    with Workdir(directory, run.config) as workdir:
        result = train(run, workdir, Console(file=StringIO()), goodput=Goodput())
    assert result.step == 2
    assert np.isfinite(result.metrics["loss"])

"""Every experiment trains two steps at reduced size and is evaluated.

Run it with ``pytest -q --dist load tests/nightly/experiments.py``. `.ci/run` does so. The suite
itself traces the steps of some of them, and trains one.
"""

from pathlib import Path

import pytest

from resnet_jax.config import list_experiments
from tests.training.test_experiments import assert_an_experiment_trains, reduced_run


@pytest.mark.parametrize("name", list_experiments())
def test_an_experiment_trains(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_an_experiment_trains(reduced_run(name, monkeypatch), tmp_path)

"""A small classifier and its export, which no test changes."""

from pathlib import Path

import pytest

from resnet_jax import Classifier
from resnet_jax.export.program import build_program, describe
from resnet_jax.export.stablehlo import write_stablehlo
from tests.export.networks import tiny


@pytest.fixture(scope="session")
def tiny_classifier() -> Classifier:
    return tiny(temperature=1.5)


@pytest.fixture(scope="session")
def stablehlo_file(tiny_classifier: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export for any number of images on cpu, cuda and tpu."""
    path = tmp_path_factory.mktemp("export") / "tiny.stablehlo"
    program = build_program(tiny_classifier, by_platform=True)
    write_stablehlo(program, path, metadata=describe(tiny_classifier))
    return path

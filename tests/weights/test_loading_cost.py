"""Loading weights takes little more work and memory than reading the file."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from resnet_jax import create_model, load_weights
from tests.golden import golden


def write(path: Path, dtype: type[np.generic]) -> None:
    tensors = golden.specs()["resnet50"]["tensors"]
    save_file({name: np.zeros(shape, dtype) for name, shape in tensors}, path)


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "single.safetensors"
    write(path, np.float32)
    return path


def test_loading_copies_no_array(single: Path) -> None:
    # Time is measured by `benchmarks/load_weights.py`, because it would mean nothing while other
    # tests run. These tests check what makes loading fast.
    leaves = jax.tree.leaves(load_weights(create_model("resnet50"), single))
    assert len(leaves) == 267
    assert not any(leaf.flags.owndata for leaf in leaves)


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from Linux's /proc")
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_loading_needs_little_more_memory_than_its_result(
    dtype: type[np.generic], single: Path, tmp_path: Path
) -> None:
    path = single
    if dtype is np.float16:
        write(path := tmp_path / "half.safetensors", dtype)
    command = [sys.executable, "-m", "benchmarks.load_weights", "--contender", "load_weights"]
    measured = json.loads(subprocess.check_output([*command, "--path", str(path)], text=True))
    # Float16 becomes float32, which takes twice the size of the file.
    assert measured["memory"] <= (1.2 if dtype is np.float32 else 2.2)

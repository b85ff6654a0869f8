"""Loading costs little more than reading the file, in time and in memory."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

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


def test_loading_takes_at_most_half_again_as_long_as_reading(single: Path) -> None:
    model = create_model("resnet50")
    load_weights(model, single)
    ours, theirs = [], []
    # Of the processor, and the quickest of several: other work on the machine counts as little as
    # it can.
    for _ in range(7):
        started = time.process_time()
        load_file(single)
        between = time.process_time()
        load_weights(model, single)
        theirs.append(between - started)
        ours.append(time.process_time() - between)
    assert min(ours) <= 1.5 * min(theirs)


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
    # Float16 comes as float32, which is twice the file.
    assert measured["memory"] <= (1.2 if dtype is np.float32 else 2.2)

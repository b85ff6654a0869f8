"""Importing the library costs an importer nothing that only trainers need."""

import subprocess
import sys


def test_importing_the_library_loads_no_training_dependency() -> None:
    code = (
        "import sys, resnet_jax; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    loaded = set(process.stdout.split())
    assert "flax" in loaded
    heavy = {
        "grain",
        "matplotlib",
        "optax",
        "orbax",
        "sklearn",
        "tensorboardX",
        "tensorflow",
        "tensorflow_datasets",
        "torch",
        "tyro",
    }
    assert not loaded & heavy

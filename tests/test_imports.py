"""An import loads nothing that it does not need."""

import subprocess
import sys

import pytest

TRAINING = {
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


def loaded(code: str) -> set[str]:
    code += "\nimport sys; print(*{name.partition('.')[0] for name in sys.modules})"
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return set(process.stdout.split())


def test_importing_the_library_loads_no_training_dependency() -> None:
    modules = loaded("from resnet_jax import Classifier, create_model, load_weights")
    assert "flax" in modules
    assert not modules & TRAINING


@pytest.mark.parametrize(
    "code",
    [
        "import resnet_jax",
        "import resnet_jax.config",
        "import resnet_jax.commands.main",
        "from resnet_jax.weights import list_pretrained; list_pretrained()",
    ],
)
def test_what_a_command_line_needs_loads_no_jax(code: str) -> None:
    modules = loaded(code)
    assert "resnet_jax" in modules
    assert not modules & (TRAINING - {"tyro"} | {"flax", "jax", "numpy"})


def test_every_public_name_is_found() -> None:
    import resnet_jax
    import resnet_jax.weights

    for module in (resnet_jax, resnet_jax.weights):
        for name in module.__all__:
            assert getattr(module, name) is not None
            assert name in dir(module)
    with pytest.raises(AttributeError, match="has no attribute 'create_modle'"):
        _ = resnet_jax.create_modle  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="has no attribute 'load_wieghts'"):
        _ = resnet_jax.weights.load_wieghts  # type: ignore[attr-defined]

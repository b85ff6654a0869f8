"""The batch that fits into memory, by XLA's analysis of the training step."""

from pathlib import Path
from typing import Any

import jax
import pytest

from resnet_jax.config import ModelConfig, SyntheticConfig, TrainConfig
from resnet_jax.training import memory
from resnet_jax.training.memory import SHARE, available_memory, largest_batch_that_fits, step_memory
from resnet_jax.training.setup import Run

pytestmark = pytest.mark.usefixtures("tiny_networks")

CONFIG = TrainConfig(
    model=ModelConfig("tiny_resnet"),
    data=SyntheticConfig(image_size=32, num_classes=10, train_examples=64, test_examples=8),
)


def analyzed(monkeypatch: pytest.MonkeyPatch, available: int, **needs: int) -> list[int]:
    """Replace the analysis and the free memory; return the list of the sizes that are analyzed."""
    asked = []

    def need(_: Run, size: int) -> tuple[int, int]:
        asked.append(size)
        return needs[f"b{size}"], 100

    monkeypatch.setattr(memory, "step_memory", need)
    monkeypatch.setattr(memory, "available_memory", lambda _: available)
    return asked


@pytest.fixture
def run(tiny_networks: None) -> Run:
    del tiny_networks
    return Run.create(CONFIG, jax.devices()[:1])


def test_one_analysis_is_enough_if_the_largest_batch_fits(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = analyzed(monkeypatch, 1000, b64=740)
    fit = largest_batch_that_fits(run, [8, 16, 32, 64])
    assert (fit.batch_size, fit.needed, fit.available, fit.fits) == (64, 740, 1000, True)
    assert asked == [64]


def test_the_estimate_of_a_smaller_batch_is_verified(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 100 for the state and 10 for each image: 8 images fit into 200, of which 80 % may be used.
    asked = analyzed(monkeypatch, 250, b64=740, b8=180)
    fit = largest_batch_that_fits(run, [4, 8, 16, 32, 64])
    assert (fit.batch_size, fit.fits, asked) == (8, True, [64, 8])
    # The analysis of the smaller batch contradicts the estimate.
    asked = analyzed(monkeypatch, 250, b64=740, b8=260, b4=190)
    fit = largest_batch_that_fits(run, [4, 8, 16, 32, 64])
    assert (fit.batch_size, asked) == (4, [64, 8, 4])
    assert fit.analyses == {64: 740, 8: 260, 4: 190}


def test_the_smallest_batch_is_returned_even_if_it_does_not_fit(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = analyzed(monkeypatch, 50, b16=260, b4=140)
    fit = largest_batch_that_fits(run, [4, 8, 16])
    assert (fit.batch_size, fit.fits, asked) == (4, False, [16, 4])
    assert fit.needed > SHARE * fit.available


def test_the_analysis_grows_with_the_batch_and_contains_the_state(run: Run) -> None:
    four, state = step_memory(run, 4)
    sixteen, same = step_memory(run, 16)
    leaves = jax.tree.leaves(run.abstract_state)
    assert state == same == sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
    # The input of each of three convolutions is kept for the backward pass.
    activations = 32 * 32 * (3 + 8 + 8) * 4
    assert sixteen - four > 12 * activations
    assert four > state + 4 * activations


def test_devices_of_the_cpu_share_its_memory() -> None:
    one, eight = (Run.create(CONFIG, jax.devices()[:count]) for count in (1, 8))
    alone, state = step_memory(one, 16)
    together, states = step_memory(eight, 16)
    assert states == 8 * state
    assert together > alone


def test_the_limit_of_a_container_counts(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 150\nactive_file 50\n")
    assert memory._left_to_the_container(tmp_path) == [450]
    (tmp_path / "memory.max").write_text("max\n")
    assert memory._left_to_the_container(tmp_path) == []
    assert memory._left_to_the_container(tmp_path / "absent") == []


def test_the_free_memory_is_that_of_the_platform() -> None:
    assert 1e8 < available_memory(jax.devices()) < 1e14

    class Accelerator:
        platform = "gpu"

        def __init__(self, **stats: int) -> None:
            self.stats = stats

        def memory_stats(self) -> dict[str, int]:
            return self.stats

    devices: Any = [
        Accelerator(bytes_limit=80, bytes_in_use=10),
        Accelerator(bytes_limit=80, bytes_in_use=30),
    ]
    assert available_memory(devices) == 50

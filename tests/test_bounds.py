"""The bounds that the benchmarks compare an accelerator with."""

import pytest

from benchmarks import bounds
from resnet_jax import create_model


def test_the_operations_and_bytes_of_a_training_step() -> None:
    model = create_model("resnet50")
    # Three times 4.09 G multiplications, without the gradient of the images.
    assert bounds.training_flops(model, 224) == pytest.approx(24.30e9, rel=1e-3)
    # 11.1 M elements come out of convolutions, and 5.5 M out of blocks.
    for passes, megabytes in ((bounds.UNFUSED, 355.3), (bounds.FUSED, 222.1)):
        assert bounds.training_bytes(model, 224, 2, passes) == pytest.approx(
            megabytes * 1e6, rel=1e-3
        )
    assert bounds.peaks("NVIDIA H100 80GB HBM3") == (989e12, 3.35e12)
    assert bounds.peaks("cpu") is None

"""Training equals the reference, for the networks that the suite does not test.

Run it with ``pytest -q -n 0 tests/nightly/golden_training.py``.
"""

from typing import Any

import numpy as np
import pytest

from resnet_jax import ResNet
from tests.models import test_golden
from tests.models.test_golden import REPRESENTATIVES, TRAINED
from tests.models.test_golden import arch as arch
from tests.models.test_golden import images as images
from tests.models.test_golden import network as network

OTHERS = [name for name in TRAINED if name not in REPRESENTATIVES]


@pytest.mark.parametrize("arch", OTHERS, indirect=True)
def test_training_equals_the_reference(
    arch: str, network: tuple[ResNet, dict[str, Any]], images: np.ndarray
) -> None:
    test_golden.test_training_equals_the_reference(arch, network, images)

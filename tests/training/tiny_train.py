"""train.py with one network more, of eight layers: small enough to be compiled many times.

python tests/training/tiny_train.py synthetic-resnet50 --model.name=cifar_resnet8 ...
"""

import runpy
from pathlib import Path

from resnet_jax.models.variants import _VARIANTS, _cifar

NETWORK = {"cifar_resnet8": _cifar(8)}

if __name__ == "__main__":
    # Only where it is the program: pytest imports it in search of doctests.
    _VARIANTS.update(NETWORK)
    runpy.run_path(str(Path(__file__).parents[2] / "train.py"), run_name="__main__")

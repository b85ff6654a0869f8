"""train.py with an additional network of eight layers, which compiles quickly.

python tests/training/tiny_train.py synthetic-resnet50 --model.name=cifar_resnet8 ...
"""

import runpy
from pathlib import Path

from resnet_jax.models.variants import _VARIANTS, _cifar

NETWORK = {"cifar_resnet8": _cifar(8)}

if __name__ == "__main__":
    # Only if it is run as a program: pytest also imports it to search for doctests.
    _VARIANTS.update(NETWORK)
    runpy.run_path(str(Path(__file__).parents[2] / "train.py"), run_name="__main__")

"""train.py with an additional network of eight layers, which compiles quickly.

python tests/training/tiny_train.py synthetic-resnet50 --model.name=cifar_resnet8 ...
"""

import sys

from resnet_jax.commands.main import main
from resnet_jax.models.variants import _VARIANTS, _cifar

NETWORK = {"cifar_resnet8": _cifar(8)}

if __name__ == "__main__":
    # Only if it is run as a program: pytest also imports it to search for doctests.
    _VARIANTS.update(NETWORK)
    main(["train", *sys.argv[1:]])

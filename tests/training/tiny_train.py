"""train.py with one network more, of eight layers: small enough to be compiled many times.

python tests/training/tiny_train.py synthetic-resnet50 --model.name=cifar_resnet8 ...
"""

import sys

from resnet_jax.commands.main import main
from resnet_jax.models.variants import _VARIANTS, _cifar

NETWORK = {"cifar_resnet8": _cifar(8)}

if __name__ == "__main__":
    # Only where it is the program: pytest imports it in search of doctests.
    _VARIANTS.update(NETWORK)
    main(["train", *sys.argv[1:]])

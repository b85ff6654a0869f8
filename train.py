"""Train a residual network: `python train.py [EXPERIMENT] [OPTIONS]`.

This is the command `resnet-jax train`, run from a clone.
"""

import sys

from resnet_jax.commands.main import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])

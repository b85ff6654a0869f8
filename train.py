"""Train a residual network: `python train.py [EXPERIMENT] [OPTIONS]`.

It is the command `resnet-jax train`, run from a clone.
"""

from resnet_jax.commands.train import main

if __name__ == "__main__":
    main()

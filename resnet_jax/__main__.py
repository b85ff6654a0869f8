"""`python -m resnet_jax` is the command `resnet-jax`."""

from resnet_jax.commands.main import main

main()

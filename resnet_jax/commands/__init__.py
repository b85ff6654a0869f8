"""The command `resnet-jax`, one file per subcommand."""

"""The commands `resnet-jax data`, one file per subcommand."""

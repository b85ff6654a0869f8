"""The run directory: its lock, checkpoints, metrics and what a person sees."""

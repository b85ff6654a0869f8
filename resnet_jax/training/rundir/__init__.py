"""The run directory: its lock, its checkpoints and its metrics; and the output on the screen."""

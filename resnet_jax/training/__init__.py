"""Training: state, step, loop and what they leave on disk."""

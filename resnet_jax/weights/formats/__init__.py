"""Readers of weight files: safetensors, torch.save, npz, and training checkpoints."""

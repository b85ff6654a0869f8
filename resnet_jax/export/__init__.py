"""Trained networks in formats that other programs load, without Flax and without this library."""

"""Augmentation on the device: pure functions with explicit random keys, for use in `jax.jit`."""

from resnet_jax.data.augment.batch import augment_batch, check_channels, normalize_batch
from resnet_jax.data.augment.normalization import normalize
from resnet_jax.data.augment.operations import Operation, apply_operation
from resnet_jax.data.augment.resample import affine_resize, random_affine_resize

__all__ = [
    "Operation",
    "affine_resize",
    "apply_operation",
    "augment_batch",
    "check_channels",
    "normalize",
    "normalize_batch",
    "random_affine_resize",
]

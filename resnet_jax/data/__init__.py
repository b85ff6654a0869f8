"""Data sets, their batches, and the preparation of images on the device."""

from resnet_jax.data.array_split import ArraySplit as ArraySplit
from resnet_jax.data.batches import Batch as Batch
from resnet_jax.data.batches import Indexed as Indexed
from resnet_jax.data.batches import Selection as Selection
from resnet_jax.data.dataset import DataError as DataError
from resnet_jax.data.dataset import Dataset as Dataset
from resnet_jax.data.dataset import Split as Split
from resnet_jax.data.labeled import LabeledImages as LabeledImages
from resnet_jax.data.labeled import open_labeled as open_labeled
from resnet_jax.data.opening import open_dataset as open_dataset

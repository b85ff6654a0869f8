"""Images in: data sets, batches and what happens to them on the device."""

from resnet_jax.data.batches import Batch as Batch
from resnet_jax.data.batches import Selection as Selection
from resnet_jax.data.dataset import ArraySplit as ArraySplit
from resnet_jax.data.dataset import DataError as DataError
from resnet_jax.data.dataset import Dataset as Dataset
from resnet_jax.data.dataset import Split as Split
from resnet_jax.data.sources import open_dataset as open_dataset

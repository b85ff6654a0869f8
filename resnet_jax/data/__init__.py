"""Images in: data sets, batches and what happens to them on the device."""

from resnet_jax.data.batches import Batch as Batch
from resnet_jax.data.batches import eval_batches as eval_batches
from resnet_jax.data.batches import train_batches as train_batches
from resnet_jax.data.dataset import Dataset as Dataset
from resnet_jax.data.dataset import Split as Split
from resnet_jax.data.sources import open_dataset as open_dataset

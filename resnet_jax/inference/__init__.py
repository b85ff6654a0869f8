"""Use of trained networks."""

from resnet_jax.inference.classifier import Classifier as Classifier
from resnet_jax.inference.classifier import ImageError as ImageError
from resnet_jax.inference.classifier import Prediction as Prediction
from resnet_jax.inference.explanation import Explanation as Explanation
from resnet_jax.inference.fold import fold_batch_norm as fold_batch_norm
from resnet_jax.inference.inputs import expand as expand
from resnet_jax.inference.neighbors import Neighbors as Neighbors
from resnet_jax.inference.precise_bn import precise_batch_stats as precise_batch_stats
from resnet_jax.inference.predictions import predict_stream as predict_stream
from resnet_jax.inference.spec import ModelSpec as ModelSpec
from resnet_jax.inference.stream import stream as stream
from resnet_jax.inference.tables import open_features as open_features
from resnet_jax.inference.tables import open_table as open_table

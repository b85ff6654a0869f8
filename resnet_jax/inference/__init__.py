"""Use of trained networks."""

from resnet_jax.inference.calibration import Calibration as Calibration
from resnet_jax.inference.calibration import write_calibration as write_calibration
from resnet_jax.inference.classifier import Classifier as Classifier
from resnet_jax.inference.classifier import ImageError as ImageError
from resnet_jax.inference.classifier import Prediction as Prediction
from resnet_jax.inference.comparison import Comparison as Comparison
from resnet_jax.inference.comparison import compare as compare
from resnet_jax.inference.evaluation import Evaluation as Evaluation
from resnet_jax.inference.evaluation import evaluate as evaluate
from resnet_jax.inference.evaluation import evaluate_corruptions as evaluate_corruptions
from resnet_jax.inference.evaluation import fit_calibration as fit_calibration
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

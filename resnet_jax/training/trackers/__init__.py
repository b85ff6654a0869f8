"""Trackers: Weights & Biases, MLflow and Trackio, which record and show the metrics of runs."""

from resnet_jax.training.trackers.services import SERVICES as SERVICES
from resnet_jax.training.trackers.tracker import Tracker as Tracker

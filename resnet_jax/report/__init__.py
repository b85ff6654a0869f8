"""Reports of training runs as HTML pages."""

from resnet_jax.report.page import write_report as write_report
from resnet_jax.report.records import RunRecord as RunRecord

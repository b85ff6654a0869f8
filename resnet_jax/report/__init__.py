"""Reports of runs and evaluations as HTML pages, and comparisons of several runs."""

from typing import TYPE_CHECKING

from resnet_jax.lazy_imports import lazy_names

if TYPE_CHECKING:
    from resnet_jax.metrics_file import read_metrics as read_metrics
    from resnet_jax.report.charts import LineChart as LineChart
    from resnet_jax.report.charts import Series as Series
    from resnet_jax.report.comparison import write_comparison as write_comparison
    from resnet_jax.report.page import write_report as write_report
    from resnet_jax.report.records import EvaluationRecord as EvaluationRecord
    from resnet_jax.report.records import RunRecord as RunRecord
    from resnet_jax.report.runs import find_runs as find_runs

# The module that each name comes from. It is imported when the name is first used, so that reading
# the metrics of runs needs neither JAX nor Jinja.
_MODULES = {
    "EvaluationRecord": "records",
    "LineChart": "charts",
    "RunRecord": "records",
    "Series": "charts",
    "find_runs": "runs",
    "read_metrics": "runs",
    "write_comparison": "comparison",
    "write_report": "page",
}

__all__ = list(_MODULES)

__getattr__, __dir__ = lazy_names(__name__, _MODULES)

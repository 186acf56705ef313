"""`/metrics`: the statistics page in Prometheus text format. Metrics that vLLM has, too, mean the same here.

Every metric is described in docs/metrics.md, which is generated from what is exposed.
"""

from pipeline.front.metrics.collector import CONTENT_TYPE, StatsCollector
from pipeline.front.metrics.processes import read_process

__all__ = ["CONTENT_TYPE", "StatsCollector", "read_process"]

"""`/metrics`: the statistics page in Prometheus' text form. What vLLM has, too, has its meaning and buckets.

Every metric is described in docs/metrics.md, which is made from what is exposed (`reference.py`).
"""

from pipeline.front.metrics.collector import CONTENT_TYPE, StatsCollector
from pipeline.front.metrics.processes import read_process

__all__ = ["CONTENT_TYPE", "StatsCollector", "read_process"]

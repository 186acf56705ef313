"""How many nodes there should be: Ray Serve's autoscaler asks this in place of its count of HTTP requests, which do
not come its way."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

LOAD = "load"
"""A node's metric: how many nodes its requests are worth."""


def nodes_for(loads: Mapping[Any, float] | None, now: int) -> int:
    """At least one; as many as there are while none has said anything."""
    return max(1, math.ceil(sum(loads.values()))) if loads else now


def scale(context: Any) -> tuple[int, dict[str, Any]]:
    """As `ray.serve.config.AutoscalingPolicy` calls it; the limits and delays of `AutoscalingConfig` are applied to
    what it returns."""
    loads = (context.aggregated_metrics or {}).get(LOAD)
    return nodes_for(loads, context.target_num_replicas), {}

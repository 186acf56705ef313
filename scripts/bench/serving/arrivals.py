"""When requests start: a Poisson process, or one that is burstier or more even than that."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def arrival_times_s(
    count: int, rate: float, burstiness: float, rng: np.random.Generator, *, normalized: bool = True
) -> NDArray[np.float64]:
    """`[count]` seconds after the beginning, as ``vllm bench serve`` has them.

    Intervals are gamma distributed with mean ``1 / rate`` and shape `burstiness`: 1 is a Poisson process, less is
    burstier, infinity is a metronome. A rate of infinity starts all at once. `normalized` stretches the intervals so
    that the last request starts at exactly ``count / rate``, which makes seeds comparable; vLLM does so.
    """
    if math.isinf(rate):
        return np.zeros(count)
    if math.isinf(burstiness):
        intervals = np.full(count, 1.0 / rate)
    else:
        intervals = rng.gamma(shape=burstiness, scale=1.0 / (rate * burstiness), size=count)
    times: NDArray[np.float64] = np.cumsum(intervals)
    return times * (count / rate / times[-1]) if normalized and count else times

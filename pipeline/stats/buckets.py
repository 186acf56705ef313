"""The buckets of the histograms. Those that vLLM has, too, have its edges (vllm/v1/metrics/loggers.py)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from pipeline.stats.counters import RequestHistogram, StepHistogram

Histogram = StepHistogram | RequestHistogram

_SPLIT_S = tuple(
    us / 1e6
    for us in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 1_000_000)
)
_TTFT_S = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
    160.0, 640.0, 2560.0,
)  # fmt: skip
_ITL_S = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
)  # fmt: skip
_REQUEST_S = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0,
    1920.0, 7680.0,
)  # fmt: skip
_TOKENS = tuple(float(digit * 10**power) for power in range(6) for digit in (1, 2, 5))
_TEXTS = (1.0, 2.0, 5.0, 10.0, 20.0)
_STEP_TOKENS = (1.0, *(float(2**power) for power in range(3, 15)))

_REQUEST: Mapping[RequestHistogram, tuple[float, ...]] = MappingProxyType(
    {
        RequestHistogram.FRONT: _SPLIT_S,
        RequestHistogram.TTFT: _TTFT_S,
        RequestHistogram.ITL: _ITL_S,
        RequestHistogram.TPOT: _ITL_S,
        RequestHistogram.E2E: _REQUEST_S,
        RequestHistogram.QUEUE: _REQUEST_S,
        RequestHistogram.PREFILL: _REQUEST_S,
        RequestHistogram.DECODE: _REQUEST_S,
        RequestHistogram.INFERENCE: _REQUEST_S,
        RequestHistogram.PROMPT_TOKENS: _TOKENS,
        RequestHistogram.GENERATED_TOKENS: _TOKENS,
        RequestHistogram.MAX_TOKENS: _TOKENS,
        RequestHistogram.TEXTS: _TEXTS,
    }
)


def edges(histogram: Histogram) -> tuple[float, ...]:
    """Upper edges of the buckets, in seconds or tokens; one more bucket follows them."""
    if isinstance(histogram, RequestHistogram):
        return _REQUEST[histogram]
    return _STEP_TOKENS if histogram is StepHistogram.TOKENS else _SPLIT_S


def scale(histogram: Histogram) -> int:
    """Units on the page per unit of `edges`: times are kept in nanoseconds, sizes as they are."""
    return 1 if edges(histogram) in (_TOKENS, _TEXTS, _STEP_TOKENS) else 10**9

"""A run as a picture: how latencies are distributed, and what happened over time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scripts.bench.serving.answers import Answer
from scripts.bench.serving.metrics import METRICS, tpot_s
from scripts.bench.serving.report import Told
from scripts.lab.errors import BenchError

_BLUE, _ORANGE = "#1f6f8b", "#d08c47"


def plot(told: Told, answers: Sequence[Answer], path: Path) -> None:
    """Raises BenchError where matplotlib is missing, or the file can't be written."""
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise BenchError("--plot needs matplotlib: pip install 'ringserve[bench]'") from error
    mpl.use("Agg")
    from matplotlib import pyplot

    good = [answer for answer in answers if answer.success]
    figure, axes = pyplot.subplots(2, 3, figsize=(13, 7))
    for axis, (name, values) in zip(axes.flat, _distributions(good).items(), strict=False):
        _draw_distribution(axis, name, values)
    _draw_throughput(axes[1, 1], good)
    _draw_concurrency(axes[1, 2], good)
    figure.suptitle(_title(told), fontsize=11)
    figure.tight_layout(rect=(0, 0, 1, 0.97))
    try:
        figure.savefig(path, dpi=110, format="png")
    except OSError as error:
        raise BenchError(f"--plot {path}: {error.strerror}") from error
    finally:
        pyplot.close(figure)


def _title(told: Told) -> str:
    rate = f"{told['request_rate']} requests/s" if told["request_rate"] != "inf" else "all at once"
    limit = f", at most {told['max_concurrency']} under way" if told["max_concurrency"] else ""
    scale = f"; times are the device's, real ones times {told['time_scale']:g}" if told["time_scale"] != 1 else ""
    return f"{told['dataset_name']}: {told['num_prompts']} requests, {rate}{limit}\n{told['device']}{scale}"


def _distributions(good: Sequence[Answer]) -> dict[str, list[float]]:
    return {
        "ttft": [answer.ttft for answer in good],
        "itl": [gap for answer in good for gap in answer.itl],
        "tpot": [tpot_s(answer) for answer in good if answer.output_tokens > 1],
        "e2el": [answer.latency for answer in good],
    }


def _draw_distribution(axis: Any, name: str, seconds: list[float]) -> None:
    """Which part of the values is at most so long."""
    ms = np.sort(np.asarray(seconds or [0.0])) * 1000
    axis.plot(ms, np.arange(1, ms.size + 1) / ms.size, color=_BLUE)
    for percentile in (50, 99):
        value = float(np.percentile(ms, percentile))
        axis.axvline(value, color=_ORANGE, linewidth=0.8)
        axis.text(value, percentile / 100 - 0.06, f" p{percentile} {value:,.1f}", fontsize=8)
    axis.set_title(f"{name.upper()}: {METRICS[name]}", fontsize=9)
    axis.set_xlabel("ms", fontsize=8)
    axis.set_ylim(0, 1.02)


def _draw_throughput(axis: Any, good: Sequence[Answer]) -> None:
    times = [answer.start_time + answer.ttft + np.concatenate([[0.0], np.cumsum(answer.itl)]) for answer in good]
    counts, edges = np.histogram(np.concatenate([[0.0], *times]), bins=60)
    axis.step(edges[:-1], counts / np.diff(edges), where="post", color=_BLUE)
    axis.set_title("output tokens per second", fontsize=9)
    axis.set_xlabel("s", fontsize=8)


def _draw_concurrency(axis: Any, good: Sequence[Answer]) -> None:
    events = sorted([(answer.start_time, 1) for answer in good] + [(answer.end_time, -1) for answer in good])
    axis.step([time for time, _ in events], np.cumsum([step for _, step in events]), where="post", color=_BLUE)
    axis.set_title("requests under way", fontsize=9)
    axis.set_xlabel("s", fontsize=8)

"""A run as a picture: how latencies are distributed, and what happened over time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scripts.bench.serving.answers import Answer
from scripts.bench.serving.metrics import METRICS, distributions, token_times_s, under_way
from scripts.bench.serving.report import Told
from scripts.lab.plot import BLUE, ORANGE, picture


def plot(told: Told, answers: Sequence[Answer], path: Path) -> None:
    """Raises BenchError where matplotlib is missing, or the file can't be written."""
    good = [answer for answer in answers if answer.success]
    with picture(path, 2, 3, (13, 7)) as (figure, axes):
        for axis, (name, values) in zip(axes.flat, distributions(good).items(), strict=False):
            _draw_distribution(axis, name, values)
        counts, edges = np.histogram(np.concatenate([[0.0], token_times_s(good)]), bins=60)
        _draw_steps(axes[1, 1], "output tokens per second", edges[:-1], counts / np.diff(edges))
        _draw_steps(axes[1, 2], "requests under way", *under_way(good))
        figure.suptitle(_title(told), fontsize=11)
        figure.tight_layout(rect=(0, 0, 1, 0.97))


def _title(told: Told) -> str:
    rate = f"{told['request_rate']} requests/s" if told["request_rate"] != "inf" else "all at once"
    limit = f", at most {told['max_concurrency']} under way" if told["max_concurrency"] else ""
    scale = f"; times are the device's, real ones times {told['time_scale']:g}" if told["time_scale"] != 1 else ""
    return f"{told['dataset_name']}: {told['num_prompts']} requests, {rate}{limit}\n{told['device']}{scale}"


def _draw_distribution(axis: Any, name: str, seconds: list[float]) -> None:
    """Which part of the values is at most so long."""
    ms = np.sort(np.asarray(seconds or [0.0])) * 1000
    axis.plot(ms, np.arange(1, ms.size + 1) / ms.size, color=BLUE)
    for percentile in (50, 99):
        value = float(np.percentile(ms, percentile))
        axis.axvline(value, color=ORANGE, linewidth=0.8)
        axis.text(value, percentile / 100 - 0.06, f" p{percentile} {value:,.1f}", fontsize=8)
    axis.set_title(f"{name.upper()}: {METRICS[name]}", fontsize=9)
    axis.set_xlabel("ms", fontsize=8)
    axis.set_ylim(0, 1.02)


def _draw_steps(axis: Any, name: str, seconds: Any, values: Any) -> None:
    axis.step(seconds, values, where="post", color=BLUE)
    axis.set_title(name, fontsize=9)
    axis.set_xlabel("s", fontsize=8)

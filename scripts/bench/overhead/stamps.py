"""Where the time of a step goes: from the time stamps in its descriptor, by way of `/debug/trace`.

From one token to the next, the parts follow one another without a gap: the step before is computed → *wait* → its
descriptor is taken → *launch* → the device is started → *device* → it is computed. The rest happens while the device
computes, and a token passes through it once on its way to the client.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Step = dict[str, tuple[float, float]]
"""Begin and duration in µs, by name."""

BETWEEN = ("wait", "launch", "device")
"""What lies between two tokens; the sum of the means is the mean time between two tokens."""
AFTERWARDS = ("publish", "sample", "detokenize and send", "schedule")
"""What happens meanwhile: tokens on their way out, and the next step's planning."""


@dataclass(frozen=True, slots=True)
class Part:
    """Microseconds."""

    mean_us: float
    p50_us: float
    p99_us: float


@dataclass(frozen=True, slots=True)
class Stamps:
    """What the stamps of a run say."""

    parts: dict[str, Part]
    begin_ns: int  # of the time that the parts are from; the client's clock is the same one
    end_ns: int


def read_stamps(events: list[dict[str, Any]], batch: int) -> Stamps | None:
    """Of pure decode steps of `batch` rows that follow such a step. None if there are none."""
    steps = {step: parts for step, parts in _by_step(events, batch).items() if parts.keys() >= {"launch", "device"}}
    followers = [(steps[step - 1], parts) for step, parts in steps.items() if step - 1 in steps]
    if not followers:
        return None
    columns = {name: _durations(name, [parts for _, parts in followers]) for name in (*BETWEEN[1:], *AFTERWARDS)}
    computed = np.array([sum(before["device"]) for before, _ in followers])
    columns["wait"] = np.array([parts["launch"][0] for _, parts in followers]) - computed
    columns["feedback"] = _feedback(followers)
    parts = {name: _part(values) for name, values in columns.items() if values.size}
    return Stamps(parts, int(1e3 * computed.min()), int(1e3 * max(sum(step["device"]) for _, step in followers)))


def _by_step(events: list[dict[str, Any]], batch: int) -> dict[int, Step]:
    steps: dict[int, Step] = {}
    for event in events:
        args = event.get("args", {})
        if args.get("decode_rows") == args.get("tokens") == batch:
            steps.setdefault(args["step"], {})[event["name"]] = event["ts"], event["dur"]
    return steps


def _durations(name: str, steps: list[Step]) -> Float64:
    return np.array([parts[name][1] for parts in steps if name in parts])


def _feedback(followers: list[tuple[Step, Step]]) -> Float64:
    """From the tokens to the start of the next step, where inference had to wait for them."""
    both = [(before, parts) for before, parts in followers if "sample" in before]
    chosen, launched = (
        np.array([sum(pair[which][name]) for pair in both]) for which, name in ((0, "sample"), (1, "launch"))
    )
    waited: Float64 = np.maximum(launched - chosen, 0.0)
    return waited


def _part(values: Float64) -> Part:
    p50, p99 = np.percentile(values, [50, 99])
    return Part(round(float(values.mean()), 2), round(float(p50), 2), round(float(p99), 2))

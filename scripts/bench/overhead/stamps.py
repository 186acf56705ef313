"""Where the time of a step goes: from the time stamps in its descriptor, by way of `/debug/trace`.

From one token to the next, the parts follow one another without a gap: the step before is computed → *wait* → its
descriptor is taken → *launch* → the device is started → *device* → it is computed. The rest happens while the device
computes, and a token passes through it once on its way to the client.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

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
    steps: dict[int, Step] = {}
    for event in events:
        args = event.get("args", {})
        if args.get("decode_rows") == args.get("tokens") == batch:
            steps.setdefault(args["step"], {})[event["name"]] = event["ts"], event["dur"]
    steps = {number: step for number, step in steps.items() if step.keys() >= {"launch", "device"}}
    pairs = [(steps[number - 1], step) for number, step in steps.items() if number - 1 in steps]
    if not pairs:
        return None
    times = {name: [step[name][1] for _, step in pairs if name in step] for name in (*BETWEEN[1:], *AFTERWARDS)}
    times["wait"] = [step["launch"][0] - sum(before["device"]) for before, step in pairs]
    # From the tokens to the start of the next step, where inference had to wait for them
    times["feedback"] = [
        max(0.0, sum(step["launch"]) - sum(before["sample"])) for before, step in pairs if "sample" in before
    ]
    parts = {}
    for name, values in times.items():
        if values:
            parts[name] = Part(*np.round([np.mean(values), *np.percentile(values, [50, 99])], 2).tolist())
    begin_us, end_us = (
        min(sum(before["device"]) for before, _ in pairs),
        max(sum(step["device"]) for _, step in pairs),
    )
    return Stamps(parts, int(1e3 * begin_us), int(1e3 * end_us))

"""What RingServe on OpenVINO is measured by: its figures over another server's, of the same width and round."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from scripts.bench.peers.loads import TTFT
from scripts.bench.peers.peers import reference
from scripts.lab.goals import Goal

Rounds = Sequence[Mapping[str, Any]]
_LLAMA = {
    "int8": ("llama.cpp-q8_0", {"1": 1.0, "2": 1.3, "8": 1.7, "32": 2.2}),
    "bf16": ("llama.cpp-bf16", {"1": 0.95, "8": 1.2, "32": 1.2}),
    "f32": ("llama.cpp-f32", {"1": 0.95, "8": 1.2, "32": 1.2}),
}
_LLAMA_TTFT = {"int8": 0.5, "bf16": 0.5}
_LEAST, _VLLM_MEAN = 0.95, 1.15


def ratios(rounds: Rounds, ours: str, theirs: str, load: str, figure: str) -> list[float]:
    """Of each round that had both."""
    found = [record["figures"] for record in rounds if {ours, theirs} <= record["figures"].keys()]
    cells = [(each[ours].get(load, {}).get(figure), each[theirs].get(load, {}).get(figure)) for each in found]
    return [mine / other for mine, other in cells if mine is not None and other]


def goals(rounds: Rounds, streams: Sequence[int], names: Sequence[str]) -> list[Goal]:
    """Those that concern what was asked for: `streams` at once, peers by `names`."""
    numbers = [str(number) for number in streams]
    chosen = [(width, theirs, wanted) for width, (theirs, wanted) in _LLAMA.items() if theirs in names]
    found = [goal for width, theirs, wanted in chosen for goal in _llama(rounds, width, theirs, wanted, numbers)]
    for width in ("f32", "bf16"):
        if f"vllm-{width}" in names:
            found += [_faster(rounds, width, f"vllm-{width}", number, _LEAST) for number in numbers]
    found += _vllm_mean(rounds, numbers, names)
    for width in ("int8", "bf16", "f32"):
        if f"genai-{width}" in names:
            found += _genai(rounds, width, numbers)
    return [goal for goal in found if goal.what.split(" / ")[0] in names or goal.what.startswith("geometric")]


def _llama(
    rounds: Rounds, width: str, theirs: str, wanted: Mapping[str, float], numbers: Sequence[str]
) -> Iterator[Goal]:
    for number, goal in wanted.items():
        if number in numbers:
            yield _faster(rounds, width, theirs, number, goal)
    if width in _LLAMA_TTFT:
        found = ratios(rounds, reference(width), theirs, TTFT, "ttft_ms")
        yield _goal(_what(width, theirs, "time to the first token"), found, _LLAMA_TTFT[width], at_least=False)


def _vllm_mean(rounds: Rounds, numbers: Sequence[str], names: Sequence[str]) -> list[Goal]:
    widths = [width for width in ("f32", "bf16") if {f"vllm-{width}", reference(width)} <= {*names}]
    if not widths:
        return []
    found = [ratios(rounds, reference(w), f"vllm-{w}", number, "tokens_per_s") for w in widths for number in numbers]
    mean = statistics.geometric_mean([statistics.median(each) for each in found]) if all(found) else None
    what = f"geometric mean of ringserve-openvino / vllm, tokens/s, {' and '.join(widths)}"
    return [Goal(what, mean, _VLLM_MEAN, "x", at_least=True)]


def _genai(rounds: Rounds, width: str, numbers: Sequence[str]) -> Iterator[Goal]:
    for number in numbers:
        yield _faster(rounds, width, f"genai-{width}", number, _LEAST)
    for number in numbers:
        found = ratios(rounds, reference(width), f"genai-{width}", number, "itl_p99_ms")
        what = _what(width, f"genai-{width}", f"ITL p99, {_streams(number)}")
        yield _goal(what, found, 1.0, at_least=False)


def _faster(rounds: Rounds, width: str, theirs: str, number: str, goal: float) -> Goal:
    found = ratios(rounds, reference(width), theirs, number, "tokens_per_s")
    return _goal(_what(width, theirs, f"tokens/s, {_streams(number)}"), found, goal, at_least=True)


def _what(width: str, theirs: str, figure: str) -> str:
    return f"{reference(width)} / {theirs}, {figure}"


def _streams(number: str) -> str:
    return "1 stream" if number == "1" else f"{number} streams"


def _goal(what: str, found: Sequence[float], goal: float, *, at_least: bool) -> Goal:
    """The median over rounds, with the spread."""
    if not found:
        return Goal(what, None, goal, "x", at_least)
    spread = f", rounds from {min(found):.2f} to {max(found):.2f}"
    return Goal(what, statistics.median(found), goal, "x", at_least, spread)

"""What the scores of a prompt cost: the time of an answer of one token, with and without, in turns.

    python -m scripts.bench.scoring [--model DIR] [--engine KIND] [--tokens 512] [--best 1] [--rounds 9]

Every prompt is another one, so that no cached block helps the one without. Without --model: configs/demo.yaml.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from pathlib import Path

import httpx
import numpy as np

from scripts.lab.arguments import count, parser, write_json
from scripts.lab.paths import ROOT
from scripts.lab.server import WARM, Server, launched
from scripts.lab.table import columns

KINDS = ("prefilled", "scored")


def main() -> int:
    line = parser(__doc__)
    line.add_argument("--model", type=Path, default=ROOT / "configs" / "demo.yaml", metavar="DIR")
    line.add_argument("--engine", default="auto", help="pipeline.runner.kind (default: auto)")
    line.add_argument("--tokens", type=count, default=512, help="of a prompt (default: 512)")
    line.add_argument("--best", type=int, default=1, help="most probable tokens beside each (default: 1)")
    line.add_argument("--rounds", type=count, default=9)
    line.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as of ringserve")
    line.add_argument("--json", type=Path, metavar="FILE", help="also write the results there")
    given = line.parse_args()
    settings = (WARM, f"pipeline.runner.kind={given.engine}", *given.set)
    with tempfile.TemporaryDirectory() as name, launched(given.model, settings, Path(name) / "log") as server:
        times = measure(server, given.tokens, given.best, given.rounds)
    medians = {kind: statistics.median(times[kind]) for kind in KINDS}
    ratio = statistics.median(s / p for s, p in zip(times["scored"], times["prefilled"], strict=True))
    print(f"{given.model}, {given.engine}, {given.tokens} tokens, medians of {given.rounds}")
    print(columns(("", "ms"), [*((kind, 1e3 * medians[kind]) for kind in KINDS), ("ratio of pairs", ratio)]))
    write_json(given.json, {"times_s": times, "medians_s": medians, "ratio": ratio})
    return 0


def measure(server: Server, tokens: int, best: int, rounds: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {kind: [] for kind in KINDS}
    draw = np.random.default_rng(1)
    for number in range(rounds + 1):
        for kind in KINDS:
            prompt = draw.integers(5, 900, tokens).tolist()
            spent = ask(server, prompt, best if kind == "scored" else None)
            if number:  # the first round warms up
                times[kind].append(spent)
    return times


def ask(server: Server, prompt: list[int], best: int | None) -> float:
    """Seconds until the answer is there."""
    scores = {} if best is None else {"echo": True, "logprobs": best}
    body = json.dumps({"prompt": prompt, "max_tokens": 1, "temperature": 0, **scores}).encode()
    headers = {"content-type": "application/json"}
    begun = time.perf_counter()
    httpx.post(f"{server.base_url}/v1/completions", content=body, headers=headers, timeout=60).raise_for_status()
    return time.perf_counter() - begun


if __name__ == "__main__":
    raise SystemExit(main())

"""Draws from candidates beside draws from whole rows: the same token or none, never another one.

    python -m scripts.verify.draws [--draws 10000000] [--seed 0]

Random logits, settings and seeds; ties, equal logits and borders among them. `Drawer` sees the candidates that a
device brings, `Sampler` the whole row. Also says how often candidates were not enough, by kind of draw.
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.sampling import DRAW, BestOfRows, Drawer, SampleOutputs, Sampler, SamplingLimits, SamplingParams
from scripts.lab.arguments import count, parser, say, whole
from scripts.lab.table import columns

AT_ONCE = 1000  # draws from one row of logits
VOCABULARIES = (3, 10, 64, 65, 300, 2000)
CANDIDATES = (1, 2, 5, 20, 64)
TOP_K = (0, 0, 0, 1, 2, 5, 19, 20, 40, 63, 64, 100)


@dataclass(slots=True)
class Tally:
    """By kind of draw."""

    draws: Counter[str]
    unknown: Counter[str]
    wrong: Counter[str]

    @property
    def faults(self) -> int:
        return self.wrong.total()


def compare(draws: int, seed: int) -> Tally:
    rng, tally = np.random.default_rng(seed), Tally(Counter(), Counter(), Counter())
    while tally.draws.total() < draws:
        logits, params, most = some_logits(rng), some_params(rng), int(rng.choice(CANDIDATES))
        seeds = rng.integers(0, 2**64, AT_ONCE, np.uint64)
        positions = rng.integers(1, 100_000, AT_ONCE, np.int32)
        whole_row = from_whole_row(logits, params, seeds, positions)
        found = from_candidates(logits, params, seeds, positions, min(most, logits.size))
        kind = kind_of(params, min(most, logits.size))
        tally.draws[kind] += AT_ONCE
        tally.unknown[kind] += int(np.count_nonzero(found < 0))
        tally.wrong[kind] += int(np.count_nonzero((found >= 0) & (found != whole_row)))
    return tally


def some_logits(rng: np.random.Generator) -> NDArray[np.float32]:
    """Flat or steep, and with equal ones in a third of all cases."""
    logits: NDArray[np.float32] = rng.normal(0, rng.choice([0.5, 2, 4, 8]), rng.choice(VOCABULARIES)).astype("f4")
    return logits.round() if rng.random() < 1 / 3 else logits


def some_params(rng: np.random.Generator) -> SamplingParams:
    return SamplingParams(
        temperature=float(rng.choice([0, 0.1, 0.6, 0.7, 1, 1.3, 3])),
        top_k=int(rng.choice(TOP_K)),
        top_p=float(rng.choice([1, 0.99, 0.95, 0.9, 0.5, 0.05])),
        min_p=float(rng.choice([0, 0, 0.05, 0.3, 1])),
    )


def kind_of(params: SamplingParams, candidates: int) -> str:
    if params.greedy:
        return "argmax"
    if 1 <= params.top_k < candidates:
        return "top-k among the candidates"
    return "top-p" if params.top_p < 1 else "min-p" if params.min_p else "temperature alone"


def from_whole_row(
    logits: NDArray[np.float32], params: SamplingParams, seeds: NDArray[np.uint64], positions: NDArray[np.int32]
) -> NDArray[np.int32]:
    n = len(seeds)
    sampler, out = Sampler(SamplingLimits(logits.size, 1), n), SampleOutputs.allocate(n)
    for row, seed in enumerate(seeds.tolist()):
        sampler.admit(row, params, (), seed=seed)
    sampler.choose(np.tile(logits, (n, 1)), np.arange(n, dtype=np.int32), positions, out)
    return out.token_ids


def from_candidates(
    logits: NDArray[np.float32],
    params: SamplingParams,
    seeds: NDArray[np.uint64],
    positions: NDArray[np.int32],
    candidates: int,
) -> NDArray[np.int32]:
    """-1 where they do not tell."""
    n, vocab = len(seeds), logits.size
    ids, best = np.zeros((1, candidates), np.int32), np.zeros((1, candidates), np.float32)
    log_sum_exp, tokens = np.zeros(1), np.zeros(n, np.int32)
    BestOfRows(vocab).find(logits[None], ids, best, log_sum_exp, None, None)
    by = np.tile([0 if params.greedy and name == "temperature" else getattr(params, name) for name in DRAW], (n, 1))
    rows = [np.repeat(each, n, axis=0) for each in (ids, best, log_sum_exp)]
    drawer = Drawer(vocab)
    drawer.prepare(rows[0], rows[1], rows[2], positions, seeds, by.astype(np.float64), tokens)
    unknown = drawer.draw()
    if unknown != np.count_nonzero(tokens < 0):
        raise AssertionError(f"{unknown} tokens are said to be unknown; {np.count_nonzero(tokens < 0)} are")
    return tokens


def main() -> int:
    line = parser(__doc__)
    line.add_argument("--draws", type=count, default=10_000_000, help="default: 10,000,000")
    line.add_argument("--seed", type=whole(0), default=0)
    given = line.parse_args()
    say(f"{given.draws} draws")
    tally = compare(given.draws, given.seed)
    rows = [
        [kind, tally.draws[kind], f"{tally.unknown[kind] / tally.draws[kind]:.1%}", tally.wrong[kind]]
        for kind in sorted(tally.draws)
    ]
    print(columns(["draw", "draws", "unknown", "wrong"], rows))
    return int(tally.faults > 0)


if __name__ == "__main__":
    sys.exit(main())

"""A sampled step beside a greedy one, on engines that compute: the same server, in turns.

    python -m scripts.bench.sampled                                both engines, both vocabularies: some ten minutes
    python -m scripts.bench.sampled --engines openvino --vocabs 128256 --batches 1 --rounds 5

The model is a random Llama of 12 layers of width 768. Sampled rows have temperature 0.7, top-k 40 and top-p 0.95. The
time of a step is that from the first token of the last stream that began to the last token of all, by the tokens of
an answer; a ratio is that of two groups of streams, one after the other. Exit status 1 if the goal was missed.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import uvloop

from scripts.bench.peers.checkpoint import Size, make_checkpoint
from scripts.bench.speculation.replayed import ask_all
from scripts.lab.arguments import count, counts, parser, say, words, write_json
from scripts.lab.errors import BenchError
from scripts.lab.goals import Goal
from scripts.lab.machine import describe_machine
from scripts.lab.paths import ROOT
from scripts.lab.server import WARM, launched
from scripts.lab.table import columns

ENGINES = ("mindspore", "openvino")
MOST = 1.05
SAMPLED: dict[str, float] = {"temperature": 0.7, "top_k": 40, "top_p": 0.95}
GREEDY: dict[str, float] = {"temperature": 0}
_PROMPT = 16


@dataclass(frozen=True, slots=True)
class Cell:
    engine: str
    vocab: int
    batch: int
    greedy_ms: list[float]  # a step, round by round
    sampled_ms: list[float]

    @property
    def goal(self) -> Goal:
        pairs = zip(self.sampled_ms, self.greedy_ms, strict=True)
        ratio = statistics.median(sampled / greedy for sampled, greedy in pairs)
        return Goal(f"{self.engine}, {self.vocab} tokens, batch {self.batch}: sampled / greedy", ratio, MOST, "times")


def main() -> int:
    line = parser(__doc__)
    line.add_argument("--engines", type=words("engine", ENGINES), default=ENGINES)
    line.add_argument("--vocabs", type=counts(1 << 20), default=(32000, 128256))
    line.add_argument("--batches", type=counts(128), default=(1, 8, 32))
    line.add_argument("--tokens", type=count, default=64, help="of an answer (default: 64)")
    line.add_argument("--rounds", type=count, default=9)
    line.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as of ringserve")
    line.add_argument("--json", type=Path, metavar="FILE", help="also write the results there")
    given = line.parse_args()
    cells = []
    for vocab in given.vocabs:
        model = make_checkpoint(ROOT / ".cache" / f"sampled-{vocab}", Size(vocab_size=vocab))
        for engine in given.engines:
            settings = (WARM, f"pipeline.runner.kind={engine}", *given.set)
            with tempfile.TemporaryDirectory() as name, launched(model, settings, Path(name) / "log") as server:
                say(f"{engine}, {vocab} tokens")
                rounds = uvloop.run(measure(server.base_url, given.batches, given.tokens, given.rounds))
            found = [Cell(engine, vocab, batch, *rounds[batch]) for batch in given.batches]
            for cell in found:
                say(cell.goal.text)
            cells += found
    print(describe_machine())
    head = ["engine", "vocabulary", "batch", "greedy, ms", "sampled, ms"]
    print(columns(head, [_line(cell) for cell in cells]))
    print(*(cell.goal.text for cell in cells), sep="\n")
    write_json(given.json, [asdict(cell) for cell in cells])
    return int(not all(cell.goal.met for cell in cells))


def _line(cell: Cell) -> tuple[str, int, int, float, float]:
    return cell.engine, cell.vocab, cell.batch, statistics.median(cell.greedy_ms), statistics.median(cell.sampled_ms)


async def measure(
    base_url: str, batches: tuple[int, ...], tokens: int, rounds: int
) -> dict[int, tuple[list[float], list[float]]]:
    """Milliseconds of greedy and of sampled steps, by batch."""
    found: dict[int, tuple[list[float], list[float]]] = {batch: ([], []) for batch in batches}
    prompts = _prompts()
    for number in range(rounds + 1):
        for batch in batches:
            for kind in (0, 1) if number % 2 else (1, 0):
                spent = await _step_ms(
                    base_url, [next(prompts) for _ in range(batch)], tokens, (GREEDY, SAMPLED)[kind]
                )
                if number:  # the first round warms up
                    found[batch][kind].append(spent)
    return found


def _prompts() -> Iterator[list[int]]:
    """Each another one, so that no cached block helps."""
    draw = np.random.default_rng(1)
    while True:
        yield draw.integers(5, 900, _PROMPT).tolist()


async def _step_ms(base_url: str, prompts: list[list[int]], tokens: int, choice: dict[str, float]) -> float:
    """Raises BenchError for an answer that is none."""
    asked = {"max_tokens": tokens, "ignore_eos": True, "stream": True, **choice}
    answers = await ask_all(base_url, [json.dumps({"prompt": prompt, **asked}).encode() for prompt in prompts])
    return answers.seconds * 1e3 / (tokens - 1)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchError as error:
        sys.exit(f"bench-sampled: {error}")

"""What speculation gains: the same texts from a server with and from one without, in turns.

    python -m scripts.bench.speculation [--model DIR_OR_CONFIG] [--kinds edits,tables,code,prose] [--rows 1,16]
        [--tokens 400] [--rounds 1] [--set KEY=VALUE]... [--json FILE]

Texts are replayed: the engine computes, and what it answers is moved to the text (`model/replay.py`). Without a
model: a random Llama of 134 million parameters on the default engine, made once; configs/emulated_910b.yaml is an
emulated device whose steps cost what their positions do. A pair is one text, or as many at once as there are rows,
from each server, the order of the two changing with every pair. A time is that from a pair's first tokens to its last
ones, a gain the median of all pairs' ratios. Answers must be the same. Exit status 1 if one is not, or a goal is
missed.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from model.replay import START
from model.tokenizer import load_tokenizer
from pipeline.config import Configuration, load_configuration, load_folder
from scripts.bench.peers.checkpoint import Size, make_checkpoint
from scripts.bench.speculation.replayed import Replayed, ask_all, write_replay
from scripts.bench.speculation.texts import KINDS, texts
from scripts.lab.arguments import count, counts, parser, say, words, write_json
from scripts.lab.errors import BenchError
from scripts.lab.goals import Goal
from scripts.lab.machine import describe_machine
from scripts.lab.paths import ROOT
from scripts.lab.server import WARM, Server, launched
from scripts.lab.table import columns

GOALS = {"edits": 2.5, "tables": 1.8, "code": 1.2, "prose": 1.0}
LEAST_IN_COMPANY = 0.98
METHODS = ("off", "ngram")


@dataclass(frozen=True, slots=True)
class Gain:
    """Of a kind of texts, with so many rows."""

    kind: str
    rows: int
    ratios: list[float]  # of the times, without by with, pair by pair
    tokens_per_step: float
    accepted: float  # of the guesses
    foreseen: float  # of the steps, those that waited for nothing
    same: bool

    @property
    def goal(self) -> Goal:
        alone = self.rows == 1
        least = GOALS[self.kind] if alone else LEAST_IN_COMPANY
        return Goal(f"{self.kind}, {self.rows} rows", statistics.median(self.ratios), least, "x", at_least=True)


def main() -> int:
    line = parser(__doc__)
    line.add_argument("--model", type=Path, help="a model's folder, or a configuration file")
    line.add_argument("--kinds", type=words("kind", KINDS), default=KINDS)
    line.add_argument("--rows", type=counts(256), default=(1, 16))
    line.add_argument(
        "--tokens", type=count, default=400, help="of an answer, at most: what is behind the first ones repeats more"
    )
    line.add_argument("--rounds", type=count, default=1, help="how often each text is asked for")
    line.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of both servers")
    line.add_argument("--json", type=Path, metavar="FILE")
    given = line.parse_args()
    model = given.model or make_checkpoint(ROOT / ".cache" / "startup-134m", Size())
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        replayed = {kind: encode(model, kind, given.tokens, given.set) for kind in given.kinds}
        file = write_replay(Path(name) / "texts.jsonl", replayed.values())
        shared = (WARM, f"pipeline.runner.replay={file}", *given.set)
        servers = [
            stack.enter_context(
                launched(model, (f"pipeline.speculation.method={method}", *shared), Path(name) / f"{method}.log")
            )
            for method in METHODS
        ]
        gains = [
            uvloop.run(measure(servers, kind, replayed[kind], rows, given.rounds))
            for rows in given.rows
            for kind in given.kinds
        ]
    return report(model, gains, given.json)


def encode(model: Path, kind: str, tokens: int, overrides: Sequence[str]) -> list[Replayed]:
    """As token ids of the model's vocabulary; each prompt begins like no other."""
    load = load_folder if model.is_dir() else load_configuration
    config: Configuration = load(model, overrides, other_host=True)
    assert config.tokenizer.vocab_file is not None  # the configuration was checked
    tokenizer = load_tokenizer(config.tokenizer.vocab_file)
    found = []
    for number, text in enumerate(texts(kind)):
        prompt, answer = tokenizer.encode(f"{number} {kind}: {text.prompt}"), tokenizer.encode(text.answer)[1:]
        room = config.max_length - len(prompt)
        if room < 1:
            raise BenchError(f"{kind}: a prompt has {len(prompt)} tokens, the model takes {config.max_length}")
        found.append(Replayed(list(prompt), list(answer[: min(tokens, room)])))
        assert len(prompt) >= START
    return found


async def measure(servers: Sequence[Server], kind: str, all_texts: list[Replayed], rows: int, rounds: int) -> Gain:
    ratios, same, before = [], True, servers[1].metrics()
    groups = [all_texts[at : at + rows] for at in range(0, len(all_texts) - rows + 1, rows)] or [all_texts]
    for turn, group in enumerate(groups * (rounds if rows == 1 else max(rounds, -(-10 // len(groups))))):
        order = (0, 1) if turn % 2 else (1, 0)
        bodies = [text.body for text in group]
        took = {at: await ask_all(servers[at].base_url, bodies) for at in order}
        ratios.append(took[0].seconds / took[1].seconds)
        same &= took[0].texts == took[1].texts
    after = servers[1].metrics()

    def of(name: str, **labels: str) -> float:
        return after.total(name, **labels) - before.total(name, **labels)

    gain = Gain(
        kind,
        rows,
        ratios,
        of("sampled_tokens_total") / of("row_steps_total"),
        of("accepted_draft_tokens_total") / max(1, of("draft_tokens_total")),
        1 - of("waited_steps_total") / of("steps_total", stage="inference"),
        same,
    )
    say(f"{kind}, {rows} rows: {statistics.median(ratios):.2f} x, {'the same' if same else 'OTHER'} texts")
    return gain


def report(model: Path, gains: Sequence[Gain], file: Path | None) -> int:
    print(f"{model.name}; {describe_machine()}")
    head = ["texts", "rows", "pairs", "gain, median", "least", "most", "tokens a step and row", "guesses right",
            "steps foreseen", "texts"]  # fmt: skip
    print(columns(head, [_line(gain) for gain in gains]))
    goals = [gain.goal for gain in gains]
    print(*(goal.text for goal in goals), sep="\n")
    write_json(file, {"gains": [_plain(gain) for gain in gains], "goals": [goal.told() for goal in goals]})
    return int(not all(goal.met for goal in goals) or not all(gain.same for gain in gains))


def _line(gain: Gain) -> list[Any]:
    ratios = sorted(gain.ratios)
    figures = (statistics.median(ratios), ratios[0], ratios[-1], gain.tokens_per_step)
    shares = (f"{100 * share:.0f} %" for share in (gain.accepted, gain.foreseen))
    same = "the same" if gain.same else "OTHERS"
    return [gain.kind, gain.rows, len(ratios), *(f"{figure:.2f}" for figure in figures), *shares, same]


def _plain(gain: Gain) -> dict[str, Any]:
    return {name: getattr(gain, name) for name in Gain.__slots__}


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchError as error:
        sys.exit(f"speculation: {error}")

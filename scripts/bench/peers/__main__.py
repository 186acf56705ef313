"""RingServe, llama.cpp, openvino_genai and vLLM on CPU: the same checkpoint, the same client, in turns.

    python -m scripts.bench.peers --install          installs what is missing (6 GB), then measures; 20 minutes
    python -m scripts.bench.peers --only ringserve-openvino,llama.cpp
    python -m scripts.bench.peers --model-size 1.1b --resume
    python -m scripts.bench.peers --model-size 3m    takes next to no time to compute: what is left is the servers'

The checkpoint is a random Llama, made here: what it answers is nonsense, what it costs is not. Servers of the same
width of weights run at the same time, and one of them is asked at a time, in rounds; what counts is the ratios of a
round. Peers are installed from the package index into environments of their own, under .cache/peers. A run that was
interrupted goes on with --resume. docs/peers.md says what the comparison is biased towards. The exit status is 1 if a
goal was missed.
"""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from scripts.bench.peers.checkpoint import MODELS
from scripts.bench.peers.journal import Journal
from scripts.bench.peers.peers import CONTEXT, PEERS, ROWS, choose
from scripts.bench.peers.plot import draw
from scripts.bench.peers.report import goals_of, report, tell
from scripts.bench.peers.rounds import Comparison, Plan
from scripts.lab.arguments import count, counts, parser, say, whole, write_json
from scripts.lab.errors import BenchError
from scripts.lab.machine import describe_machine
from scripts.lab.paths import ROOT
from scripts.lab.processes import exit_when_told


@dataclass(frozen=True, slots=True)
class Scale:
    """So that a run takes 20 minutes on two cores."""

    rounds: int
    waves: int
    output_tokens: int
    ttft_requests: int


SCALES: Mapping[str, Scale] = {
    "3m": Scale(3, 2, 256, 20),
    "134m": Scale(3, 2, 64, 5),
    "1.1b": Scale(2, 1, 32, 2),
}


def parse() -> tuple[Plan, Namespace]:
    line = parser(__doc__)
    line.epilog = "peers: " + ", ".join(peer.name for peer in PEERS)
    add = line.add_argument
    add(
        "--only",
        dest="peers",
        type=choose,
        default=PEERS,
        metavar="NAMES",
        help="peers, or how their names begin",
    )
    add("--model-size", choices=tuple(MODELS), default="134m", help="parameters; default 134m")
    add("--layers", type=count, help="of the model; fewer: smaller, to see that all works")
    add("--install", action="store_true", help="install peers that are missing, from the index")
    add("--cache", type=Path, default=ROOT / ".cache" / "peers", metavar="DIR", help="environments and checkpoints")
    add("--resume", action="store_true", help="go on with the last run of this model")
    add("--streams", type=counts(ROWS), default=(1, 2, 8, 32), help=f"at once, up to {ROWS}; default 1,2,8,32")
    add("--rounds", type=count, help="default 3; 1.1b: 2")
    add("--waves", type=count, help="requests of each stream in a round, one after the other; default 2; 1.1b: 1")
    add("--prompt-tokens", type=count, default=64, help="default 64")
    add("--output-tokens", type=whole(2), help="default 64; 3m: 256; 1.1b: 32")
    add("--ttft-tokens", type=count, default=512, help="of prompts whose first token is timed, default 512")
    add("--ttft-requests", type=count, help="of these in a round, default 5; 3m: 20; 1.1b: 2")
    add("--threads", type=count, default=len(os.sched_getaffinity(0)), help="default: the number of CPUs")
    text = "don't empty the caches of those that keep compiled code or weights, to time a first start"
    add("--no-first-starts", dest="first_starts", action="store_false", help=text)
    add("--json", type=Path, metavar="FILE", help="also write the results there")
    add("--markdown", type=Path, metavar="FILE", help="also write the tables there")
    add("--plot", type=Path, metavar="FILE", help="also draw them (PNG); needs matplotlib")
    given = line.parse_args()
    plan = _plan(given)
    for load in plan.loads:
        if load.prompt_tokens + load.output_tokens > CONTEXT:
            line.error(f"prompt and output together must not be longer than {CONTEXT} tokens")
    return plan, given


def _plan(given: Namespace) -> Plan:
    scale, layers = SCALES[given.model_size], given.layers
    cache = given.cache.absolute()
    return Plan(
        model=MODELS[given.model_size].with_layers(layers),
        peers=given.peers,
        streams=given.streams,
        rounds=given.rounds or scale.rounds,
        waves=given.waves or scale.waves,
        prompt_tokens=given.prompt_tokens,
        output_tokens=given.output_tokens or scale.output_tokens,
        ttft_tokens=given.ttft_tokens,
        ttft_requests=given.ttft_requests or scale.ttft_requests,
        threads=given.threads,
        cache=cache,
        folder=cache / (given.model_size if layers is None else f"{given.model_size}-{layers}-layers"),
        install=given.install,
        first_starts=given.first_starts,
    )


def run(plan: Plan, given: Namespace) -> int:
    """Raises BenchError, OSError."""
    plan.folder.mkdir(parents=True, exist_ok=True)
    journal = Journal(plan.folder / "journal.jsonl", plan.told(), resume=given.resume)
    comparison = Comparison(plan, journal, say)
    comparison.run()
    told = tell(journal, plan, comparison.skipped, describe_machine())
    text = report(told)
    print(text)
    write_json(given.json, told)
    if given.markdown:
        given.markdown.write_text(text + "\n", encoding="utf-8")
    if given.plot and told["servers"]:
        draw(told, given.plot)
    return int(not told["servers"] or any(goal.met is False for goal in goals_of(told)))


def main() -> int:
    plan, given = parse()
    exit_when_told()
    try:
        return run(plan, given)
    except (BenchError, OSError) as error:
        print(f"compare_peers: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())

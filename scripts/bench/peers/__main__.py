"""RingServe, vLLM on CPU and llama.cpp: the same checkpoint, the same client, one table.

    python -m scripts.bench.peers --install          installs what is missing (5 GB), then measures; 10 minutes
    python -m scripts.bench.peers --only ringserve,llama.cpp

The checkpoint is a random Llama, made here: what it answers is nonsense, what it costs is not. All compute in float32
with as many threads as there are CPUs. Peers are installed from the package index into environments of their own,
under .cache/peers. docs/peers.md says what the comparison is biased towards.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

from scripts.bench.peers.checkpoint import Size
from scripts.bench.peers.measure import Plan, compare
from scripts.bench.peers.peers import PEERS, SEQUENCES, choose
from scripts.bench.peers.report import table, tell
from scripts.lab.clock import machine_busy_seconds
from scripts.lab.errors import BenchError
from scripts.lab.machine import describe_machine
from scripts.lab.paths import ROOT
from scripts.lab.processes import exit_when_told

CACHE = ROOT / ".cache" / "peers"


def parse(arguments: list[str] | None = None) -> tuple[Plan, Path | None]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ", ".join(peer.name.lower() for peer in PEERS)
    parser.add_argument("--only", metavar="NAMES", help=f"some of {names}")
    parser.add_argument("--install", action="store_true", help="install peers that are missing, from the index")
    parser.add_argument("--cache", type=Path, default=CACHE, metavar="DIR", help="environments and checkpoint")
    parser.add_argument("--batches", default="1,8", help=f"requests at once, up to {SEQUENCES}")
    parser.add_argument("--rounds", type=int, default=3, help="of each batch with each server")
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--output-tokens", type=int, default=64)
    parser.add_argument("--layers", type=int, default=Size().num_hidden_layers, help="of the model; fewer: smaller")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results there")
    options = parser.parse_args(arguments)
    try:
        batches = tuple(int(word) for word in options.batches.split(","))
        peers = choose(options.only)
    except ValueError as error:
        parser.error(str(error))
    if not all(1 <= batch <= SEQUENCES for batch in batches):
        parser.error(f"--batches {options.batches}: numbers from 1 to {SEQUENCES} expected")
    if min(options.rounds, options.prompt_tokens, options.layers, options.threads) < 1 or options.output_tokens < 2:
        parser.error("--rounds, --prompt-tokens, --layers and --threads are at least 1, --output-tokens 2")
    return Plan(
        peers=peers,
        batches=batches,
        rounds=options.rounds,
        prompt_tokens=options.prompt_tokens,
        output_tokens=options.output_tokens,
        size=Size(num_hidden_layers=options.layers),
        cache=options.cache.absolute(),
        threads=options.threads,
        install=options.install,
    ), options.json


def main() -> int:
    plan, file = parse()
    exit_when_told()
    began, busy, own = time.monotonic(), machine_busy_seconds(), _own_s()
    try:
        rows, skipped = compare(plan, lambda text: print(text, file=sys.stderr, flush=True))
    except (BenchError, OSError) as error:
        print(f"compare_peers: {error}", file=sys.stderr)
        return 1
    others = machine_busy_seconds() - busy - (_own_s() - own)
    share = 100 * max(0.0, others) / (time.monotonic() - began)
    told = tell(rows, skipped, plan, describe_machine() | {"others_cpu_percent": share})
    print(table(told))
    if file:
        file.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return 0 if rows else 1


def _own_s() -> float:
    """CPU time of this process and of all that it started and that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


if __name__ == "__main__":
    sys.exit(main())

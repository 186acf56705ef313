"""RingServe, vLLM on CPU and llama.cpp: the same checkpoint, the same client, one table.

    python -m scripts.bench.peers --install          installs what is missing (5 GB), then measures; 10 minutes
    python -m scripts.bench.peers --only ringserve,llama.cpp

The checkpoint is a random Llama, made here: what it answers is nonsense, what it costs is not. All compute in float32
with as many threads as there are CPUs. Peers are installed from the package index into environments of their own,
under .cache/peers. docs/peers.md says what the comparison is biased towards.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from scripts.bench.peers.checkpoint import Size
from scripts.bench.peers.measure import Plan, compare, table, tell
from scripts.bench.peers.peers import PEERS, SEQUENCES, choose
from scripts.lab.arguments import count, counts, parser, say, whole, write_json
from scripts.lab.errors import BenchError
from scripts.lab.machine import describe_machine
from scripts.lab.others import Others
from scripts.lab.paths import ROOT
from scripts.lab.processes import exit_when_told

CACHE = ROOT / ".cache" / "peers"


def parse() -> tuple[Plan, Path | None]:
    line = parser(__doc__)
    add = line.add_argument
    names = ", ".join(peer.name.lower() for peer in PEERS)
    add("--only", dest="peers", type=choose, default=PEERS, metavar="NAMES", help=f"some of {names}")
    add("--install", action="store_true", help="install peers that are missing, from the index")
    add("--cache", type=Path, default=CACHE, metavar="DIR", help="environments and checkpoint")
    add("--batches", type=counts(SEQUENCES), default=(1, 8), help=f"requests at once, up to {SEQUENCES}; default 1,8")
    add("--rounds", type=count, default=3, help="of each batch with each server; default 3")
    add("--prompt-tokens", type=count, default=64, help="default 64")
    add("--output-tokens", type=whole(2), default=64, help="default 64")
    add("--layers", type=count, default=Size().num_hidden_layers, help="of the model; fewer: smaller")
    add("--threads", type=count, default=len(os.sched_getaffinity(0)), help="default: the number of CPUs")
    add("--json", type=Path, metavar="FILE", help="also write the results there")
    given = vars(line.parse_args())
    file, size = given.pop("json"), Size(num_hidden_layers=given.pop("layers"))
    return Plan(size=size, **given), file


def main() -> int:
    plan, file = parse()
    exit_when_told()
    others = Others()
    try:
        rows, skipped = compare(plan, say)
        told = tell(rows, skipped, plan, describe_machine() | {"others_cpu_percent": others.percent()})
        print(table(told))
        write_json(file, told)
    except (BenchError, OSError) as error:
        print(f"compare_peers: {error}", file=sys.stderr)
        return 1
    return 0 if rows else 1


if __name__ == "__main__":
    sys.exit(main())

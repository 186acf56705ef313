"""Several replicas behind one front, on emulated 910B4s: is each as fast as one alone, and what does it cost?

    python -m scripts.bench.replicas                                   all of it: some 20 minutes
    python -m scripts.bench.replicas --parts full,memory --seconds 20 --rounds 1
    python -m scripts.bench.replicas --parts routing --rate 0.7

`full`: clients with the lengths of llm-serving's task 1, which ask again at once, 128 for each replica; one replica
and several in turns. `task1`: its 1500 requests at once, beside the simulator of `make bench-routing`, which has no
host. `routing`: conversations that share system prompts, with each rule on a server of its own, in turns. `memory`:
processes but those that run a model, with a vocabulary of 128,000 tokens. The client runs on the same CPUs.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scripts.bench.memory import of_processes, use, write_memory_config
from scripts.bench.replicas.traffic import Talk, Throughput, all_at_once, converse, kept_full
from scripts.bench.routing import cases
from scripts.bench.routing.requests import Chats
from scripts.bench.serving.workload import recorded_lengths
from scripts.lab.arguments import count, parser, positive, say, words, write_json
from scripts.lab.errors import BenchError
from scripts.lab.goals import Goal
from scripts.lab.paths import ROOT
from scripts.lab.processes import exit_when_told
from scripts.lab.server import Server, launched
from scripts.lab.table import columns

PARTS = ("full", "task1", "routing", "memory")
RULES = ("cost", "round_robin", "least_requests")
STREAMS, FULL_SHARE, MEMORY_MB, BOUND_SHARE = 128, 3.9 / 4, 250.0, 1.1
_QUIET = ("pipeline.log.level=warning", "pipeline.runner.spin_us=0", "pipeline.max_connections=4096",
          "pipeline.max_queue=4096")  # fmt: skip
_ROWS = f"model_config.decode_batch_size={STREAMS}"
_CHATS = ("model_config.max_generate_length=16384", "model_config.seq_length=[16384]", "pipeline.token_budget=512",
          "pa_config.decode_seq_length=16384", "pa_config.num_blocks=4096")  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 where a goal was missed or nothing could be measured."""
    options, goals, report = _parser().parse_args(arguments), list[Goal](), dict[str, Any]()
    exit_when_told()
    try:
        for part in options.parts:
            report[part], found = _MEASURES[part](options)
            goals += found
    except BenchError as error:
        print(f"replicas: {error}", file=sys.stderr)
        return 1
    print(*(goal.text for goal in goals), sep="\n")
    write_json(options.json, report | {"goals": [goal.told() for goal in goals]})
    return int(not all(goal.met for goal in goals))


def _parser() -> argparse.ArgumentParser:
    made = parser(__doc__)
    made.add_argument("--parts", type=words("part", PARTS), default=PARTS, help=f"of {', '.join(PARTS)}")
    made.add_argument("--replicas", type=count, default=4, help="beside one alone")
    made.add_argument("--rounds", type=count, default=3)
    made.add_argument("--seconds", type=positive, default=60.0, help="that replicas are kept full, or chats begin in")
    made.add_argument("--rate", type=positive, default=0.7, help="of new chats for each replica, in 1/s")
    made.add_argument("--seed", type=count, default=11)
    made.add_argument("--json", type=Path)
    return made


@contextmanager
def _server(replicas: int, *overrides: str) -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="ringserve-bench-") as folder:
        sets = (*_QUIET, f"pipeline.replicas={replicas}", *overrides)
        with launched(ROOT / "configs" / "emulated_910b.yaml", sets, Path(folder) / "log") as server:
            yield server


# ---- parts: what was measured, and its goals -----------------------------------------------------------------------


def _full(options: argparse.Namespace) -> tuple[dict[str, Any], list[Goal]]:
    found: dict[int, list[Throughput]] = {1: [], options.replicas: []}
    for number in range(options.rounds):
        for replicas, runs in found.items():
            say(f"kept full, round {number + 1}, {replicas} replicas")
            with _server(replicas, _ROWS) as server:
                runs.append(kept_full(server, STREAMS * replicas, options.seconds, options.seed + number))
    medians = {n: statistics.median(run.tokens_per_s for run in runs) for n, runs in found.items()}
    client = {n: statistics.median(run.client_cpu for run in runs) for n, runs in found.items()}
    print(columns(("replicas", "tokens/s", "client, CPUs"), [[n, medians[n], client[n]] for n in found]))
    ratio = medians[options.replicas] / medians[1]
    goal = Goal(f"{options.replicas} replicas against one, kept full", ratio, FULL_SHARE * options.replicas, "times",
                at_least=True)  # fmt: skip
    return {str(n): [run.tokens_per_s for run in runs] for n, runs in found.items()}, [goal]


def _task1(options: argparse.Namespace) -> tuple[dict[str, Any], list[Goal]]:
    lengths, lines, goals = recorded_lengths("task1"), list[tuple[str, float, float]](), list[Goal]()
    for case in cases.task1():
        replicas = case.fleet.replicas
        bound, runs = cases.run(case, "cost", options.seed).seconds, []
        for number in range(options.rounds):
            say(f"task 1, round {number + 1}, {replicas} replicas")
            with _server(replicas, _ROWS) as server:
                runs.append(all_at_once(server, lengths, options.seed + number))
        took = statistics.median(runs)
        lines.append((str(replicas), took, bound))
        goals.append(
            Goal(f"task 1 with {replicas} replicas against the simulator", took / bound, BOUND_SHARE, "times")
        )
    print(columns(("replicas", "task 1, s", "simulator, s"), lines))
    return {str(replicas): {"s": took, "bound_s": bound} for replicas, took, bound in lines}, goals


def _routing(options: argparse.Namespace) -> tuple[dict[str, Any], list[Goal]]:
    load, found = Chats(options.rate, options.seconds), {rule: list[tuple[Talk, float]]() for rule in RULES}
    for number in range(options.rounds):
        for rule, runs in found.items():
            say(f"chats, round {number + 1}, {rule}")
            with _server(options.replicas, *_CHATS, f"pipeline.routing={rule}") as server:
                talk = converse(server, load, options.replicas, options.seed + number)
                runs.append((talk, 100 * server.metrics().total("prefix_cache_hits_total") / talk.prompt_tokens))

    def median(rule: str, share: float) -> float:
        return statistics.median(talk.percentile(share) for talk, _ in found[rule])

    lines = [
        [
            rule,
            median(rule, 50),
            median(rule, 99),
            statistics.median(hits for _, hits in runs),
            len(runs[0][0].first_ms),
        ]
        for rule, runs in found.items()
    ]
    print(columns(("chats, routed by", "TTFT p50, ms", "p99, ms", "hits, %", "requests"), lines))
    others = [rule for rule in RULES if rule != "cost"]
    goals = [
        Goal(f"p{share} of TTFT by cost against the better of the others",
             median("cost", share) / min(median(rule, share) for rule in others), 1.0, "times")
        for share in (50, 99)
    ]  # fmt: skip
    return {str(line[0]): line[1:] for line in lines}, goals


def _memory(options: argparse.Namespace) -> tuple[dict[str, Any], list[Goal]]:
    found: dict[int, float] = {}
    with tempfile.TemporaryDirectory(prefix="ringserve-bench-") as name:
        config = write_memory_config(Path(name), 128_000)
        for replicas in (1, options.replicas):
            say(f"memory, {replicas} replicas")
            with launched(config, [f"pipeline.replicas={replicas}"], Path(name) / "log") as server:
                for _ in range(8 * replicas):
                    use(server.base_url)
                found[replicas] = sum(of_processes(server).values())
    each = (found[options.replicas] - found[1]) / max(1, options.replicas - 1)
    print(columns(("replicas", "all but inference, MB"), [[str(n), size] for n, size in found.items()]))
    return {str(n): size for n, size in found.items()}, [
        Goal("a further replica's processes but inference", each, MEMORY_MB, "MB")
    ]


_MEASURES = {"full": _full, "task1": _task1, "routing": _routing, "memory": _memory}

if __name__ == "__main__":
    sys.exit(main())

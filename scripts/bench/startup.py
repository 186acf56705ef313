"""How long `ringserve DIR` takes until it is ready, with an empty compile cache and with a full one, in turns.

    python -m scripts.bench.startup [--model DIR] [--rounds 3] [--warm-up early|all] [--engine KIND] [--json FILE]

Without --model: a random Llama of 134 million parameters, made once. Times from the command on: `checks` until the
launcher has read everything, `imports` until inference reads its first weight, `weights` until it compiles its first
graph or, where an engine has none to compile, computes its first step, `ready` until the server is, `all` until every
bucket is compiled. `cpu` is the CPU time of all processes until ready: on a machine where others are at work, that is
the figure to compare.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from scripts.bench.peers.checkpoint import Size, make_checkpoint
from scripts.lab.arguments import count, parser, say, write_json
from scripts.lab.errors import ServerError
from scripts.lab.goals import Goal
from scripts.lab.paths import ROOT
from scripts.lab.processes import running
from scripts.lab.server import START_S, launch_command, read_metrics
from scripts.lab.table import columns

GOALS_S = {"cold": 20.0, "warm": 10.0}
MARKS = {
    "checks": "KV cache blocks of",
    "imports": "loading weights",
    "weights": "compiling|warming up",
    "ready": "listening on",
}
_LOOK_S = 0.02

Phases = dict[str, float]


def main() -> int:
    line = parser(__doc__)
    line.add_argument("--model", type=Path, metavar="DIR", help="a folder as it comes from the Hub")
    line.add_argument("--rounds", type=count, default=3, help="starts of each kind (default: 3)")
    line.add_argument("--warm-up", choices=("early", "all"), default="early")
    line.add_argument("--engine", default="auto", help="pipeline.runner.kind (default: auto)")
    line.add_argument("--json", type=Path, metavar="FILE", help="also write the results there")
    given = line.parse_args()
    model = given.model or make_checkpoint(ROOT / ".cache" / "startup-134m", Size())
    settings = (f"pipeline.runner.warm_up={given.warm_up}", f"pipeline.runner.kind={given.engine}")
    found = measure(model, given.rounds, settings)
    medians = {kind: {at: statistics.median(it[at] for it in each) for at in each[0]} for kind, each in found.items()}
    head = ["cache", *next(iter(medians.values()))]
    print(f"{model}, medians of {given.rounds}, seconds")
    print(columns(head, [[kind, *phases.values()] for kind, phases in medians.items()]))
    goals = [Goal(f"ready, {kind} cache", medians[kind]["ready"], most, "s") for kind, most in GOALS_S.items()]
    print(*(goal.text for goal in goals), sep="\n")
    write_json(given.json, {"starts": found, "medians": medians, "goals": [goal.told() for goal in goals]})
    return int(not all(goal.met for goal in goals))


def measure(model: Path, rounds: int, settings: Sequence[str]) -> dict[str, list[Phases]]:
    """Each round empties the cache; the second start of it finds what the first one has left."""
    found: dict[str, list[Phases]] = {"cold": [], "warm": []}
    for number in range(rounds):
        with tempfile.TemporaryDirectory() as name:
            for kind, each in found.items():
                each.append(start(model, Path(name), settings))
                say(f"{number + 1} {kind}: " + ", ".join(f"{at} {value:.1f}" for at, value in each[-1].items()))
    return found


def start(model: Path, folder: Path, settings: Sequence[str]) -> Phases:
    """One start, until all is compiled. Raises ServerError."""
    cache = f"pipeline.runner.compile_cache={folder / 'compile'}"
    overrides = ("serving_config.server_port=0", cache, *settings)
    watch = Watch(folder / "log")
    with running(launch_command(model, overrides), watch.log, watch.wait, timeout_s=START_S) as server:
        cpu_s = server.cpu_s()
        while not all_compiled(server.base_url):
            server.require_alive(_LOOK_S)
        return {**watch.seen, "all": time.monotonic() - watch.began, "cpu": cpu_s}


def all_compiled(base_url: str) -> bool:
    metrics = read_metrics(base_url)
    return metrics.total("buckets_compiled") == metrics.total("buckets")


class Watch:
    """When each of `MARKS` came into the log, in seconds from here on."""

    def __init__(self, log: Path) -> None:
        self.log, self.began = log, time.monotonic()
        self.seen: Phases = {}

    def wait(self, process: subprocess.Popen[bytes], deadline: float) -> str | None:
        while process.poll() is None and time.monotonic() < deadline:
            text = self.log.read_text(errors="replace")
            for mark, words in MARKS.items():
                if mark not in self.seen and re.search(words, text):
                    self.seen[mark] = time.monotonic() - self.began
            if "ready" in self.seen:
                if self.seen.keys() != MARKS.keys():
                    raise ServerError(f"its log lacks {MARKS.keys() - self.seen.keys()}")
                return text.split("listening on ")[1].split()[0]
            time.sleep(_LOOK_S)
        return None


if __name__ == "__main__":
    sys.exit(main())

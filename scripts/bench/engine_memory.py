"""Memory of a process that computes with the openvino engine, against its weights and KV cache.

    python -m scripts.bench.engine_memory                        a random model of 134 million parameters
    python -m scripts.bench.engine_memory FOLDER --types as-stored,int8

Each type of weights in a process of its own: most memory while it was loaded, and what it holds once it is warm and
has run steps of one row, of all rows and of a prompt. Of pages that are mapped from a file, which the system may take
back, RSS has those that were touched; `of it files` says how many. The base is the same engine with a model that is
hardly any: Python, OpenVINO, and kernels. The goal is 1.25 times weights and KV cache, beyond that base.
"""

from __future__ import annotations

import json
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from model.adapters import model_weights
from model.families import read_spec_file
from model.openvino import OpenVinoRunner, OpenVinoSettings
from model.openvino.loading import arrange
from model.openvino.requirements import BLOCK_SIZE
from model.openvino.settings import WeightDtype
from model.openvino.weight_file import size_of
from scripts.bench.model import PRESETS
from scripts.lab.arguments import count, named, parser, write_json
from scripts.lab.goals import Goal
from scripts.lab.steps import greedy_step, step_inputs
from scripts.lab.table import columns

MOST = 1.25
TYPES: dict[str, WeightDtype | None] = {"as-stored": None, "f32": "f32", "bf16": "bf16", "int8": "int8"}
TINY = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2,
        "intermediate_size": 64, "vocab_size": 256}  # fmt: skip
_PROMPT = 512  # as long as the KV cache, so that all of it is written
_MB = 1e6


@dataclass(frozen=True, slots=True)
class Found:
    """Bytes."""

    weights: int  # as they are stored for the engine
    kv_cache: int
    peak: int  # RSS
    resident: int
    files: int  # of the resident ones

    def over(self, base: Found) -> float:
        """What it takes beyond the base, in weights and KV caches."""
        return (self.resident - base.resident) / (self.weights + self.kv_cache)


def main() -> int:
    line = parser(__doc__)
    line.add_argument("folder", type=Path, nargs="?", help="a model's (default: random, of 134 million parameters)")
    line.add_argument("--types", type=named("type", {name: name for name in TYPES}), default=tuple(TYPES))
    line.add_argument("--rows", type=count, default=8, help="of the largest decode step (default: 8)")
    line.add_argument("--json", type=Path, metavar="FILE", help="also write the results there")
    given = line.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, tiny = given.folder, config_of(TINY, Path(name, "tiny"))
        if folder is None:
            folder = config_of(PRESETS["134m"], Path(name, "134m"))
        bases = {kind: measure(tiny, None, kind, given.rows, Path(name)) for kind in given.types}
        found = {kind: measure(folder, given.folder, kind, given.rows, Path(name)) for kind in given.types}
    head = ("MB", "weights", "KV cache", "peak", "resident", "of it files", "base", "ratio")
    print(columns(head, [_line(kind, it, bases[kind]) for kind, it in found.items()]))
    goals = [
        Goal(f"{kind}: beyond the base", it.over(bases[kind]), MOST, "x weights + KV") for kind, it in found.items()
    ]
    print(*(goal.text for goal in goals), sep="\n")
    write_json(given.json, {"goals": [goal.told() for goal in goals]})
    return int(not all(goal.met for goal in goals))


def _line(kind: str, it: Found, base: Found) -> list[object]:
    sizes = (it.weights, it.kv_cache, it.peak, it.resident, it.files, base.resident)
    return [kind, *(round(size / _MB) for size in sizes), round(it.over(base), 2)]


def config_of(sizes: dict[str, int], folder: Path) -> Path:
    """A folder with a `config.json` alone: weights are random then."""
    folder.mkdir()
    config = {"model_type": "llama", "max_position_embeddings": _PROMPT, **sizes}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def measure(config: Path, checkpoint: Path | None, kind: str, rows: int, scratch: Path) -> Found:
    """In a process of its own, which keeps its weights in a file below `scratch`."""
    settings = OpenVinoSettings(
        config,
        checkpoint,
        num_blocks=max(rows, _PROMPT // BLOCK_SIZE),
        max_rows=rows,
        token_budget=_PROMPT,
        max_length=_PROMPT,
        weight_dtype=TYPES[kind],
        compile_cache_dir=scratch / "cache",
    )
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(in_this_process, settings).result()


def in_this_process(settings: OpenVinoSettings) -> Found:
    runner = OpenVinoRunner(settings)
    kv_cache = runner.memory_need().kv_cache
    runner.load()
    runner.warm_up()
    peak = _status()["VmHWM"]
    rows = settings.max_rows
    for tokens, batch, context in ((1, 1, 1), (rows, rows, BLOCK_SIZE), (_PROMPT, 1, _PROMPT)):
        live = batch if tokens == batch else None
        bucket = next(it for it in runner.facts.buckets if it.tokens >= tokens and it.rows >= batch)
        step = greedy_step(runner, runner.bind(step_inputs(runner.facts, bucket, context, live)), bucket.samples)
        for _ in range(3):
            step()
    now = _status()
    return Found(_weights(settings), kv_cache, peak, now["VmRSS"], now["RssFile"])


def _weights(settings: OpenVinoSettings) -> int:
    weights = model_weights(read_spec_file(settings.config_path), settings.checkpoint_path)
    return size_of(arrange(weights, settings)[1])


def _status() -> dict[str, int]:
    """Bytes, of this process."""
    words = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    return {it[0].rstrip(":"): int(it[1]) * 1024 for it in words if it[-1] == "kB"}


if __name__ == "__main__":
    sys.exit(main())

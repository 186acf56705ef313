"""The first token behind a long system prompt that all requests share, with and without its token ids being kept.

    python -m scripts.bench.shared_prompt [--characters 48000] [--rounds 15]

Two servers with emulated devices that take next to no time, asked in turns: one keeps the ids of long texts
(`pipeline.tokenized_cache_bytes`), the other tokenizes each anew. Both have the prompt's KV blocks in their prefix
cache, so what differs is tokenizing.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from scripts.lab.arguments import count, parser, write_json
from scripts.lab.paths import ROOT
from scripts.lab.server import WARM, Server, launched
from scripts.lab.table import columns

_CONFIG = ROOT / "configs" / "emulated_910b.yaml"
_ROOM = 1 << 17  # tokens of the context
_SETTINGS = (
    WARM, f"model_config.seq_length=[{_ROOM}]", f"model_config.max_generate_length={_ROOM}",
    "pa_config.num_blocks=9000",
    f"pa_config.decode_seq_length={_ROOM}", "pipeline.token_budget=4096", "pipeline.log.level=warning",
    "pipeline.runner.cost_model={fixed_ms: 0.5}",
)  # fmt: skip
KINDS = {"kept": 16 << 20, "anew": 0}
_SENTENCE = "Rings in shared memory hand descriptors from one process to the next, and nothing is copied. "


def main() -> int:
    line = parser(__doc__)
    line.add_argument("--characters", type=count, default=48_000, help="of the system prompt (default: 48,000)")
    line.add_argument("--rounds", type=count, default=15)
    line.add_argument("--json", type=Path, metavar="FILE", help="also write the results there")
    given = line.parse_args()
    system = (_SENTENCE * (given.characters // len(_SENTENCE) + 1))[: given.characters]
    with contextlib.ExitStack() as stack:
        servers = {kind: stack.enter_context(_server(size)) for kind, size in KINDS.items()}
        client = stack.enter_context(httpx.Client(timeout=60))
        times: dict[str, list[float]] = {kind: [] for kind in KINDS}
        first = {kind: ask(client, server, system, "first") for kind, server in servers.items()}
        for number in range(given.rounds):
            for kind, server in servers.items():
                times[kind].append(ask(client, server, system, f"question {number}"))
    medians = {kind: statistics.median(each) for kind, each in times.items()}
    print(f"system prompt of {given.characters} characters, medians of {given.rounds}; devices are emulated")
    lines = [(kind, 1e3 * first[kind], 1e3 * medians[kind], 1e3 * min(times[kind])) for kind in KINDS]
    print(columns(("ids are", "first time, ms", "again, ms", "at best"), lines))
    write_json(given.json, {"first_s": first, "times_s": times, "medians_s": medians})
    return 0


@contextlib.contextmanager
def _server(capacity: int) -> Iterator[Server]:
    settings = (*_SETTINGS, f"pipeline.tokenized_cache_bytes={capacity}")
    with tempfile.TemporaryDirectory() as name, launched(_CONFIG, settings, Path(name) / "log") as server:
        yield server


def ask(client: httpx.Client, server: Server, system: str, question: str) -> float:
    """Seconds to the first token."""
    messages = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    body = {"messages": messages, "max_tokens": 2, "stream": True}
    begin = time.perf_counter()
    with client.stream("POST", f"{server.base_url}/v1/chat/completions", json=body) as answer:
        answer.raise_for_status()
        for text in answer.iter_lines():
            if '"content":"' in text and '"content":""' not in text:
                return time.perf_counter() - begin
    raise AssertionError("no token came")


if __name__ == "__main__":
    raise SystemExit(main())

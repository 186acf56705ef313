"""Memory of a server's processes but the one that runs the model, with a vocabulary as large as Llama 3's.

    python -m scripts.bench.memory [--vocab 128000] [--requests 8] [--json FILE]

PSS, which shares out what several processes map, on an emulated device that takes no memory of its own: once when it
is ready, and once after requests of every kind that need more of a vocabulary (log-probabilities, a chat, a grammar).
The tokenizer is made here, as crowded as a real one: 128,000 pieces and 256 special tokens, 280,000 merges.
"""

from __future__ import annotations

import base64
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx

from model.tokenizer.byte_level import from_tiktoken
from model.tokenizer.settings import read_settings
from scripts.lab.arguments import count, parser, write_json
from scripts.lab.goals import Goal
from scripts.lab.server import Server, launched
from scripts.lab.table import columns
from scripts.lab.vocabulary import frequent

GOAL_MB = 450
SPECIAL, MERGES = 256, 280_000
_CHAT = "{{ bos_token }}{% for m in messages %}{{ m.role }}<|end_header_id|>{{ m.content }}<|eot_id|>{% endfor %}"
_CONFIG = """
model_config: {{model_name: memory, vocab_size: {vocab}, max_generate_length: 2048, decode_batch_size: 16}}
pa_config: {{num_blocks: 2048, block_size: 16}}
tokenizer: {{vocab_file: {folder}}}
pipeline:
  runner: {{kind: emulated, name: device, cost_model: {{fixed_ms: 1.0}}}}
"""


def main() -> int:
    line = parser(__doc__)
    line.add_argument("--vocab", type=count, default=128_000, help="pieces (default: 128,000)")
    line.add_argument("--requests", type=count, default=8, help="of each kind (default: 8)")
    line.add_argument("--json", type=Path, metavar="FILE", help="also write the results there")
    given = line.parse_args()
    with tempfile.TemporaryDirectory() as name:
        found = measure(Path(name), given.vocab, given.requests)
    print(f"PSS in MB, {given.vocab} + {SPECIAL} tokens")
    processes = [*found["used"]]
    lines = [[process, *(found[when].get(process) for when in ("ready", "used"))] for process in processes]
    print(columns(("process", "ready", "used"), lines))
    goals = [
        Goal(f"all but inference, {when}", sum(found[when].values()), GOAL_MB, "MB") for when in ("ready", "used")
    ]
    print(*(goal.text for goal in goals), sep="\n")
    write_json(given.json, found | {"goals": [goal.told() for goal in goals]})
    return int(not all(goal.met for goal in goals))


def measure(folder: Path, vocab: int, requests: int) -> dict[str, dict[str, float]]:
    config = write_memory_config(folder, vocab)
    with launched(config, (), folder / "log") as server:
        ready = of_processes(server)
        for _ in range(requests):
            use(server.base_url)
        return {"ready": ready, "used": of_processes(server)}


def write_memory_config(folder: Path, vocab: int) -> Path:
    """Of a server with such a vocabulary, beside its tokenizer."""
    write_tokenizer(folder, vocab)
    config = folder / "server.yaml"
    config.write_text(_CONFIG.format(vocab=vocab + SPECIAL, folder=folder))
    return config


def write_tokenizer(folder: Path, size: int) -> None:
    ranks = folder / "tokenizer.model"
    pieces = [bytes([byte]) for byte in range(256)] + frequent(size - 256)
    ranks.write_text("".join(f"{base64.b64encode(piece).decode()} {at}\n" for at, piece in enumerate(pieces)))
    document = from_tiktoken(ranks, read_settings(folder, None))
    del document["model"]["merges"][MERGES:]
    ranks.unlink()
    (folder / "tokenizer.json").write_text(json.dumps(document))
    names = {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>", "chat_template": _CHAT}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))


def use(base_url: str) -> None:
    """What needs the vocabulary: log-probabilities, a chat, a grammar, tokens and text."""
    text = "The quick brown fox jumps over the lazy dog. " * 20
    chat: dict[str, Any] = {"model": "memory", "messages": [{"role": "user", "content": text}], "max_tokens": 32}
    schema = {"type": "json_schema", "json_schema": {"name": "any", "schema": {"type": "object"}}}
    with httpx.Client(base_url=base_url, timeout=120) as client:
        for path, body in (
            ("/v1/completions", {"model": "memory", "prompt": text, "max_tokens": 32, "logprobs": 5}),
            ("/v1/chat/completions", {**chat, "logprobs": True, "top_logprobs": 5}),
            ("/v1/chat/completions", {**chat, "response_format": schema}),
            ("/tokenize", {"model": "memory", "prompt": text}),
        ):
            client.post(path, json=body).raise_for_status()


def of_processes(server: Server) -> dict[str, float]:
    """MB by process."""
    sizes = server.memory().by_process
    return {name: size / 1e6 for name, size in sizes.items() if not name.startswith("rs-inference")}


if __name__ == "__main__":
    sys.exit(main())

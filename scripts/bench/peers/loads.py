"""What a server is asked in each round, and the figures that come of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scripts.bench.serving.options import parse
from scripts.bench.serving.servers import ask_json, first_model
from scripts.bench.serving.session import run_session
from scripts.lab.errors import BenchError

TTFT = "ttft"
FIGURES = {"tokens_per_s": "output_throughput", "itl_p50_ms": "median_itl_ms", "itl_p99_ms": "p99_itl_ms"}
_PROMPT = (1, 54, 90, 406, 330, 31)


@dataclass(frozen=True, slots=True)
class Load:
    """Requests of one length of prompt and answer, as token ids."""

    name: str
    streams: int  # under way at once
    requests: int
    prompt_tokens: int
    output_tokens: int


def loads(streams: Sequence[int], waves: int, prompt: int, output: int, ttft: int, ttft_requests: int) -> list[Load]:
    """`waves`: as many requests one after the other for each stream; with one stream at least two."""
    short = [Load(str(n), n, max(n * waves, 2), prompt, output) for n in streams]
    return [*short, Load(TTFT, 1, ttft_requests, ttft, 2)]


def warm_up(base: str, checkpoint: Path, every: Sequence[Load]) -> None:
    """All shapes once. Raises BenchError."""
    for load in every:
        put(base, checkpoint, replace(load, requests=load.streams, output_tokens=4))


def put(base: str, checkpoint: Path, load: Load) -> dict[str, float]:
    """Raises BenchError for an answer that failed or is shorter than asked for."""
    words = ["--base-url", base, "--backend", "openai", "--tokenizer", str(checkpoint), "--prompt-ids"]
    words += ["--ignore-eos", "--disable-tqdm", "--max-concurrency", str(load.streams)]
    words += ["--num-prompts", str(load.requests), "--random-input-len", str(load.prompt_tokens)]
    result = run_session(parse(None, [*words, "--random-output-len", str(load.output_tokens)]))
    failed = [answer.error for answer in result.answers if not answer.success]
    if failed:
        raise BenchError(f"{len(failed)} requests failed; the first: {failed[0]}")
    if (tokens := result.metrics.total_output_tokens) != load.requests * load.output_tokens:
        raise BenchError(f"{tokens} tokens came back, which is not what was asked for")
    return figures(load, result.told)


def figures(load: Load, told: dict[str, Any]) -> dict[str, float]:
    if load.name == TTFT:
        return {"ttft_ms": told["median_ttft_ms"]}
    return {name: told[theirs] for name, theirs in FIGURES.items()}


def answers(base: str) -> bool:
    """Whether a token comes back: the same question for all, whatever their /health means."""
    try:
        first_text(base, tokens=1)
    except (BenchError, OSError, ValueError, KeyError):
        return False
    return True


def first_text(base: str, tokens: int = 16) -> str:
    """The greedy answer to a fixed prompt: servers of the same model agree on it, but for rounding."""
    body = {"model": first_model(base, {}), "prompt": _PROMPT, "max_tokens": tokens}
    answer = ask_json(f"{base}/v1/completions", {}, body | {"temperature": 0, "ignore_eos": True})
    return str(answer["choices"][0]["text"])

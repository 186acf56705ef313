"""What is asked for (recorded lengths, random lengths, or prompts of the user's), and when."""

from __future__ import annotations

import argparse
import csv
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scripts.bench.serving.apis import Prompt
from scripts.lab.errors import BenchError
from scripts.lab.paths import ROOT

DATA = ROOT / "scripts" / "train" / "data"
RECORDED = ("task1", "task2")
_RANDOM_PROMPTS = 1000
Lengths = tuple[int, int]
"""Tokens of the prompt, special ones included, and of the answer."""
Encode = Callable[[str], list[int]]
"""Token ids of a text as the server makes them, special tokens included."""


@dataclass(frozen=True, slots=True)
class Request:
    prompt: Prompt
    prompt_tokens: int | None  # None: not known before the server says it
    output_tokens: int


def make_workload(options: argparse.Namespace, encoder: Callable[[], Encode]) -> list[Request]:
    """`encoder` is called for the tokenizer only where prompts are made. Raises BenchError."""
    rng = np.random.default_rng([options.seed, 1])
    if options.dataset_name == "custom":
        return read_custom(options.dataset_path, options.random_output_len)[: options.num_prompts]
    if options.dataset_name in RECORDED:
        lengths = recorded_lengths(options.dataset_name)[: options.num_prompts]
    else:
        means = (options.random_input_len, options.random_output_len)
        lengths = random_lengths(options.num_prompts or _RANDOM_PROMPTS, *means, options.random_range_ratio, rng)
    return make_requests(lengths, PromptMaker(encoder(), rng), as_ids=options.prompt_ids)


# ---- lengths -----------------------------------------------------------------------------------------------------


def read_lengths(file: Path) -> list[Lengths]:
    """A CSV file with the columns prompt_tokens and output_tokens. Raises BenchError."""
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        lengths = [(int(row["prompt_tokens"]), int(row["output_tokens"])) for row in rows]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise BenchError(f"{file} holds no lengths (columns prompt_tokens and output_tokens): {error}") from error
    for number, (prompt, output) in enumerate(lengths, 2):
        if prompt < 1 or output < 1:
            raise BenchError(f"{file}, line {number}: lengths are {prompt} and {output}, expected at least 1")
    return lengths


def recorded_lengths(name: str) -> list[Lengths]:
    """Of llm-serving's load: "task1" (1500 requests) or "task2" (500)."""
    return read_lengths(DATA / f"{name}_lengths.csv")


def random_lengths(
    count: int, prompt_tokens: int, output_tokens: int, range_ratio: float, rng: np.random.Generator
) -> list[Lengths]:
    """Uniform within ``mean * (1 ± range_ratio)``, ends included, at least 1, as in ``vllm bench serve``."""

    def draw(mean: int) -> list[int]:
        low, high = math.floor(mean * (1 - range_ratio)), math.ceil(mean * (1 + range_ratio))
        return [int(length) for length in rng.integers(max(low, 1), max(high, 1), size=count, endpoint=True)]

    return list(zip(draw(prompt_tokens), draw(output_tokens), strict=True))


# ---- prompts of the user ------------------------------------------------------------------------------------------


def read_custom(file: Path, default_tokens: int) -> list[Request]:
    """A JSON list, or one JSON value per line. Each is a text, or an object with "prompt" (a text or token ids) and
    perhaps "output_tokens" (or "max_tokens"). Raises BenchError that names the place."""
    try:
        text = file.read_text(encoding="utf-8")
        is_list = text.lstrip().startswith("[")
        entries = json.loads(text) if is_list else [json.loads(line) for line in text.splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise BenchError(f"{file} can't be read as JSON or JSON lines: {error}") from error
    if not entries:
        raise BenchError(f"{file} holds no prompts")
    return [_custom(entry, f"{file}, entry {number}", default_tokens) for number, entry in enumerate(entries, 1)]


def _custom(entry: Any, where: str, default_tokens: int) -> Request:
    values = {"prompt": entry} if isinstance(entry, str) else entry
    if not isinstance(values, dict) or not _is_prompt(values.get("prompt")):
        raise BenchError(f'{where}: expected a text or an object with "prompt", a text or a list of token ids')
    tokens = values.get("output_tokens", values.get("max_tokens", default_tokens))
    if not isinstance(tokens, int) or isinstance(tokens, bool) or tokens < 1:
        raise BenchError(f"{where}: output_tokens is {tokens!r}, expected a whole number of at least 1")
    prompt: Prompt = values["prompt"]
    return Request(prompt, None if isinstance(prompt, str) else len(prompt), tokens)


def _is_prompt(value: Any) -> bool:
    if isinstance(value, str):
        return True
    return isinstance(value, list) and bool(value) and all(type(token) is int and token >= 0 for token in value)


# ---- prompts of an exact number of tokens, under whichever tokenizer the server has --------------------------------

_TRIES = 200
_WORDS = (  # noqa: SIM905 - a list of 150 words would be a page long
    "a about after again all along also another around as ask at back because before begin between block both bring "
    "buffer but by cache call carry change clear come copy count data device do down each early empty end even every "
    "fast few find first follow for from full give go good great group hand have head here high hold how if in into "
    "it keep kind know large last late lead leave length let line list little load long look low make many may "
    "memory model more most move much must name near need never new next no not now number of off old on once one "
    "only open or order other out over own part pass place plan point put queue read reach ready rest right ring row "
    "run same say second see send set share short show side slot small so some start state step still stop such take "
    "tell than that the then there they this time to token too turn two under until up use wait way we what when "
    "where which while who why will with word work world would write year yes you"
).split()


class PromptMaker:
    """Random words, a few more or less until the count is right. The same generator gives the same prompts."""

    def __init__(self, encode: Encode, rng: np.random.Generator) -> None:
        self._encode, self._rng = encode, rng
        self._least = len(encode(""))

    def make(self, tokens: int) -> tuple[str, list[int]]:
        """A prompt and its ids. Raises BenchError where there is none of that length."""
        if tokens < self._least:
            raise BenchError(f"a prompt of {tokens} tokens can't be made: this tokenizer adds {self._least} itself")
        text, ids = "", self._encode("")
        for _ in range(_TRIES):
            if len(ids) == tokens:
                return text, ids
            text = self._longer(text, tokens - len(ids)) if len(ids) < tokens else text[: -(len(ids) - tokens)]
            ids = self._encode(text)
        raise BenchError(f"no text of exactly {tokens} tokens was found in {_TRIES} tries")

    def _longer(self, text: str, missing: int) -> str:
        """By as many words as there are tokens missing at most: a word is a token or more."""
        if missing == 1:
            return text + (" " if text else "") + "aiou"[self._rng.integers(4)]
        words = [_WORDS[i] for i in self._rng.integers(len(_WORDS), size=max(1, missing // 2))]
        return " ".join([text, *words] if text else words)


def make_requests(lengths: list[Lengths], maker: PromptMaker, *, as_ids: bool) -> list[Request]:
    """Requests of these lengths, in this order."""
    requests = []
    for prompt_tokens, output_tokens in lengths:
        text, ids = maker.make(prompt_tokens)
        requests.append(Request(ids if as_ids else text, prompt_tokens, output_tokens))
    return requests


# ---- when requests start -------------------------------------------------------------------------------------------


def arrival_times_s(
    count: int, rate: float, burstiness: float, rng: np.random.Generator, *, normalized: bool = True
) -> NDArray[np.float64]:
    """`[count]` seconds after the beginning, as ``vllm bench serve`` has them.

    Intervals are gamma distributed with mean ``1 / rate`` and shape `burstiness`: 1 is a Poisson process, less is
    burstier, infinity is a metronome. A rate of infinity starts all at once. `normalized` stretches the intervals so
    that the last request starts at exactly ``count / rate``, which makes seeds comparable; vLLM does so.
    """
    if math.isinf(rate):
        return np.zeros(count)
    if math.isinf(burstiness):
        intervals = np.full(count, 1.0 / rate)
    else:
        intervals = rng.gamma(shape=burstiness, scale=1.0 / (rate * burstiness), size=count)
    times: NDArray[np.float64] = np.cumsum(intervals)
    return times * (count / rate / times[-1]) if normalized and count else times

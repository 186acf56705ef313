"""What is asked for: recorded lengths, random lengths, or prompts of the user's."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scripts.bench.serving.apis import Prompt
from scripts.lab.errors import BenchError
from scripts.lab.paths import ROOT

DATA = ROOT / "scripts" / "train" / "data"
RECORDED = ("task1", "task2")
Lengths = tuple[int, int]
"""Tokens of the prompt, special ones included, and of the answer."""


@dataclass(frozen=True, slots=True)
class Request:
    prompt: Prompt
    prompt_tokens: int | None  # None: not known before the server says it
    output_tokens: int


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


def read_custom(file: Path, default_tokens: int) -> list[Request]:
    """A JSON list, or one JSON value per line. Each is a text, or an object with "prompt" (a text or token ids) and
    perhaps "output_tokens" (or "max_tokens"). Raises BenchError that names the place."""
    try:
        text = file.read_text(encoding="utf-8")
        entries = json.loads(text) if text.lstrip().startswith("[") else _json_lines(text)
    except (OSError, ValueError) as error:
        raise BenchError(f"{file} can't be read as JSON or JSON lines: {error}") from error
    if not entries:
        raise BenchError(f"{file} holds no prompts")
    return [_custom(entry, f"{file}, entry {number}", default_tokens) for number, entry in enumerate(entries, 1)]


def _json_lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines() if line.strip()]


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

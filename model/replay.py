"""A runner whose texts are given: the engine computes every step, and the largest logit is moved to the next token of
the text that the sequence is a beginning of.

For measuring what depends on the text. A file has a line for each text: ``{"prompt": [ids], "answer": [ids]}``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model.errors import ConfigurationError
from model.runner import Best, Bucket, Float32, Int32, Progress, Runner, StepInputs

START = 8
"""No two prompts begin with the same so many tokens: by these a sequence is recognized."""
_LOOK = 8  # of its newest tokens that must be the text's, too

Texts = Mapping[bytes, Int32]
"""Prompts with their answers, by their first tokens."""


def read_texts(file: Path) -> Texts:
    """Raises ConfigurationError."""
    texts: dict[bytes, Int32] = {}
    try:
        lines = file.read_text().splitlines()
        for number, line in enumerate(lines, 1):
            record = json.loads(line)
            ids = np.array([*record["prompt"], *record["answer"]], np.int32)
            start = ids[:START].tobytes()
            if len(record["prompt"]) < START or start in texts:
                raise ConfigurationError(
                    f"{file.name}, line {number}: no prompt of its own of {START} tokens or more"
                )
            texts[start] = ids
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"{file.name} holds no texts to be replayed: {error}") from error
    return texts


@dataclass(frozen=True, slots=True)
class Binding:
    inner: Any
    inputs: StepInputs


class ReplayRunner(Runner):
    """Around another runner. What is in no text is answered as that one does."""

    def __init__(self, inner: Runner, texts: Texts) -> None:
        self._inner, self._texts = inner, texts
        self.facts = inner.facts
        self._held = np.zeros(self.facts.num_blocks * self.facts.block_size, np.int32)  # token of each KV slot
        self._inputs: StepInputs | None = None

    @property
    def compiles(self) -> bool:
        return self._inner.compiles

    @property
    def deterministic(self) -> bool:
        return self._inner.deterministic

    def load(self, progress: Progress | None = None) -> None:
        self._inner.load(progress)

    def warm_up(self, progress: Progress | None = None, buckets: Sequence[Bucket] | None = None) -> None:
        self._inner.warm_up(progress, buckets)

    def compile(self, bucket: Bucket) -> None:
        self._inner.compile(bucket)

    def bind(self, inputs: StepInputs) -> Binding:
        return Binding(self._inner.bind(inputs), inputs)

    def launch(self, binding: Binding) -> None:
        self._inner.launch(binding.inner)
        self._inputs = inputs = binding.inputs
        real = inputs.slot_mapping >= 0
        self._held[inputs.slot_mapping[real]] = inputs.input_ids[real]

    def fetch(self, rows: Int32, logits: Float32) -> None:
        self._inner.fetch(rows, logits)
        for at, sample in enumerate(rows.tolist()):
            token, best = self._next(sample), int(np.argmax(logits[at]))
            if token >= 0:
                logits[at, token], logits[at, best] = logits[at, best], logits[at, token]

    def fetch_best(self, best: Best, targets: Int32 | None = None) -> None:
        """The other candidates' logits are those of the engine."""
        self._inner.fetch_best(best, targets)
        for sample, ids in enumerate(best.ids):
            if (token := self._next(sample)) >= 0:
                ids[ids == token] = ids[0]
                ids[0] = token

    def abandon(self) -> None:
        self._inner.abandon()

    def close(self) -> None:
        self._inner.close()

    def _next(self, sample: int) -> int:
        """The text's token behind this sampled position; -1: it is in no text."""
        inputs = self._inputs
        assert inputs is not None
        at = int(inputs.sample_index[sample])
        position = int(inputs.positions[at])
        row = int(np.searchsorted(np.cumsum(inputs.q_seq_lens), at, side="right"))
        table = inputs.block_tables[row]
        text = self._texts.get(self._tokens(table, 0, START).tobytes()) if position + 1 >= START else None
        if text is None or position + 1 >= len(text):
            return -1
        first = position + 1 - _LOOK
        newest = self._tokens(table, first, position + 1)
        return int(text[position + 1]) if np.array_equal(newest, text[first : position + 1]) else -1

    def _tokens(self, table: Int32, start: int, stop: int) -> Int32:
        block, offset = np.divmod(np.arange(start, stop), self.facts.block_size)
        tokens: Int32 = self._held[table[block] * self.facts.block_size + offset]
        return tokens

"""Logits of golden prompts by one engine: ``python -m pipeline.doctor.golden CONFIGURATION ASKED RESULT``.

In a process of its own, since an engine has its process to itself. Prompts are computed one after the other, in
pieces; the answers' tokens together, one of each prompt per step, as decode rows.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model.errors import ModelError
from model.layout import first_buckets, padding, smallest_bucket
from model.runner import Bucket, Float32, Runner
from pipeline.config import load_configuration
from pipeline.runtime.engines import make_runner

_TABLE = 1 << 20  # past all blocks: entries behind the context must not be looked at


@dataclass(slots=True)
class Placed:
    """A prompt's tokens and the KV blocks that it may fill. `length`: tokens that are computed."""

    tokens: list[int]
    blocks: list[int]
    length: int = 0


class Golden:
    """Runs whole sequences through an engine that is loaded."""

    def __init__(self, runner: Runner) -> None:
        self._runner, self._facts = runner, runner.facts
        self._buckets: Sequence[Bucket] = first_buckets(runner.facts.buckets)
        self._piece = max(bucket.tokens for bucket in self._buckets)

    @property
    def buckets(self) -> Sequence[Bucket]:
        """Those that have to be compiled."""
        return self._buckets

    def run(self, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]] | None, tokens: int) -> Float32:
        """Logits ``[tokens, prompts, vocab]`` behind each prompt and all but the last of the answer's ``tokens``;
        without answers, these are the argmax of what comes before."""
        sequences = self._place(prompts, tokens)
        found = np.empty((tokens, len(prompts), self._facts.vocab_size), np.float32)
        for number, sequence in enumerate(sequences):
            while sequence.length < len(sequence.tokens):
                found[0, number] = self._step([sequence], self._piece)[0]
        for step in range(1, tokens):
            for number, sequence in enumerate(sequences):
                chosen = found[step - 1, number].argmax() if answers is None else answers[number][step - 1]
                sequence.tokens.append(int(chosen))
            found[step] = self._step(sequences, 1)
        return found

    def _place(self, prompts: Sequence[Sequence[int]], tokens: int) -> list[Placed]:
        size, first, placed = self._facts.block_size, 0, []
        for prompt in prompts:
            count = -(-(len(prompt) + tokens) // size)
            placed.append(Placed(list(prompt), list(range(first, first + count))))
            first += count
        if first > self._facts.num_blocks:
            raise ModelError(f"{first} KV blocks are needed for the golden prompts; pa_config.num_blocks is lower")
        return placed

    def _step(self, sequences: Sequence[Placed], most: int) -> Float32:
        """The logits behind the last token that is computed of each, ``[sequences, vocab]``."""
        pieces = [sequence.tokens[sequence.length : sequence.length + most] for sequence in sequences]
        bucket = smallest_bucket(self._buckets, sum(map(len, pieces)), len(pieces), len(pieces))
        assert bucket is not None  # `first_buckets` has one for every kind of step
        inputs, at, size = padding(bucket, self._facts), 0, self._facts.block_size
        inputs.block_tables[:] = _TABLE
        for row, (sequence, piece) in enumerate(zip(sequences, pieces, strict=True)):
            here, positions = slice(at, at + len(piece)), np.arange(sequence.length, sequence.length + len(piece))
            inputs.input_ids[here], inputs.positions[here] = piece, positions
            inputs.slot_mapping[here] = np.array(sequence.blocks)[positions // size] * size + positions % size
            sequence.length += len(piece)
            inputs.valid_length[row], inputs.q_seq_lens[row] = sequence.length, len(piece)
            inputs.block_tables[row, : len(sequence.blocks)] = sequence.blocks
            at += len(piece)
            inputs.sample_index[row] = at - 1
        logits = np.empty((len(pieces), self._facts.vocab_size), np.float32)
        self._runner.step(self._runner.bind(inputs), logits)
        return logits


def main(configuration: str, asked: str, result: str) -> int:
    """Exit status 1: the reason is in the file that was to be the result."""
    wanted = json.loads(Path(asked).read_text())
    try:
        runner = make_runner(load_configuration(configuration))
        golden = Golden(runner)
        runner.load()
        runner.warm_up(buckets=golden.buckets)
        np.save(result, golden.run(wanted["prompts"], wanted["answers"], wanted["tokens"]))
    except (ModelError, OSError, RuntimeError, ValueError) as error:
        Path(result).write_text(str(error))
        return 1
    runner.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

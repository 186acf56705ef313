"""A little server around any runner: sequences, blocks, and steps of any mix."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from model.runner import Bucket, Runner, StepInputs

GARBAGE_BLOCK = 10**6  # past the context: must not be looked at

Chunks = dict[str, list[int]]


class Driver:
    """Runs chunks of sequences through a runner, over block tables that the test may change."""

    def __init__(self, runner: Runner, seed: int = 0) -> None:
        self.runner, self.facts = runner, runner.facts
        self.rng = np.random.default_rng(seed)
        self.free = self.rng.permutation(self.facts.num_blocks).tolist()
        self.tables: dict[str, list[int]] = {}
        self.lengths: dict[str, int] = {}
        self.adapters: dict[str, int] = {}  # of the sequences that have one
        self.prompts: dict[str, int] = {}  # how many tokens are of the prompt, unless all are

    def inputs(self, chunks: Chunks, bucket: Bucket, samples: Sequence[int] | None = None) -> StepInputs:
        """``samples``: indices into the chunks' tokens, one behind the other; None: the last of each chunk."""
        size, facts = self.facts.block_size, self.facts
        x = StepInputs(
            input_ids=np.zeros(bucket.tokens, np.int32),
            positions=np.zeros(bucket.tokens, np.int32),
            slot_mapping=np.full(bucket.tokens, -1, np.int32),
            valid_length=np.zeros(bucket.rows, np.int32),
            q_seq_lens=np.zeros(bucket.rows, np.int32),
            sample_index=np.zeros(bucket.samples, np.int32),
            adapter=np.zeros(bucket.rows, np.int32),
            block_tables=np.full((bucket.rows, facts.block_table_width), GARBAGE_BLOCK, np.int32),
            sampled=np.zeros(bucket.rows, np.int32),
        )
        at, ends = 0, []
        for row, (name, tokens) in enumerate(chunks.items()):
            table, start = self.tables.setdefault(name, []), self.lengths.get(name, 0)
            while len(table) * size < start + len(tokens):
                table.append(self.free.pop())
            positions = np.arange(start, start + len(tokens))
            here = slice(at, at + len(tokens))
            x.input_ids[here], x.positions[here] = tokens, positions
            x.slot_mapping[here] = np.array(table)[positions // size] * size + positions % size
            x.valid_length[row], x.q_seq_lens[row] = start + len(tokens), len(tokens)
            x.adapter[row] = self.adapters.get(name, 0)
            x.sampled[row] = start >= self.prompts.get(name, self.facts.max_length)
            x.block_tables[row, : len(table)] = table
            at += len(tokens)
            ends.append(at - 1)
            self.lengths[name] = start + len(tokens)
        chosen = ends if samples is None else samples
        x.sample_index[: len(chosen)] = chosen
        return x

    def launch(
        self,
        chunks: Chunks,
        samples: Sequence[int] | None = None,
        *,
        spoil: Callable[[StepInputs], object] | None = None,
        bucket: Bucket | None = None,
    ) -> None:
        """Launch a step; ``spoil`` may change the inputs before it."""
        needed = sum(map(len, chunks.values()))
        sampled = len(chunks) if samples is None else len(samples)
        bucket = bucket or next(
            b for b in self.facts.buckets if b.tokens >= needed and b.rows >= len(chunks) and b.samples >= sampled
        )
        x = self.inputs(chunks, bucket, samples)
        if spoil is not None:
            spoil(x)
        self.runner.launch(self.runner.bind(x))

    def fetch(self, rows: Sequence[int] | range) -> np.ndarray:
        """Logits ``[n, vocab]`` of these sampled positions."""
        logits = self.rng.normal(size=(len(rows), self.facts.vocab_size)).astype(np.float32)  # any old content
        self.runner.fetch(np.array(rows, np.int32), logits)
        return logits

    def step(self, chunks: Chunks, samples: Sequence[int] | None = None, **options) -> np.ndarray:
        """Launch a step, and fetch the logits ``[n, vocab]`` of all that is sampled."""
        self.launch(chunks, samples, **options)
        return self.fetch(range(len(chunks) if samples is None else len(samples)))

    def release(self, name: str) -> None:
        self.free[:0] = self.tables.pop(name)
        del self.lengths[name]

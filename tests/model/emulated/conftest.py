"""A little server around the emulated device: sequences, blocks, and steps of any mix."""

from __future__ import annotations

import numpy as np
import pytest

from model.emulated import CostModel, EmulatedRunner, EmulatedSettings
from model.runner import Bucket, StepInputs

BLOCK, BLOCKS, MAX_LENGTH = 4, 64, 48
BUCKETS = tuple(Bucket(tokens, rows) for tokens, rows in ((1, 1), (4, 4), (16, 4), (32, 4)))


def make_settings(**changes) -> EmulatedSettings:
    defaults = {
        "cost": CostModel(0.0),
        "vocab_size": 500,
        "max_length": MAX_LENGTH,
        "num_blocks": BLOCKS,
        "block_size": BLOCK,
        "buckets": BUCKETS,
    }
    return EmulatedSettings(**{**defaults, **changes})


class Driver:
    """Runs chunks of sequences through a runner, over block tables that the test chose."""

    def __init__(self, settings: EmulatedSettings, seed: int = 0) -> None:
        self.settings = settings
        self.runner = EmulatedRunner(settings)
        self.runner.load()
        self.runner.warm_up()
        self.rng = np.random.default_rng(seed)
        self.free = self.rng.permutation(BLOCKS).tolist()
        self.tables: dict[str, list[int]] = {}
        self.lengths: dict[str, int] = {}

    def inputs(self, chunks: dict[str, list[int]], bucket: Bucket) -> StepInputs:
        width = self.runner.facts.block_table_width
        x = StepInputs(
            input_ids=np.zeros(bucket.tokens, np.int32),
            positions=np.zeros(bucket.tokens, np.int32),
            slot_mapping=np.full(bucket.tokens, -1, np.int32),
            valid_length=np.zeros(bucket.rows, np.int32),
            q_seq_lens=np.zeros(bucket.rows, np.int32),
            sample_index=np.zeros(bucket.samples, np.int32),
            adapter=np.zeros(bucket.rows, np.int32),
            block_tables=np.full((bucket.rows, width), 10**6, np.int32),  # past the context: must not be looked at
        )
        at = 0
        for row, (name, tokens) in enumerate(chunks.items()):
            table, start = self.tables.setdefault(name, []), self.lengths.get(name, 0)
            while len(table) * BLOCK < start + len(tokens):
                table.append(self.free.pop())
            positions = np.arange(start, start + len(tokens))
            here = slice(at, at + len(tokens))
            x.input_ids[here], x.positions[here] = tokens, positions
            x.slot_mapping[here] = np.array(table)[positions // BLOCK] * BLOCK + positions % BLOCK
            x.valid_length[row], x.q_seq_lens[row] = start + len(tokens), len(tokens)
            at += len(tokens)
            x.sample_index[row] = at - 1
            x.block_tables[row, : len(table)] = table
            self.lengths[name] = start + len(tokens)
        return x

    def step(self, chunks: dict[str, list[int]], *, spoil=None, bucket: Bucket | None = None):
        """Logits ``[rows, vocab]`` behind each chunk of a step; ``spoil`` may change the inputs before it."""
        needed = sum(map(len, chunks.values()))
        bucket = bucket or next(b for b in BUCKETS if b.tokens >= needed and b.rows >= len(chunks))
        x = self.inputs(chunks, bucket)
        if spoil is not None:
            spoil(x)
        logits = self.rng.normal(size=(bucket.samples, self.settings.vocab_size)).astype(
            np.float32
        )  # any old content
        self.runner.step(self.runner.bind(x), logits)
        return logits[: len(chunks)]

    def preempt(self, name: str) -> None:
        self.free[:0] = self.tables.pop(name)
        del self.lengths[name]


@pytest.fixture(scope="session")
def settings():
    return make_settings


@pytest.fixture(scope="session")
def driver():
    return Driver

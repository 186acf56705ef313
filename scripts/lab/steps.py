"""Inputs of a model's step, made without a server."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from model.runner import Best, Bucket, Runner, RunnerFacts, StepInputs


def step_inputs(facts: RunnerFacts, bucket: Bucket, context: int, live: int | None = None) -> StepInputs:
    """Rows with `context` keys in scattered blocks; each row's share of the tokens is new. With `live`, only so many
    rows, with one new token each: the rest of the bucket is padding."""
    generator, size = np.random.default_rng(0), facts.block_size
    rows = bucket.rows if live is None else live
    tokens = bucket.tokens if live is None else live
    blocks = -(-context // size)
    tables = np.zeros((bucket.rows, facts.block_table_width), np.int32)
    tables[:rows, :blocks] = generator.permutation(facts.num_blocks)[: rows * blocks].reshape(rows, blocks)
    fresh = np.zeros(bucket.rows, np.int32)
    fresh[:rows] = tokens // rows
    fresh[: tokens % rows] += 1
    row = np.repeat(np.arange(bucket.rows), fresh)
    ends = np.cumsum(fresh)
    ids, positions, slots = np.zeros((3, bucket.tokens), np.int32)
    ids[:tokens] = generator.integers(0, facts.vocab_size, tokens)
    positions[:tokens] = np.arange(tokens) - (ends - fresh)[row] + context - fresh[row]
    slots[:] = -1
    slots[:tokens] = tables[row, positions[:tokens] // size] * size + positions[:tokens] % size
    valid, sampled = np.where(fresh, context, 0), np.zeros(bucket.samples, np.int32)
    sampled[: bucket.rows] = np.where(fresh, ends - 1, 0)
    columns = (ids, positions, slots, valid, fresh, sampled, np.zeros(bucket.rows), tables)
    return StepInputs(*(np.ascontiguousarray(column, np.int32) for column in columns))


def greedy_step(runner: Runner, binding: object, samples: int) -> Callable[[], None]:
    """Runs a step and brings the argmax at each of its `samples` sampled positions."""
    best = Best(np.zeros((samples, 1), np.int32))
    return lambda: runner.step_best(binding, best)


def timed_ms(step: Callable[[], object], count: int, before: Callable[[], object] = lambda: None) -> list[float]:
    """Milliseconds of each of `count` steps, after one that is not counted; `before` comes before each."""
    step()
    times = []
    for _ in range(count):
        before()
        began = time.perf_counter_ns()
        step()
        times.append((time.perf_counter_ns() - began) / 1e6)
    return times

"""A request that there is not goes the way of a real one, and leaves nothing behind."""

from __future__ import annotations

import pytest

from pipeline.preprocess import rehearsal
from pipeline.preprocess.blocks import BlockManager
from pipeline.preprocess.prompts import PromptReader
from pipeline.preprocess.rehearsal import Rehearsal
from pipeline.wire.step import Head, Shapes
from tests.pipeline.preprocess.conftest import LIMITS


@pytest.mark.parametrize("block_size", [1, 16, 512])
@pytest.mark.parametrize("budget", [8, 1024])
def test_a_step_is_planned_and_forgotten(tokenizer, block_size, budget):
    blocks = BlockManager(400, block_size)
    shapes = Shapes(token_budget=budget, max_rows=4, block_table_width=400, vocab_size=300)
    rehearsed = Rehearsal(blocks, shapes)
    for _ in range(3):
        rehearsed._views.head[:] = 0
        rehearsed.run(PromptReader(tokenizer, LIMITS, blocks), lambda: False)
        head = rehearsed._views.head
        assert (head[Head.STEP], head[Head.ROWS], head[Head.CHUNK_TOKENS] > 0) == (1, 1, True)
        assert nothing_is_left(rehearsed)
    assert (blocks.used, blocks.cached) == (0, 0)


@pytest.mark.parametrize("looks", range(4))
def test_it_ends_wherever_the_real_one_comes(tokenizer, looks):
    blocks = BlockManager(400, 16)
    rehearsed = Rehearsal(blocks, Shapes(token_budget=64, max_rows=4, block_table_width=400, vocab_size=300))
    late = iter([False] * looks + [True] * 4)
    for _ in range(2):
        rehearsed.run(PromptReader(tokenizer, LIMITS, blocks), lambda: next(late))
        assert nothing_is_left(rehearsed)


def nothing_is_left(rehearsed):
    scheduler = rehearsed._scheduler
    return (scheduler.running, scheduler.blocks.used, scheduler.has_work, scheduler.admissions) == (0, 0, False, [])


def test_nothing_is_planned_once_the_real_one_is_there_or_where_limits_refuse_it(tokenizer, monkeypatch):
    def plan(*_):
        raise AssertionError

    monkeypatch.setattr(rehearsal.Rehearsal, "_plan", plan)
    blocks = BlockManager(400, 16)
    rehearsed = Rehearsal(blocks, Shapes(token_budget=8, max_rows=4, block_table_width=400, vocab_size=300))
    rehearsed.run(PromptReader(tokenizer, LIMITS, blocks), lambda: True)
    rehearsed.run(PromptReader(tokenizer, type(LIMITS)(8, 4, 1, frozenset()), blocks), lambda: False)

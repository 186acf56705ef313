"""A step as it is planned: what its slot gets, as rows come, go and grow, and what they want together."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.preprocess.adapters import Adapter
from pipeline.preprocess.plan import Chunk, DecodeColumns, Plan, Together
from pipeline.preprocess.sequence import NOTHING, Sequence, Wants
from pipeline.wire.step import Choice, Head, RowKind, Shapes, step_layout

BLOCK = 4
SHAPES = Shapes(token_budget=8, max_rows=3, block_table_width=4, vocab_size=9)


def sequence(row, computed, blocks):
    tokens = np.zeros(16, np.int32)
    made = Sequence(row, tokens, prompt=2, limit=16, known=computed + 1, computed=computed, row=row, epoch=row + 10)
    made.blocks = blocks
    return made


@pytest.fixture
def slots():
    layout = step_layout(SHAPES)
    return [layout.views(bytearray(layout.size)) for _ in range(2)]


@pytest.fixture
def columns():
    return DecodeColumns(SHAPES.max_rows, SHAPES.block_table_width, 2, BLOCK)


def test_each_row_has_its_adapter_wherever_it_moves(columns, slots):
    made = [sequence(row, 5, [7, 8]) for row in range(3)]
    for number, one in enumerate(made):
        one.adapter = Adapter(number, b"")
        columns.add(one)
    prompt = Sequence(4, np.zeros(16, np.int32), prompt=8, limit=16, known=8, blocks=[1, 2], adapter=Adapter(9, b""))
    columns.remove(made[0])
    Plan(columns, (Chunk(prompt, 4),)).write(slots[0], 0, 1, BLOCK)
    assert slots[0].rows[:2].tolist() == slots[0].adapter[:2].tolist() == [2, 1]
    assert slots[0].adapter[2] == 9


@pytest.mark.parametrize(
    ("computed", "known", "most", "expected"),
    [
        (0, 5, 9, 5),  # the whole prompt
        (0, 5, 4, 3),  # not all but one
        (3, 5, 1, 1),
        (0, 3, 2, 2),  # then one of two tokens is alone anyway
        (0, 9, 9, 5),  # of a prompt, and then of what was sampled
        (5, 9, 9, 4),
        (5, 9, 3, 3),
    ],
)
def test_a_chunk_is_of_one_kind_and_leaves_no_token_alone(computed, known, most, expected):
    one = Sequence(0, np.zeros(16, np.int32), prompt=5, limit=16, known=known, computed=computed)
    if known == 3:
        one.prompt = 3
    assert one.next_chunk(most) == expected


def test_a_chunk_says_whether_its_tokens_were_sampled(columns, slots):
    columns.add(sequence(2, 5, [7, 8]))
    prompt, answer = (Sequence(row, np.zeros(16, np.int32), prompt=4, limit=16, known=9) for row in (0, 1))
    prompt.blocks, answer.blocks, answer.computed = [1, 2], [3, 4], 4
    Plan(columns, (Chunk(prompt, 4), Chunk(answer, 3))).write(slots[0], 0, 1, BLOCK)
    assert slots[0].sampled[:3].tolist() == [1, 0, 1]


def test_a_step_has_a_token_of_each_row(columns, slots):
    columns.add(sequence(2, 5, [7, 8]))
    columns.add(sequence(0, 3, [3]))
    columns.write(slots[0], 0)
    views = slots[0]
    assert views.kinds[:2].tolist() == [RowKind.DECODE] * 2
    assert views.limits[:2].tolist() == [16, 16]
    assert views.most_drafts[:2].tolist() == views.wants_logits[:2].tolist() == views.adapter[:2].tolist() == [0, 0]
    assert views.rows[:2].tolist() == [2, 0]
    assert views.epochs[:2].tolist() == [12, 10]
    assert views.block_tables[0].tolist() == [7, 8, 0, 0]
    columns.advance()
    assert [(one.computed, one.pending) for one in columns.sequences] == [(6, 1), (4, 1)]
    assert columns.position[:2].tolist() == [6, 4]


def test_a_row_that_leaves_is_replaced_by_the_last_one(columns, slots):
    rows = [sequence(row, 5, [row + 1, row + 5]) for row in range(3)]
    for one in rows:
        columns.add(one)
    columns.write(slots[0], 0)
    columns.remove(rows[0])
    assert columns.sequences == [rows[2], rows[1]]
    columns.write(slots[0], 0)
    assert slots[0].rows[:2].tolist() == [2, 1]
    assert slots[0].block_tables[:2].tolist() == [[3, 7, 0, 0], [2, 6, 0, 0]]
    columns.remove(rows[1])
    assert (len(columns), columns.sequences) == (1, [rows[2]])


def test_another_block_reaches_every_slot(columns, slots):
    one = sequence(0, 8, [1, 2])
    columns.add(one)
    for slot in (0, 1):
        columns.write(slots[slot], slot)
    assert columns.lacking_blocks() == [0]
    one.blocks.append(6)
    columns.extend(0, 6)
    for slot in (0, 1):
        columns.write(slots[slot], slot)
        assert slots[slot].block_tables[0].tolist() == [1, 2, 6, 0]


def test_only_what_is_sampled_wants_anything(columns, slots):
    """A piece of a prompt that does not end it is waited for, and nothing is brought."""
    prompt = Sequence(1, np.zeros(16, np.int32), prompt=8, limit=16, known=8, blocks=[1, 2], row=0)
    for count, candidates in ((5, 0), (8, 1)):
        Plan(columns, (Chunk(prompt, count),)).write(slots[0], 0, 1, BLOCK)
        assert slots[0].head[Head.CANDIDATES] == candidates


def test_rows_together_want_what_each_wants():
    rows = Together()
    assert rows.all == NOTHING
    drawn, reported = Wants(Choice.DRAWN, logits=True), Wants(candidates=5, scores=True)
    for row in (Wants(), drawn, reported, reported):
        rows.add(row)
    assert rows.all == Wants(Choice.DRAWN, logits=True, candidates=5, scores=True)
    rows.remove(reported)
    assert rows.all.candidates == 5
    rows.remove(reported)
    rows.remove(drawn)
    assert rows.all == Wants()
    rows.remove(Wants())
    assert rows.all == NOTHING

"""How many drafts the rows of a step may carry."""

import numpy as np
import pytest

from pipeline.preprocess.blocks import BlockManager
from pipeline.preprocess.drafts import DraftLimits, DraftRoom
from pipeline.preprocess.scheduler import Scheduler
from pipeline.preprocess.sequence import ARGMAX, Sequence, Wants

BLOCK = 4
LIMITS = DraftLimits(most=7, max_rows=32, samples=32, beside_prompts=8, logit_rows=10)
DRAWN = Wants(logits=True)


@pytest.mark.parametrize(("rows", "most"), [(1, 7), (4, 7), (5, 3), (16, 3), (17, 1), (32, 1), (33, 0)])
def test_the_more_rows_the_fewer(rows, most):
    assert LIMITS.per_row(rows) == most
    assert DraftLimits().per_row(rows) == 0


def test_what_is_left_is_shared():
    room = DraftRoom(LIMITS, 64, 64, decoding=4, prompts=0, tokens=4, logit_rows=0)
    assert [room.offer(9, sharing, logits=False) for sharing in (1, 4, 28)] == [9, 7, 1]
    room.take(28, logits=False)
    assert room.offer(3, 1, logits=False) == 0


@pytest.mark.parametrize(
    ("prompts", "tokens", "logit_rows", "logits", "left"),
    [(0, 4, 0, False, 28), (2, 60, 0, False, 2), (0, 62, 0, False, 2), (0, 4, 8, True, 2), (0, 4, 12, True, 0)],
    ids=["positions", "beside prompts", "budget", "rows of logits", "more than there are"],
)
def test_what_is_left_of_a_step(prompts, tokens, logit_rows, logits, left):
    room = DraftRoom(LIMITS, 64, 64, decoding=4, prompts=prompts, tokens=tokens, logit_rows=logit_rows)
    assert room.offer(99, 1, logits=logits) == left


class Rows:
    """A scheduler whose sequences decode."""

    def __init__(self, *, blocks=64, limit=60, wants=(ARGMAX, ARGMAX), limits=LIMITS):
        self.blocks = BlockManager(blocks, BLOCK)
        self.scheduler = Scheduler(
            self.blocks, max_rows=8, token_budget=64, block_table_width=20, ring_slots=2, samples=32, drafts=limits
        )
        for request, want in enumerate(wants, 1):
            tokens = np.full(limit, request, np.int32)
            self.scheduler.submit(Sequence(request, tokens, 6, limit, known=6, arrival_ns=request, wants=want))
        self.step()
        self.rows = [(s.row, s.epoch) for s in self.scheduler._columns.sequences]

    @property
    def columns(self):
        return self.scheduler._columns

    def step(self):
        """Planned: drafts of each row."""
        self.scheduler.commit(self.scheduler.plan())
        return self.columns.most_drafts[: len(self.columns)].tolist()

    def done(self, *tokens, wish=7):
        for (row, epoch), count in zip(self.rows, tokens, strict=True):
            self.scheduler.on_tokens(row, epoch, [9] * count, finished=False, wish=wish)


def test_rows_that_wish_for_drafts_carry_some():
    rows = Rows()
    rows.done(1, 1, wish=0)
    assert rows.step() == [0, 0]
    assert rows.columns.drafts == 0
    rows.done(1, 1)
    assert rows.step() == [7, 7]
    assert rows.columns.drafts == 14
    rows.done(1, 1, wish=0)
    assert rows.step() == [0, 0]


def test_blocks_are_there_for_all_that_may_be_right():
    """Two steps under way, each with seven drafts, of which none or all are right."""
    rows = Rows()
    rows.done(1, 1)
    for taken in (8, 1, 8, 3):
        rows.step()
        rows.done(taken, 1)
        rows.step()
        sequence = rows.columns.sequences[0]
        assert len(sequence.blocks) * BLOCK > min(sequence.computed - 1 + sum(sequence.carried), sequence.limit - 2)
        assert rows.columns.position[0] == sequence.computed == sequence.known + sequence.pending - 1
        assert rows.columns.under_way[0] == sum(sequence.carried)
        assert rows.columns.block_tables[0, : len(sequence.blocks)].tolist() == sequence.blocks
        rows.done(8, 2)


def test_nobody_is_preempted_for_a_guess():
    rows = Rows(blocks=2 * 3 + 1)
    rows.done(1, 1)
    assert rows.step() == [7, 1]
    assert rows.scheduler.stats.preemptions == 0


def test_rows_whose_logits_are_wanted_share_the_room_for_these():
    rows = Rows(wants=(DRAWN, DRAWN, ARGMAX))
    rows.done(1, 1, 1)
    assert rows.step() == [3, 3, 7]


def test_a_row_near_its_limit_has_fewer():
    rows = Rows(limit=12)
    rows.done(1, 1)
    assert rows.step() == [4, 4]


def test_a_sequence_that_sits_out_is_where_it_was():
    rows = Rows()
    rows.done(1, 1)
    rows.step()
    (row, epoch), sequence = rows.rows[0], rows.columns.sequences[0]
    before = sequence.computed
    rows.scheduler.on_no_token(row, epoch)
    assert (sequence.computed, sequence.pending, sequence.carried) == (before - 1, 0, [])
    assert (rows.columns.position[0], rows.columns.under_way[0]) == (before - 1, 0)

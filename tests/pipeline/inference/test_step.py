"""The C between two steps of the device: the token board, a step's inputs, and what it refuses to touch. The rest of
the step path uses it in earnest."""

import numpy as np
import pytest

from ipc import Field, Layout
from model.runner import Bucket
from pipeline.inference._step import SampleColumns, StepArrays, TokenBoard, TokenRecord
from pipeline.wire.step import Head, RowKind, Shapes, logits_layout, step_layout

BLOCK = 4
SHAPES = Shapes(token_budget=16, max_rows=4, block_table_width=3, vocab_size=9, samples=8, logit_rows=2, drafts=3)
BUCKETS = (Bucket(4, 4), Bucket(8, 4, 8), Bucket(16, 4, 8))
OWN = Layout(
    "own",
    [
        *(Field(name, "int32", (16,), "") for name in ("input_ids", "positions", "slot_mapping")),
        *(Field(name, "int32", (4,), "") for name in ("valid_length", "q_seq_lens")),
        *(Field(name, "int32", (8,), "") for name in ("sample_index", "sample_row")),
        Field("fetched", "int32", (2,), ""),
    ],
)


def int32(*values):
    return np.array(values, np.int32)


class Desk:
    """A board of rows 0 to 4, a slot of the step ring, and inference's arrays."""

    def __init__(self, buckets=BUCKETS):
        self.lengths, self.counts, self.ids = np.zeros(5, np.int32), np.ones(5, np.int32), np.zeros((5, 4), np.int32)
        self.board = TokenBoard(self.lengths, self.counts, self.ids)
        layout, out = step_layout(SHAPES), logits_layout(SHAPES)
        self.slot, self.own = layout.views(bytearray(layout.size)), OWN.views(bytearray(b"\xb3" * OWN.size))
        self.out = out.views(bytearray(out.size))
        slot = self.slot
        self.arrays = StepArrays(
            self.board, BLOCK, tuple((b.tokens, b.rows, b.samples) for b in buckets), slot.head,
            slot.rows, slot.epochs, slot.kinds, slot.new_tokens, slot.most_drafts, slot.limits, slot.wants_logits,
            slot.input_ids, slot.positions, slot.slot_mapping, slot.targets, slot.block_tables, *self.own,
        )  # fmt: skip
        self.samples = SampleColumns(
            self.out.rows, self.out.epochs, self.out.lengths, self.out.targets, self.out.drafts,
            self.out.logit_rows, self.out.ids,
        )  # fmt: skip

    def fill(self, *counts):
        """Of so many rows, decode rows, and tokens of chunks; bucket, tokens, sampled positions."""
        self.slot.head[Head.ROWS : Head.CHUNK_TOKENS + 1] = counts
        return self.arrays.fill(), self.arrays.tokens, self.arrays.samples

    def decode(self, b, row, length, *ids, most=0, limit=100, logits=False):
        """Row `b` of the step decodes row `row` of the board, which has these ids: the newest token, and drafts."""
        self.lengths[row], self.counts[row], self.ids[row, : len(ids)] = length, len(ids), ids
        slot = self.slot
        slot.rows[b], slot.epochs[b], slot.kinds[b], slot.limits[b] = row, 10 + row, RowKind.DECODE, limit
        slot.most_drafts[b], slot.wants_logits[b] = most, logits
        slot.block_tables[b] = [10 * (row + 1), 10 * (row + 1) + 1, 10 * (row + 1) + 2]

    def chunk(self, b, row, kind, at, positions, *, logits=False, targets=()):
        """Row `b` brings a piece of its prompt, which begins at `at` of the slot's tokens."""
        slot, tokens = self.slot, slice(at, at + len(positions))
        slot.rows[b], slot.epochs[b], slot.kinds[b], slot.new_tokens[b] = row, 10 + row, kind, len(positions)
        slot.wants_logits[b] = logits
        slot.input_ids[tokens] = [100 + position for position in positions]
        slot.positions[tokens], slot.slot_mapping[tokens] = positions, [40 + position for position in positions]
        slot.targets[at : at + len(targets)] = targets


@pytest.fixture
def desk():
    return Desk()


def test_decode_rows_bring_their_newest_token_and_chunks_stand_behind_them(desk):
    desk.decode(0, 3, 6, 77)
    desk.decode(1, 1, 1, 88)
    desk.chunk(2, 0, RowKind.CHUNK, 0, [4, 5])
    desk.chunk(3, 2, RowKind.PROMPT_END, 2, [0, 1, 2])
    assert desk.fill(4, 2, 5) == (1, 7, 3)
    own = desk.own
    assert own.input_ids[:8].tolist() == [77, 88, 104, 105, 100, 101, 102, 0]
    assert own.positions[:8].tolist() == [5, 0, 4, 5, 0, 1, 2, 0]
    assert own.slot_mapping[:8].tolist() == [41 * BLOCK + 1, 20 * BLOCK, 44, 45, 40, 41, 42, -1]
    assert own.valid_length.tolist() == [6, 1, 6, 3]
    assert own.q_seq_lens.tolist() == [1, 1, 2, 3]
    assert own.sample_index.tolist() == [0, 1, 6, 0, 0, 0, 0, 0]


def test_what_sampling_must_know_of_each_position(desk):
    desk.decode(0, 3, 6, 77)
    desk.decode(1, 1, 1, 88, logits=True)
    desk.chunk(2, 0, RowKind.PROMPT_END, 0, [4, 5], logits=True)
    desk.chunk(3, 2, RowKind.SCORE, 2, [0, 1, 2], targets=[5, 6, -1])
    desk.fill(4, 2, 5)
    assert (desk.arrays.describe(desk.samples), desk.arrays.scored) == (2, 2)
    out = desk.out
    assert out.rows[:6].tolist() == [3, 1, 0, 2, 2, 2]
    assert out.epochs[:6].tolist() == [13, 11, 10, 12, 12, 12]
    assert out.lengths[:6].tolist() == [6, 1, 6, 3, 1, 2]
    assert out.targets[:6].tolist() == [-1, -1, -1, -1, 5, 6]
    assert out.logit_rows[:6].tolist() == [-1, 0, 1, -1, -1, -1]
    assert desk.own.fetched.tolist() == [1, 2]


def test_logits_are_wanted_of_positions_that_are_sampled_not_of_those_that_are_scored(desk):
    desk.chunk(0, 2, RowKind.SCORE, 0, [0, 1, 2], logits=True, targets=[5, 6, -1])
    desk.fill(1, 0, 3)
    assert desk.arrays.describe(desk.samples) == 1
    assert desk.out.logit_rows[:3].tolist() == [0, -1, -1]


def test_scored_positions_stand_behind_those_of_all_rows(desk):
    desk.chunk(0, 2, RowKind.SCORE, 0, [4, 5], targets=[6, 7])
    desk.chunk(1, 0, RowKind.SCORE, 2, [0, 1], targets=[5, -1])
    desk.chunk(2, 1, RowKind.PROMPT_END, 4, [2])
    assert desk.fill(3, 0, 5) == (1, 5, 5)
    assert (desk.arrays.describe(desk.samples), desk.arrays.scored) == (0, 3)
    assert desk.own.sample_index[:5].tolist() == [3, 4, 0, 1, 2]
    assert desk.out.rows[:5].tolist() == [0, 1, 2, 2, 0]
    assert desk.out.targets[:5].tolist() == [-1, -1, 6, 7, 5]


@pytest.mark.parametrize(
    ("most", "limit", "carried"),
    [(0, 100, 0), (2, 100, 2), (9, 100, 3), (9, 8, 1), (9, 7, 0), (9, 6, 0)],
    ids=["none wanted", "as many as wanted", "as many as there are", "up to its limit", "at its end", "behind it"],
)
def test_drafts_follow_the_newest_token(desk, most, limit, carried):
    desk.decode(0, 2, 6, 7, 71, 72, 73, most=most, limit=limit)
    desk.decode(1, 0, 2, 9)
    bucket, tokens, samples = desk.fill(2, 2, 0)
    assert (bucket, tokens, samples) == (0 if carried <= 2 else 1, 2 + carried, 2 + carried)
    own = desk.own
    assert own.input_ids[:tokens].tolist() == [*[7, 71, 72, 73][: 1 + carried], 9]
    assert own.positions[:tokens].tolist() == [*range(5, 6 + carried), 1]
    assert own.slot_mapping[: tokens - 1].tolist() == [
        (31 if p < 8 else 32) * BLOCK + p % 4 for p in range(5, 6 + carried)
    ]
    assert own.valid_length[:2].tolist() == [6 + carried, 2]
    assert own.q_seq_lens[:2].tolist() == [1 + carried, 1]
    assert own.sample_index[:samples].tolist() == list(range(tokens))


def test_a_step_may_have_no_sampled_position(desk):
    desk.chunk(0, 2, RowKind.CHUNK, 0, [0, 1])
    assert desk.fill(1, 0, 2) == (0, 2, 0)
    assert desk.arrays.describe(desk.samples) == 0


def test_a_step_is_looked_at_anew_each_time(desk):
    desk.decode(0, 3, 6, 77)
    desk.fill(1, 1, 0)
    desk.lengths[3], desk.ids[3, 0] = 7, 78
    assert desk.fill(1, 1, 0) == (0, 1, 1)
    assert (desk.own.input_ids[0], desk.own.positions[0]) == (78, 6)


def test_what_sampling_has_chosen_goes_to_the_board():
    desk = Desk()
    record = TokenRecord(int32(4, 0, 2), int32(5, 6, 7), int32(1, 3, 9), np.arange(12, dtype=np.int32).reshape(3, 4))
    desk.board.apply(record, 2)
    assert desk.lengths.tolist() == [6, 0, 0, 0, 5]
    assert desk.counts.tolist() == [3, 1, 1, 1, 1]
    assert desk.ids[0].tolist() == [4, 5, 6, 0]
    desk.board.apply(record, 3)
    assert (desk.counts[2], desk.ids[2].tolist()) == (4, [8, 9, 10, 11])  # a record is not trusted


def test_a_record_is_not_read_beyond_its_end(desk):
    desk.board.apply(TokenRecord(int32(1), int32(5), int32(9), int32(50)[None]), 1)
    assert (desk.counts[1], desk.ids[1].tolist()) == (1, [50, 0, 0, 0])
    with pytest.raises(ValueError, match="must have room for a token"):
        desk.board.apply(TokenRecord(int32(1), int32(5), int32(9), np.zeros((1, 0), np.int32)), 1)


def test_a_token_that_is_none_is_an_id_all_the_same(desk):
    desk.board.apply(TokenRecord(int32(1), int32(5), int32(1), int32(-1)[None]), 1)
    assert desk.ids[1, 0] == 0


def test_the_argmax_is_foreseen(desk):
    out = desk.out
    out.rows[:3], out.lengths[:3], out.targets[:3], out.ids[:6] = (3, 0, 1), (7, 2, 9), (-1, -1, 5), range(20, 26)
    desk.board.foresee(desk.samples, 3, 2)
    assert desk.lengths.tolist() == [3, 0, 0, 8, 0]
    assert (desk.ids[3, 0], desk.ids[0, 0], desk.ids[1, 0]) == (20, 22, 0)  # row 1 is only scored


@pytest.mark.parametrize(
    ("change", "counts", "message"),
    [
        (lambda desk: None, (5, 1, 0), "5 elements of rows are wanted, but it has 4"),
        (lambda desk: None, (-1, 1, 0), "-1 elements of rows"),
        (lambda desk: None, (1, 1, 17), "the chunks exceed the token budget|17 elements of input_ids"),
        (lambda desk: desk.slot.rows.__setitem__(0, 5), (1, 1, 0), "row 5 is none of the board's 5"),
        (lambda desk: desk.slot.rows.__setitem__(0, -1), (1, 1, 0), "row -1 is none of the board's 5"),
        (lambda desk: desk.lengths.__setitem__(3, 0), (1, 1, 0), "row 0 of the step: its tokens lie outside"),
        (lambda desk: desk.lengths.__setitem__(3, 13), (1, 1, 0), "row 0 of the step: its tokens lie outside"),
        (lambda desk: desk.chunk(1, 0, RowKind.CHUNK, 0, [1, 2]), (2, 1, 1), "its chunk is longer than the step's"),
        (lambda desk: desk.chunk(1, 0, RowKind.CHUNK, 0, [1, 2]), (2, 1, 3), "more tokens than their rows"),
    ],
)
def test_what_does_not_fit_is_refused(desk, change, counts, message):
    desk.decode(0, 3, 6, 77)
    change(desk)
    with pytest.raises(ValueError, match=message):
        desk.fill(*counts)


def test_a_step_beyond_every_bucket_or_room_is_refused():
    small = Desk(buckets=(Bucket(4, 4),))
    small.chunk(0, 0, RowKind.CHUNK, 0, range(5))
    with pytest.raises(ValueError, match="no bucket holds 5 tokens, 1 rows and 0 sampled positions"):
        small.fill(1, 0, 5)
    small.chunk(0, 0, RowKind.SCORE, 0, range(9))
    with pytest.raises(ValueError, match="more positions are sampled than there is room for"):
        small.fill(1, 0, 9)
    for b in range(3):
        small.decode(b, b, 3, 7, logits=True)
    small.fill(3, 3, 0)
    with pytest.raises(ValueError, match="more rows need logits than there is room for"):
        small.arrays.describe(small.samples)


@pytest.mark.parametrize("row", [-1, 5])
def test_a_board_has_no_other_rows(desk, row):
    with pytest.raises(ValueError, match=f"row {row} is none of the board's 5"):
        desk.board.apply(TokenRecord(int32(1, row), int32(5, 5), int32(1, 1), np.ones((2, 1), np.int32)), 2)
    desk.out.rows[:2] = 1, row
    with pytest.raises(ValueError, match=f"row {row} is none of the board's 5"):
        desk.board.foresee(desk.samples, 2, 1)
    assert not desk.lengths.any()


def test_counts_beyond_the_arrays_are_refused(desk):
    with pytest.raises(ValueError, match="9 elements of rows are wanted, but it has 8"):
        desk.board.foresee(desk.samples, 9, 1)
    with pytest.raises(ValueError, match="16 elements of ids are wanted, but it has 8"):
        desk.board.foresee(desk.samples, 8, 2)
    with pytest.raises(TypeError, match="TokenRecord expected"):
        desk.board.apply(desk.samples, 1)


@pytest.mark.parametrize("wrong", [np.zeros(4, np.int64), np.zeros((2, 2), np.int32), np.zeros(4, np.float32)])
@pytest.mark.parametrize("place", range(3))
def test_other_arrays_are_refused(place, wrong):
    arrays = [np.zeros(4, np.int32), np.zeros(4, np.int32), np.zeros(4, np.int32), np.zeros((4, 1), np.int32)]
    arrays[place] = wrong
    with pytest.raises(ValueError, match="must be int32 with 1 axis"):
        TokenRecord(*arrays)
    with pytest.raises(ValueError, match="not C-contiguous"):
        TokenRecord(*arrays[:place], np.zeros(8, np.int32)[::2], *arrays[place + 1 :])


def test_a_board_needs_as_many_rows_everywhere_and_arrays_that_it_may_write():
    with pytest.raises(ValueError, match="must have as many rows"):
        TokenBoard(np.zeros(4, np.int32), np.zeros(3, np.int32), np.zeros((4, 1), np.int32))
    frozen = np.zeros(4, np.int32)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match=r"read-only|not writable"):
        TokenBoard(frozen, np.zeros(4, np.int32), np.zeros((4, 1), np.int32))


def test_the_numbers_that_the_c_knows_are_those_of_the_layouts():
    assert [Head.ROWS, Head.DECODE_ROWS, Head.CHUNK_TOKENS] == [1, 2, 3]
    assert [RowKind.DECODE, RowKind.CHUNK, RowKind.PROMPT_END, RowKind.SCORE] == [0, 1, 2, 3]


def test_a_step_of_fixed_shape_is_padded_to_it_or_refused():
    """The bucket with all rows, each of them sampled, and as many tokens as it says."""
    desk = Desk((Bucket(1, 1), Bucket(4, 4), Bucket(8, 3), Bucket(8, 4), Bucket(16, 4)))
    desk.decode(0, 3, 6, 77)
    assert desk.fill(1, 1, 0)[0] == 0
    desk.slot.head[Head.FIXED] = 8
    assert desk.fill(1, 1, 0) == (3, 1, 1)
    assert desk.own.slot_mapping[:8].tolist() == [41 * BLOCK + 1, *[-1] * 7]
    desk.chunk(1, 2, RowKind.CHUNK, 0, list(range(8)))
    with pytest.raises(ValueError, match="does not fit into the shape that is fixed"):
        desk.fill(2, 1, 8)

"""Guesses from a sequence's own text, and which of a step's tokens hold."""

import numpy as np
import pytest

from model.sampling import Drafter

MOST = 4
ROWS = 3


def int32(*values):
    return np.array(values, np.int32)


class Desk:
    def __init__(self, length=200):
        self.drafter = Drafter(ROWS, length, MOST)
        self.starts, self.taken, self.counts, self.wishes = (np.full(8, 77, np.int32) for _ in range(4))
        self.ids = np.full((8, 1 + MOST), 77, np.int32)

    def read(self, row, prompt, output=(), most=MOST):
        self.drafter.begin(row, most)
        self.drafter.read(row, 150, int32(*prompt).tobytes(), int32(*output).tobytes())

    def follow(self, *positions):
        """Row, token, draft behind it; of each row: first position, tokens that hold, newest and drafts, wish."""
        rows, tokens, drafts = (int32(*column) for column in zip(*positions, strict=True))
        count, wished = self.drafter.follow(
            rows, tokens, drafts, self.starts, self.taken, self.counts, self.ids, self.wishes
        )
        assert wished == bool(self.wishes[:count].any())
        columns = zip(
            self.starts[:count].tolist(), self.taken.tolist(), self.counts, self.ids, self.wishes, strict=False
        )
        return [(s, t, ids[:n].tolist(), int(w)) for s, t, n, ids, w in columns]


@pytest.fixture
def desk():
    return Desk()


def test_what_followed_the_last_time(desk):
    desk.read(1, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 50, 1, 2, 3, 4, 5, 6])
    assert desk.follow((1, 7, -1)) == [(0, 1, [7, 8, 9, 10, 11], MOST)]
    assert desk.follow((1, 8, 8), (1, 9, 9), (1, 10, -1)) == [(0, 3, [10, 11, 50, 1, 2], MOST)]


def test_a_draft_that_is_wrong_ends_what_holds(desk):
    desk.read(0, [1, 2, 3])
    assert [row[:2] for row in desk.follow((0, 4, 4), (0, 5, 9), (0, 6, 7), (0, 7, -1), (2, 3, -1))] == [
        (0, 2),
        (4, 1),
    ]
    assert desk.ids[0, 0] == 5


def test_new_text_has_no_guesses_and_no_wishes(desk):
    desk.read(0, range(100, 140))
    for token in range(40):
        assert desk.follow((0, token, -1)) == [(0, 1, [token], 0)]


def test_chance_matches_are_watched_before_they_are_used(desk):
    """Two tokens that occurred before say little: only once such a guess was right are others made."""
    desk.read(0, [1, 2, 3, 5, 6, 7, 1])
    assert desk.follow((0, 2, -1)) == [(0, 1, [2], 0)]
    for token in (9, 5, 6, 8, 5, 6, 4):
        ((_, _, ids, wish),) = desk.follow((0, token, -1))
        assert (len(ids), wish) == (1, 0)


def test_the_more_rows_the_surer_a_guess_must_be(desk):
    """Four tokens that occurred before are worth a guess beside few rows; beside many only once one was right."""
    others = [(-1, 1, -1)] * 4
    for step, more in (([], 1), (others, 0)):
        desk.read(0, [1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3])
        assert len(desk.follow((0, 4, -1), *step)[0][2]) == 1 + more
    for token in (5, 6, 7):
        row = desk.follow((0, token, -1), *others)[0]
    assert row[2:] == ([7, 8], MOST)


def test_guesses_that_prove_wrong_are_given_up(desk):
    """Behind each pair that was there before comes something else."""
    desk = Desk(3000)
    pairs = [(2 * at, 2 * at + 1) for at in range(10, 400)]
    desk.read(0, [token for pair in pairs for token in (*pair, 9, 9, 9, 9)])
    offered = 0
    for first, second in pairs[:100]:
        for token in (first, second, 5):
            ((_, _, ids, _),) = desk.follow((0, token, -1))
            offered += len(ids) > 1
    assert offered < 10


def test_text_that_repeats_itself_is_guessed_beyond_its_end(desk):
    desk.read(0, [7, 8] * 12)
    assert desk.follow((0, 7, -1)) == [(0, 1, [7, 8, 7, 8], MOST)] or desk.counts[0] > 2
    assert desk.ids[0, : desk.counts[0]].tolist() == [7, 8, 7, 8, 7][: desk.counts[0]]


def test_the_first_token_may_come_before_its_sequence_is_read(desk):
    desk.drafter.begin(2, MOST)
    assert desk.follow((2, 7, -1)) == [(0, 1, [7], 0)]
    desk.drafter.read(2, 150, int32(1, 2, 3, 4, 5, 6, 7, 8, 9, 50, 1, 2, 3, 4, 5, 6).tobytes(), b"")
    assert desk.follow((2, 8, -1))[0][2][:2] == [8, 9]


def test_rows_without_drafts_and_rows_that_are_gone(desk):
    desk.read(0, [1, 2, 3, 4, 5, 6, 1, 2, 3, 4], most=0)
    assert desk.follow((0, 5, -1), (-1, 8, 8), (-1, 9, -1)) == [(0, 1, [5], 0), (1, 1, [8], 0)]


def test_a_token_that_is_none_ends_a_row(desk):
    desk.read(0, [1, 2, 3, 4, 5, 6, 1, 2, 3, 4])
    assert desk.follow((0, -1, 3), (0, 3, -1)) == [(0, 1, [-1], 0)]


def test_a_new_sequence_knows_nothing_of_the_one_before(desk):
    desk.read(0, list(range(20)) * 3)
    desk.read(0, [90, 91])
    for token in range(10):
        assert desk.follow((0, token, -1))[0][2] == [token]


def test_no_more_tokens_than_there_is_room_for():
    desk = Desk(8)
    desk.read(0, range(20))
    for token in range(30):
        desk.follow((0, token % 3, -1))


@pytest.mark.parametrize("row", [-2, ROWS])
def test_other_rows_are_refused(desk, row):
    with pytest.raises(ValueError, match=rf"rows\[0\] is {row}, expected -1 to 2"):
        desk.follow((row, 1, -1))
    with pytest.raises(ValueError, match="expected 0 to 2"):
        desk.drafter.begin(row, 1)


def test_other_arrays_are_refused(desk):
    one = int32(0)
    with pytest.raises(ValueError, match="ids must be int32 with room for 1 positions, ids for 5 tokens of each"):
        desk.drafter.follow(one, one, one, one.copy(), one.copy(), one.copy(), np.zeros((1, 4), np.int32), one.copy())
    with pytest.raises(ValueError, match="taken must be int32 with room for 1"):
        empty = np.zeros(0, np.int32)
        desk.drafter.follow(one, one, one, one.copy(), empty, one.copy(), np.zeros((1, 5), np.int32), one.copy())
    with pytest.raises(TypeError, match="8 arrays expected"):
        desk.drafter.follow(one)
    with pytest.raises(ValueError, match="must be at least 1"):
        Drafter(1, 1, 0)

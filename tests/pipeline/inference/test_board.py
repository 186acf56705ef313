"""The token board's C: what it moves, and what it refuses to touch. The rest of the step path uses it in earnest."""

import numpy as np
import pytest

from pipeline.inference._board import TokenBoard


def int32(*values):
    return np.array(values, np.int32)


def test_tokens_go_to_their_rows_and_come_back_by_other_slots():
    board = np.zeros(5, np.int32)
    TokenBoard(board, int32(4, 0, 2), int32(40, -1, 20)).scatter(3)
    assert board.tolist() == [0, 0, 20, 0, 40]  # a token that is none is an id all the same
    ids = np.full(6, 7, np.int32)
    TokenBoard(board, int32(2, 4, 0, 1), ids).gather(2)
    assert ids.tolist() == [20, 40, 7, 7, 7, 7]
    TokenBoard(board, int32(), ids).gather(0)


def test_arrays_are_looked_at_anew_each_time():
    board, rows, tokens = np.zeros(3, np.int32), int32(0, 1), int32(5, 6)
    view = TokenBoard(board, rows, tokens)
    view.scatter(2)
    rows[:], tokens[:] = (2, 0), (8, 9)
    view.scatter(2)
    assert board.tolist() == [9, 6, 8]


@pytest.mark.parametrize("move", ["scatter", "gather"])
@pytest.mark.parametrize(
    ("count", "rows", "message"),
    [
        (3, (0, 1), "count is 3, but there are 2 rows and 4 token_ids"),
        (5, (0, 1, 2, 0, 1), "count is 5, but there are 5 rows and 4 token_ids"),
        (-1, (0,), "count is -1"),
        (2, (0, 3), r"rows\[1\] is 3, expected 0 to 2"),
        (2, (-1, 0), r"rows\[0\] is -1, expected 0 to 2"),
    ],
)
def test_what_is_not_there_is_refused_and_nothing_moves(move, count, rows, message):
    board, tokens = np.zeros(3, np.int32), int32(5, 6, 7, 8)
    with pytest.raises(ValueError, match=message):
        getattr(TokenBoard(board, int32(*rows), tokens), move)(count)
    assert not board.any()
    assert tokens.tolist() == [5, 6, 7, 8]


def test_who_may_only_read_a_slot_can_not_be_made_to_write_it():
    tokens = int32(1, 2)
    tokens.flags.writeable = False
    view = TokenBoard(np.zeros(2, np.int32), int32(0, 1), tokens)
    view.scatter(2)
    with pytest.raises(ValueError, match="token_ids can only be read"):
        view.gather(2)


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("wrong", [np.zeros(4, np.int64), np.zeros((2, 2), np.int32), np.zeros(4, np.float32)])
def test_other_arrays_are_refused(place, wrong):
    arrays = [np.zeros(4, np.int32) for _ in range(3)]
    arrays[place] = wrong
    with pytest.raises(ValueError, match="must be int32 with one axis"):
        TokenBoard(*arrays)
    with pytest.raises(ValueError, match="not C-contiguous"):
        TokenBoard(*arrays[:place], np.zeros(8, np.int32)[::2], *arrays[place + 1 :])

"""How fast the queue moves, by a clock of the test's."""

import pytest

from pipeline.preprocess.pace import Pace

S = 1_000_000_000


def test_nothing_is_known_at_first():
    pace = Pace()
    pace.note(0, 0, waiting=True)
    pace.note(S // 2, 100, waiting=True)
    assert pace.wait_s(1000) == 0


def test_rows_given_while_requests_wait():
    pace = Pace()
    for second in range(1, 4):
        pace.note(second * S, 10 * second, waiting=True)
    assert pace.wait_s(50) == pytest.approx(5)
    for second in range(4, 40):
        pace.note(second * S, 30 + 20 * second, waiting=True)
    assert pace.wait_s(50) == pytest.approx(2.5, rel=0.01)


def test_times_without_a_queue_do_not_count():
    pace = Pace()
    pace.note(S, 0, waiting=True)
    pace.note(2 * S, 10, waiting=True)
    pace.note(3 * S, 11, waiting=False)
    pace.note(100 * S, 12, waiting=True)
    pace.note(101 * S, 22, waiting=True)
    assert pace.wait_s(50) == pytest.approx(5)


def test_a_queue_that_stands_still_is_measured_when_it_moves():
    pace = Pace()
    for second in range(1, 11):
        pace.note(second * S, 0, waiting=True)
    assert pace.wait_s(1) == 0
    pace.note(11 * S, 1, waiting=True)
    assert pace.wait_s(1) == pytest.approx(10)

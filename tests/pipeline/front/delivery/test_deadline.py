"""Which of two deadlines is the earlier one, and what is said when it has passed."""

import time
from types import SimpleNamespace

import pytest

from pipeline.front.delivery.deadline import HEADER, Deadline


def deadline(header=None, parameter=None, server_s=None):
    exchange = SimpleNamespace(headers={} if header is None else {HEADER: header})
    job = SimpleNamespace(parts=[SimpleNamespace(params=SimpleNamespace(timeout_ms=parameter))] * 2)
    return Deadline(exchange, job, time.monotonic_ns(), server_s)


@pytest.mark.parametrize(
    ("header", "parameter", "server_s", "seconds", "code"),
    [
        (None, None, None, None, None),
        (None, None, 60.0, 60, None),
        (b"30000", None, None, 30, "deadline_exceeded"),
        (b"30000", 20000, 60.0, 20, "deadline_exceeded"),
        (b"30000", 40000, 60.0, 30, "deadline_exceeded"),
        (b"86400000", None, 60.0, 60, None),
    ],
)
def test_the_earliest_counts(header, parameter, server_s, seconds, code):
    made = deadline(header, parameter, server_s)
    left = made.begin()
    assert left is seconds is None or seconds - 5 < left <= seconds
    if seconds is not None:
        error = made.error()  # though the clock may not be there yet
        assert (error.status, error.code) == (504, code)


def test_one_that_has_passed_already_leaves_nothing():
    made = Deadline(
        SimpleNamespace(headers={HEADER: b"1"}), SimpleNamespace(parts=[]), time.monotonic_ns() - 10**9, 5.0
    )
    assert made.begin() == 0
    assert made.error().code == "deadline_exceeded"

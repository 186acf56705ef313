"""What a front knows of a text that the one before has begun."""

from __future__ import annotations

import pytest

from model.sampling import SamplingParams
from pipeline.front.delivery.journal import Begun, Found, Opened, Weighed, about_of, is_delta, renumbered
from pipeline.front.delivery.stream import TokenStream
from pipeline.wire.request import Choice, Request, Submit


def stream(tokens):
    submit = Submit.of([Choice(1, 7, output=bytes(4 * tokens))], "a", Request(SamplingParams(), 20))
    return TokenStream(submit, submit.choices[0], 100)


@pytest.mark.parametrize(
    ("before", "now", "whole"),
    [
        ([(0, "old")], "old", [(0, "old")]),
        ([(0, "old")], "new", [(0, "old"), (5, "new")]),
        ([(0, "old"), (3, "new")], "new", [(0, "old"), (3, "new")]),
        ([(0, "old"), (3, "new"), (3, "old")], "new", [(0, "old"), (5, "new")]),  # the other one yielded none
        ([(0, "old"), (5, "new")], "newest", [(0, "old"), (5, "newest")]),
        ([], "new", [(5, "new")]),
    ],
)
def test_weights_of_a_text_are_those_from_before_and_from_now_on(before, now, whole):
    text = stream(5)
    text.computed_with(now)
    text.computed_before(before)
    assert text.weights == whole


def test_a_text_that_is_over_has_the_weights_from_before():
    text = stream(5)
    text.computed_before([(0, "old"), (3, "new")])
    assert text.weights == [(0, "old"), (3, "new")]


def test_records_that_are_no_deltas_get_other_numbers_too():
    submit = Submit.of([Choice(1, 7)], "a", Request(SamplingParams(), 20)).pack()
    opened = Opened("s", 1, 1, "/v1/completions", (), "", b"{}", 20.0, (submit,))
    found = renumbered(Found(opened, [Begun(1, 5, 2).pack(), Weighed(1, 0, "old").pack()]), lambda: 70)
    assert not any(map(is_delta, found.records))
    assert [about_of(record) for record in found.records] == [Begun(70, 5, 2), Weighed(70, 0, "old")]

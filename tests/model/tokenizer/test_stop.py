"""Stop strings against a search in the whole text, however it is cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.tokenizer import StopStrings
from tests.examples import examples


def run(stops, pieces, **options):
    matcher = StopStrings(stops, **options)
    sent = [matcher.push(piece) for piece in pieces]
    return [*sent, matcher.finish()], matcher.matched


def expected(stops, text, include):
    """Character by character: the first place where some stop string is complete, the longest one there."""
    for end in range(1, len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            longest = max(complete, key=len)
            return text[: end if include else end - len(longest)], longest
    return text, None


def test_a_stop_string_that_spans_pieces_is_cut():
    assert run(["\nUser:"], ["Hello", "\n", "Us", "er", ": more", "!"]) == (
        ["Hello", "", "", "", "", "", ""],
        "\nUser:",
    )


def test_text_that_only_began_like_a_stop_string_is_sent_later():
    assert run(["\nUser:"], ["Hello", "\nU", "ncle", " Bob"]) == (["Hello", "", "\nUncle", " Bob", ""], None)


def test_held_text_is_flushed_at_the_end():
    assert run(["END"], ["the EN"]) == (["the ", "EN"], None)


def test_the_match_is_kept_when_asked():
    assert run(["END"], ["the E", "ND and more"], include=True) == (["the ", "END", ""], "END")


def test_nothing_follows_a_match():
    assert run(["x"], ["ax", "b", "c"])[0] == ["a", "", "", ""]


def test_what_is_complete_first_wins():
    assert run(["abcd", "bc"], ["zabcd"]) == (["za", ""], "bc")


def test_the_longest_of_those_that_end_together_wins():
    assert run(["bc", "abc"], ["zabc"]) == (["z", ""], "abc")


def test_a_beginning_inside_a_failed_beginning_is_kept():
    assert run(["aab"], ["a", "a", "a", "b"]) == (["", "", "a", "", ""], "aab")


def test_without_stop_strings_text_passes():
    assert run([], ["a", "", "b"]) == (["a", "", "b", ""], None)


def test_an_empty_stop_string_is_refused():
    with pytest.raises(ValueError, match="empty stop string"):
        StopStrings(["a", ""])


def test_which_of_them_it_was():
    matcher = StopStrings(["a", "a", "STOP"])
    assert matcher.matched_index == -1
    matcher.push("xSTOP")
    assert matcher.matched_index == 2


def test_pushing_the_text_again_restores_the_state():
    matcher = StopStrings(["STOP"])
    matcher.push("so far ST")
    assert (matcher.push("OP!"), matcher.matched) == ("", "STOP")


letters = st.text(alphabet="ab", min_size=1, max_size=4)


@examples(500)
@given(
    stops=st.lists(letters, max_size=3),
    pieces=st.lists(st.text(alphabet="abc", max_size=5)),
    include=st.booleans(),
)
def test_any_cutting_gives_what_a_search_in_the_whole_gives(stops, pieces, include):
    sent, matched = run(stops, pieces, include=include)
    assert ("".join(sent), matched) == expected(stops, "".join(pieces), include)


@examples(300)
@given(stops=st.lists(letters, min_size=1, max_size=3), text=st.text(alphabet="abc", max_size=20))
def test_no_more_is_held_than_may_become_a_stop_string(stops, text):
    matcher = StopStrings(stops)
    sent = "".join(map(matcher.push, text))
    held = text[len(sent) :]
    assert matcher.matched or held == "" or any(stop.startswith(held) for stop in stops)


@examples(300)
@given(stops=st.lists(letters, max_size=3), text=st.text(alphabet="abc", max_size=20), more=st.integers(0, 3))
def test_the_end_of_the_text_restores_the_state(stops, text, more):
    whole, again = StopStrings(stops), StopStrings(stops)
    for sign in text:
        whole.push(sign)
    again.push(text[max(len(text) - again.memory - more, 0) :])
    assert whole.matched or (again._held, again.matched) == (whole._held, None)

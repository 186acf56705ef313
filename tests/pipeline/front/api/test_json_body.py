"""Bodies with more values than any request needs; whatever stands in strings does not count."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.front.api import json_body
from pipeline.front.api.json_body import LARGE_BODY, is_small, parse_object
from pipeline.front.http.errors import ApiError
from tests.examples import examples

TRICKY = st.text(alphabet='",[]{}:\\ax', max_size=12)
DOCUMENTS = st.recursive(
    st.none() | st.integers(-9, 9) | TRICKY,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TRICKY, inner, max_size=5),
    max_leaves=30,
)


def count(value):
    """Lists and objects; members of objects; values that follow another in a list or an object."""
    if isinstance(value, dict | list):
        members = len(value) if isinstance(value, dict) else 0
        inner = list(map(count, value.values() if isinstance(value, dict) else value))
        own = (1, members, max(len(value) - 1, 0))
        return tuple(map(sum, zip(own, *inner, strict=True)))
    return (0, 0, 0)


@examples(150)
@given(st.dictionaries(TRICKY, DOCUMENTS, max_size=5), st.booleans())
def test_what_is_outside_of_strings_is_counted(document, indented):
    content = orjson.dumps(document, option=orjson.OPT_INDENT_2 if indented else 0)
    assert parse_object(content) == document
    wanted = count(document)
    for (marks, _, what), there in zip(json_body._LIMITS, wanted, strict=True):
        json_body_limits = ((marks, there - 1, what),)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(json_body, "_LIMITS", json_body_limits)
            with pytest.raises(ApiError, match=f"the body has {there} {what}; at most {there - 1} are allowed"):
                parse_object(content)
            patch.setattr(json_body, "_LIMITS", ((marks, there, what),))
            assert parse_object(content) == document


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b'{"p":[' + b",".join([b"[]"] * 131_072) + b"]}", "lists and objects"),
        (b"{" + b",".join(b'"%d":1' % i for i in range(131_073)) + b"}", "members of objects"),
        (b'{"p":[' + b",".join([b"1"] * 917_506) + b"]}", "values in lists and objects"),
        (b"[" * (4 << 20), "lists and objects"),
    ],
)
def test_the_limits(content, what):
    with pytest.raises(ApiError, match=what) as caught:
        parse_object(content)
    assert caught.value.status == 400


def test_what_full_contexts_need_is_within_them():
    messages = [{"role": "user", "content": [{"type": "text", "text": '{"a": [1, {}, ":"], '}] * 4}] * 10_000
    prompts = [[31999] * 700] * 1000
    for body in ({"messages": messages}, {"prompt": prompts}, {"prompt": '[{"x":1},' * 400_000}):
        assert parse_object(orjson.dumps(body)) == body


def test_a_body_of_many_objects_is_not_small():
    """It takes longer than a text of its length, and must not delay other clients' tokens."""
    assert is_small(b'{"messages": [' + b'{"role": "user"},' * 200 + b"{}]}")
    assert not is_small(b'{"messages": [' + b"{}," * 300 + b"{}]}")
    assert not is_small(b'"' + b"x" * LARGE_BODY + b'"')

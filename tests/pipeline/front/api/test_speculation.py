"""A request's own limit of drafts, in the APIs that have one."""

import pytest

FORMS = [
    (True, 15),
    (False, 0),
    ({}, 15),
    ({"max_drafts": 0}, 0),
    ({"max_drafts": 3}, 3),
    ({"max_drafts": 15}, 15),
    (None, 15),
]
CHAT = {"messages": [{"role": "user", "content": "a draft"}]}


@pytest.mark.parametrize(("value", "most"), FORMS)
@pytest.mark.parametrize(
    ("path", "body"),
    [("completions", {"prompt": "a draft"}), ("chat/completions", CHAT), ("responses", {"input": "a draft"})],
)
def test_in_openai_s_apis(shared, path, body, value, most):
    assert shared.http.post(f"/v1/{path}", json={**body, "speculation": value}).status_code == 200
    assert shared.submitted("a draft")["most_drafts"] == most


@pytest.mark.parametrize(("value", "most"), FORMS)
def test_in_llm_serving_s(shared, value, most):
    assert shared.generate("another draft", speculation=value).status_code == 200
    assert shared.submitted("another draft")["most_drafts"] == most


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (3, "speculation is 3, expected true, false, or an object with max_drafts"),
        ("on", "speculation is 'on', expected true, false"),
        ({"max_drafts": 16}, "speculation.max_drafts is 16, expected an integer in [0, 15]"),
        ({"max_drafts": True}, "speculation.max_drafts is True, expected an integer in [0, 15]"),
        ({"drafts": 1}, "speculation has an unknown member 'drafts', expected max_drafts alone"),
    ],
)
def test_what_is_none(shared, value, told):
    answer = shared.complete("a", speculation=value)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith(told)

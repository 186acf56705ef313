"""Whether a request is deterministic: as it says, else as the server has it."""

import pytest

CHAT = {"messages": [{"role": "user", "content": "the same"}]}
ROUTES = [
    ("v1/completions", {"prompt": "the same"}),
    ("v1/chat/completions", CHAT),
    ("v1/responses", {"input": "the same"}),
    ("v1/messages", {**CHAT, "max_tokens": 5}),
]


@pytest.fixture
def ask(shared):
    def ask(path, body):
        answer = shared.http.post(f"/{path}", json=body)
        assert answer.status_code == 200, answer.text
        return shared.submitted("the same")["deterministic"]

    return ask


@pytest.mark.parametrize(("value", "deterministic"), [(True, True), (False, False), (None, False)])
@pytest.mark.parametrize(("path", "body"), ROUTES)
def test_in_the_body(ask, path, body, value, deterministic):
    assert ask(path, {**body, "deterministic": value}) is deterministic


@pytest.mark.parametrize("value", [True, False])
def test_where_parameters_are_inside(ask, value):
    assert ask("models/llama2/generate", {"inputs": "the same", "parameters": {"deterministic": value}}) is value
    options = {"options": {"deterministic": value}, "stream": False}
    assert ask("api/generate", {"prompt": "the same", "raw": True, **options}) is value


def test_what_is_none(shared):
    answer = shared.complete("a", deterministic="yes")
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith("deterministic is 'yes', expected true or false")

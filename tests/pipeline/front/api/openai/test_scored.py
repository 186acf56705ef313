"""Answers with scores of prompts; their forms are in golden/. All of such an answer is there once, whatever dies."""

from __future__ import annotations

import numpy as np
import orjson
import pytest

from model.demo import DEMO_DIR
from model.tokenizer import load_tokenizer
from pipeline.front.api.openai.scored import COLUMNS, EchoScores
from pipeline.wire.delta import PromptScores
from pipeline.wire.request import ALL_SCORED
from tests.pipeline.front.api.openai.test_completions import events
from tests.pipeline.front.conftest import post, read_all

TOKENIZER = load_tokenizer(DEMO_DIR)


def echoed(answer):
    return [(one["text"], one["logprobs"]) for one in answer.json()["choices"]]


def test_a_stream_begins_with_the_whole_prompt(shared):
    asked = {"max_tokens": 3, "echo": True, "logprobs": 1}
    ((text, logprobs),) = echoed(shared.complete("it was", **asked))
    pieces = [one["choices"][0] for one in events(shared.complete("it was", stream=True, **asked))]
    assert len(pieces) == 3
    assert pieces[0]["text"] == "it wasit"
    assert [len(one["logprobs"]["tokens"]) for one in pieces] == [6, 1, 1]
    assert "".join(one["text"] for one in pieces) == text
    assert {name: [x for one in pieces for x in one["logprobs"][name]] for name in COLUMNS} == logprobs


def test_the_prompt_alone(shared):
    ((text, logprobs),) = echoed(shared.complete("it was", max_tokens=0, echo=True, logprobs=1))
    assert text == "it was"
    assert [len(logprobs[name]) for name in COLUMNS] == [5] * 4
    (only,) = shared.complete("it was", max_tokens=0, prompt_logprobs=0).json()["choices"]
    assert (only["text"], len(only["prompt_logprobs"])) == ("", 5)


def test_all_choices_have_the_scores_that_are_computed_once(shared):
    answer = shared.complete(["once a", "once b"], max_tokens=1, echo=True, logprobs=1, n=2)
    seen = [shared.submitted("once") for _ in range(4)]
    assert [one["scored"] for one in seen] == [0, ALL_SCORED] * 2
    assert {one["prompt_logprobs"] for one in seen} == {1}
    assert [text for text, _ in echoed(answer)] == ["once aonce", "once aonce", "once bonce", "once bonce"]
    assert len({str(logprobs["token_logprobs"]) for _, logprobs in echoed(answer)}) == 1


def test_the_most_that_one_of_both_forms_wants_is_computed(shared):
    answer = shared.complete("both", max_tokens=1, echo=True, logprobs=1, prompt_logprobs=3)
    assert shared.submitted("both")["prompt_logprobs"] == 3
    (choice,) = answer.json()["choices"]
    assert [len(one) for one in choice["prompt_logprobs"][1:]] == [3, 4, 3, 4]
    assert [len(one) for one in choice["logprobs"]["top_logprobs"][1:5]] == [1, 2, 1, 2]
    assert shared.complete("none", max_tokens=1, logprobs=1, echo=False).status_code == 200
    assert shared.submitted("none")["prompt_logprobs"] is None


@pytest.mark.parametrize("asked", [{"echo": True, "logprobs": 1}, {"prompt_logprobs": 1}])
def test_logits_that_are_not_finite_are_an_error(shared, asked):
    answer = shared.complete("@nan x", max_tokens=1, **asked)
    assert (answer.status_code, "not finite" in answer.text) == (500, True)
    stream = shared.complete("@nan x", max_tokens=1, echo=True, logprobs=1, stream=True)
    assert stream.status_code == 500


def test_scores_that_are_missing_are_an_error(shared):
    answer = shared.complete("@shift=1 x", max_tokens=1, echo=True, logprobs=1)
    assert (answer.status_code, answer.json()["error"]["message"]) == (
        500, "a part of the answer was lost in the server",
    )  # fmt: skip


def test_more_than_an_answer_holds_is_refused(shared):
    prompts = [[5] * 4000] * 13
    answer = shared.complete(prompts, max_tokens=0, echo=True, logprobs=20)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "echo")
    assert "1092000 log-probabilities" in answer.json()["error"]["message"]


def test_a_refusal_names_what_the_client_has_sent(shared):
    for asked, name in (({"echo": True, "logprobs": 1}, "echo"), ({"prompt_logprobs": 1}, "prompt_logprobs")):
        answer = shared.complete("@refuse=400:prompt_logprobs", max_tokens=1, **asked)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, name)
    answer = shared.chat("x", prompt_logprobs=1, stream=True)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "prompt_logprobs")


def test_scores_go_on_where_they_stood(serve):
    """What is behind the front dies in the middle of a prompt; nothing is missing, nothing comes twice."""
    served, asked = serve(), {"max_tokens": 2, "echo": True, "logprobs": 2, "n": 2}
    ((text, logprobs), same) = echoed(served.complete("a b", **asked))
    assert same == (text, logprobs)
    with served.connect() as connection:
        body = {"prompt": "@half a b", **asked}
        connection.sendall(post(body, "/v1/completions", "Connection: close\r\n"))
        served.peer.expect("submit")
        served.peer.process.wait(20)
        served.end_generation()
        served.wire()
        resumed = [served.submitted("half") for _ in range(2)]
        assert [one["scored"] for one in resumed] == [2, ALL_SCORED]
        assert [one["output"] for one in resumed] == [[], []]
        answer = read_all(connection).decode()
    for name in ("token_logprobs", "top_logprobs", "tokens"):
        assert answer.count(f'"{name}":' + orjson.dumps(logprobs[name]).decode()) == 2


def test_offsets_count_the_characters_of_the_echo():
    """A character of several tokens, and a special token that is not shown."""
    text = "x→y"
    ids = TOKENIZER.encode(text)
    tokens = [TOKENIZER.token_text(one) for one in ids]
    assert tokens[0] == "<s>"
    scores = EchoScores(TOKENIZER, 0, len(text), skip_special=True)
    scores.begin(ids[0])
    n = len(ids) - 1
    best = np.zeros((n, 0), np.int32), np.zeros((n, 0), np.float32)
    scores.add(PromptScores(1, 0, 0, np.array(ids[1:], np.int32), -np.ones(n, np.float32), *best))
    columns = orjson.loads(scores.before({name: [] for name in COLUMNS}))
    assert columns["tokens"] == tokens
    assert columns["text_offset"] == [len(TOKENIZER.decode(ids[:i]).rstrip("\ufffd")) for i in range(len(ids))]

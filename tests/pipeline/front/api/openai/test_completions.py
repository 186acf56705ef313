"""OpenAI's /v1/completions: parameters, log-probabilities, refusals. Its forms are in golden/."""

from __future__ import annotations

import json
import tracemalloc

import pytest

from model.demo import DEMO_DIR
from model.tokenizer import load_tokenizer
from pipeline.front.api.openai.answer import StreamOptions
from pipeline.front.api.openai.completions_answer import CompletionWriter, ShownPrompt
from pipeline.front.delivery.job import Identity, events_of
from pipeline.wire.delta import Delta, FinishReason, unpack_delta

TOKENIZER = load_tokenizer(DEMO_DIR)


def events(answer):
    parts = answer.text.split("\n\n")
    assert parts.pop() == ""
    assert all(part.startswith("data: ") for part in parts)
    assert parts.pop() == "data: [DONE]"
    return [json.loads(part.removeprefix("data: ")) for part in parts]


@pytest.mark.parametrize(("reason", "said"), [("length", "length"), ("eos", "stop"), ("stop", "stop")])
def test_finish_reasons(shared, reason, said):
    prompt = f"a @after=2 @reason={reason}"
    assert shared.complete(prompt).json()["choices"][0]["finish_reason"] == said
    assert [chunk["choices"][0]["finish_reason"] for chunk in events(shared.complete(prompt, stream=True))] == [
        None,
        said,
    ]


@pytest.mark.parametrize("names", [None, TOKENIZER])
def test_of_a_token_of_an_answer_in_one_piece_little_is_kept(names):
    """An object that the garbage collector looks at, per token of long answers, would stop the loop for long."""
    writer = CompletionWriter(Identity("0", 0), "m", StreamOptions(), n=1, prompts=[ShownPrompt()], names=names)
    records = [Delta(1, 0, i, i, -1.0, FinishReason.NONE, f"{i:06d}") for i in range(1, 1001)]
    packed = [record.pack() for record in records]
    tracemalloc.start()
    for one in packed:
        writer.choices[0].keep(*events_of(0, [unpack_delta(one)]))
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < len(records) * (80 if names is None else 300)


def test_logprobs(shared):
    def asked(**body):
        return shared.complete("a b", max_tokens=2, **body)

    names = [TOKENIZER.token_text(token) for token in (100, 101, 7, 8)]
    logprobs = asked(logprobs=2).json()["choices"][0]["logprobs"]
    assert logprobs == {
        "text_offset": [0, 1],
        "token_logprobs": [-0.25, -0.5],
        "tokens": names[:2],
        "top_logprobs": [
            {names[2]: -0.5, names[3]: -1.0, names[0]: -0.25}, {names[2]: -0.5, names[3]: -1.0, names[1]: -0.5}
        ],
    }  # fmt: skip
    streamed = [chunk["choices"][0]["logprobs"] for chunk in events(asked(logprobs=2, stream=True))]
    assert {name: [value for chunk in streamed for value in chunk[name]] for name in logprobs} == logprobs
    assert asked(logprobs=0).json()["choices"][0]["logprobs"]["top_logprobs"] == [None, None]
    assert asked(logprobs=None).json()["choices"][0]["logprobs"] is None


@pytest.mark.parametrize("prompt", [[5, 6], [[5, 6]]])
def test_token_ids(shared, prompt):
    assert shared.complete(prompt, max_tokens=2).json()["choices"][0]["text"] == "<5> <6>"


def test_a_list_of_one_prompt(shared):
    assert shared.complete(["x y"], max_tokens=2).json()["choices"][0]["text"] == "x y"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("prompt", "echoed"),
    [("say it", "say it"), ([1, *TOKENIZER.encode("naïve 🦙", add_special=False)], "naïve 🦙"), (["a"], "a")],
)
def test_echo(shared, stream, prompt, echoed):
    """Once, before the first token."""
    plain, answer = (shared.complete(prompt, max_tokens=2, stream=stream, echo=echo) for echo in (False, True))

    def text(answer):
        return "".join(c["choices"][0]["text"] for c in (events(answer) if stream else [answer.json()]))

    assert text(answer) == echoed + text(plain)


def test_special_tokens_of_an_echoed_prompt_are_hidden_or_shown(shared):
    for skip, echoed in ((True, "a"), (False, "<s>a")):
        answer = shared.complete(TOKENIZER.encode("a"), max_tokens=1, echo=True, skip_special_tokens=skip)
        assert answer.json()["choices"][0]["text"].startswith(echoed + "<")


@pytest.mark.parametrize(("add_special_tokens", "wanted"), [(None, True), (True, True), (False, False)])
def test_special_tokens_are_added_or_not(shared, add_special_tokens, wanted):
    shared.complete("specials", max_tokens=1, add_special_tokens=add_special_tokens)
    assert shared.submitted("specials")["add_special"] is wanted


def test_parameters_arrive(shared):
    shared.complete("arriving", max_tokens=1, temperature=0.3, logit_bias={"7": -5, "9": 1.5}, stop="s", seed=-1,
                    user="u", top_k=4, ignore_eos=True, n=1, best_of=1, suffix=None)  # fmt: skip
    seen = shared.submitted("arriving")
    wanted = {"temperature": 0.3, "logit_bias": {"7": -5, "9": 1.5}, "stop": ["s"], "top_k": 4}
    assert {key: seen[key] for key in wanted} == wanted
    assert seen["seed"] >= 0  # -1 and none: the front draws one


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"n": 0}, "n"), ({"n": 129}, "n"), ({"n": True}, "n"), ({"n": 101}, "n"), ({"best_of": 3}, "best_of"),
        ({"best_of": 2, "n": 3}, "best_of"), ({"suffix": "x"}, "suffix"), ({"prompt": ["a"] * 51, "n": 2}, "prompt"),
        ({"min_tokens": 17}, "min_tokens"), ({"min_tokens": 3, "max_tokens": 2}, "min_tokens"), ({"max_tokens": 0},
        "max_tokens"),
        ({"max_tokens": 9999}, "max_tokens"), ({"temperature": -0.1}, "temperature"), ({"logprobs": 21},
        "logprobs"),
        ({"logprobs": True}, "logprobs"), ({"logit_bias": {"x": 1}}, "logit_bias"), ({"logit_bias": {"1": 200}},
        "logit_bias[1]"),
        ({"logit_bias": {"1000": 1}}, "logit_bias"), ({"stop": [""]}, "stop"), ({"stop": 5}, "stop"), ({"echo": 1},
        "echo"),
        ({"echo": True, "logprobs": 21}, "logprobs"), ({"stream": "True"}, "stream"), ({"stream_options": {},
        "stream": True, "x": 1}, "x"),
        ({"stream_options": {"include_usage": True}}, "stream_options"), ({"prompt": None}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a", 5]}, "prompt"), ({"prompt": ["a", [5]]}, "prompt"), ({"prompt": [[5], []]}, "prompt"),
        ({"prompt": [[1000], [1]]}, "prompt"), ({"prompt": [1, 1000]}, "prompt"), ({"prompt": [1, True]}, "prompt"),
        ({"prompt": 5}, "prompt"), ({"seed": "x"}, "seed"), ({"tools": [{}]}, "tools"),
        ({"use_beam_search": True}, "use_beam_search"), ({"response_format": {"type": "xml"}},
        "response_format"), ({"truncate_prompt_tokens": 5}, "truncate_prompt_tokens"),
        ({"prompt_logprobs": 1, "stream": True}, "prompt_logprobs"), ({"prompt_logprobs": -1}, "prompt_logprobs"),
        ({"return_token_ids": True}, "return_token_ids"),
        ({"spaces_between_special_tokens": False}, "spaces_between_special_tokens"), ({"bad_words": ["x"]},
        "bad_words"),
        ({"stream": True, "stream_options": {"include_usage": 1}}, "include_usage"),
        ({"stream": True, "stream_options": {"other": 1}}, "other"),
    ],
)  # fmt: skip
def test_a_parameter_is_honoured_or_refused(shared, body, name):
    answer = shared.http.post("/v1/completions", json={"prompt": "x", **body})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, name)
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_another_model(shared):
    answer = shared.complete("x", model="gpt-4")
    assert (answer.status_code, answer.json()["error"]["type"]) == (404, "not_found_error")
    assert "tiny" in answer.json()["error"]["message"]


def test_refusals_from_behind(shared):
    answer = shared.complete("@refuse=400:prompt")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "prompt")


def test_a_stream_that_fails(shared):
    *chunks, last = events(shared.complete("a b @after=3 @reason=failed", stream=True))
    assert [chunk["choices"][0]["text"] for chunk in chunks] == ["a", " b"]
    assert last["error"]["type"] == "server_error"


@pytest.mark.parametrize(
    "body",
    [
        {"temperature": 0}, {"temperature": 2}, {"temperature": 2.0, "top_p": 1, "top_k": -1}, {"max_tokens": 4096},
        {"logprobs": 20}, {"n": 100, "max_tokens": 1}, {"stop": ["x"] * 64}, {"seed": -(2**63)},
        {"seed": 2**64 - 1}, {"frequency_penalty": -2, "presence_penalty": 2.0}, {"min_p": 1},
        {"repetition_penalty": 1.0, "ignore_eos": False, "min_tokens": 16}, {"top_k": 2**40},
        {"logit_bias": {"999": 100, "0": -100}}, {"n": 2, "best_of": 2}, {"suffix": ""}, {"logprobs": None},
        {"use_beam_search": False, "length_penalty": 1, "spaces_between_special_tokens": True, "priority": 0,
         "truncate_prompt_tokens": None, "response_format": {"type": "text"}, "bad_words": [], "detokenize": True,
         "stop_token_ids": [], "metadata": {"a": "b"}, "return_token_ids": False, "service_tier": "auto"},
        {"stream": False, "stream_options": None}, {"nonsense": None},
    ],
)  # fmt: skip
def test_legal_extremes_and_defaults(shared, body):
    assert shared.complete("x @after=1", **body).status_code == 200


def test_the_limit_is_told_when_a_choice_of_parameters_is_refused(shared):
    message = shared.complete("x", temperature=0.5, n=500).json()["error"]["message"]
    assert message == "n is 500, expected an integer in [1, 100]"  # all choices are queued together
    message = shared.complete(["x"] * 60, n=2).json()["error"]["message"]
    assert message == "60 prompts with n = 2 are 120 sequences; the queue has room for 100"

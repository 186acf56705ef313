"""Whatever a client writes is understood or refused; what is understood fits into the messages of the pipeline."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.demo import DEMO_DIR
from model.tokenizer import load_tokenizer
from pipeline.front.api.body import Reading
from pipeline.front.api.llm_serving.request import parse_llm_serving
from pipeline.front.api.openai.chat import parse_chat
from pipeline.front.api.openai.completions import parse_completion
from pipeline.front.api.responses.request import parse_responses
from pipeline.front.delivery.job import Identity
from pipeline.front.http.errors import ApiError
from pipeline.front.settings import FrontSettings
from pipeline.wire.request import Assign, Choice, Submit, choose_seeds, unpack_message, unpack_request, unpack_row
from tests.examples import examples

IDENTITY = Identity("0" * 32, 0)
TOKENIZER = load_tokenizer(DEMO_DIR)
SETTINGS = FrontSettings(model_name="tiny", vocab_size=100, max_length=64, max_prompt=60, max_rows=2, max_queue=4)

NUMBERS = st.one_of(
    st.integers(-(2**63), 2**64 - 1), st.integers(-3, 120), st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0, 1, 0.5, 1.0, -1, 2**31, 2**63]),
)  # fmt: skip
VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), NUMBERS, st.text(max_size=5), st.sampled_from(["True", "false", "sse", "raw"])
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["1", "99", "100", "x"]), inner, max_size=2)
    ),
    max_leaves=4,
)
COMMON = [
    "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "seed",
    "stop", "stop_token_ids", "ignore_eos", "speculation", "deterministic", "nonsense",
]  # fmt: skip
LLM_SERVING = [
    *COMMON, "do_sample", "max_new_tokens", "min_new_tokens", "topk_k", "return_full_text", "return_protocol",
    "details", "decoder_input_details", "watermark", "top_n_tokens", "truncate", "typical_p", "best_of",
]  # fmt: skip
OPENAI = [
    *COMMON, "model", "max_tokens", "min_tokens", "n", "suffix", "logprobs", "logit_bias", "user", "stream",
    "stream_options", "skip_special_tokens", "include_stop_str_in_output", "add_special_tokens", "response_format",
    "metadata", "bad_words", "use_beam_search", "truncate_prompt_tokens",
]  # fmt: skip
COMPLETIONS = [*OPENAI, "best_of", "echo"]
CHAT = [
    *OPENAI, "max_completion_tokens", "top_logprobs", "tools", "tool_choice", "chat_template_kwargs",
    "add_generation_prompt", "continue_final_message", "reasoning_effort", "modalities",
]  # fmt: skip
RESPONSES = [
    *COMMON, "model", "max_output_tokens", "min_tokens", "instructions", "tools", "tool_choice", "text",
    "parallel_tool_calls", "reasoning", "include", "top_logprobs", "stream", "stream_options", "metadata", "store",
    "truncation",
]  # fmt: skip
ITEM_KEYS = ["type", "role", "content", "call_id", "name", "arguments", "input", "output", "summary", "id"]
ITEM_VALUES = VALUES | st.sampled_from(
    ["message", "function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output", "reasoning"]
)
ITEMS = st.lists(st.dictionaries(st.sampled_from(ITEM_KEYS), ITEM_VALUES, max_size=6), max_size=3) | st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "clown"]), "content": st.text(max_size=9)}),
    min_size=1, max_size=3,
)  # fmt: skip
MESSAGES = st.lists(
    st.dictionaries(st.sampled_from(["role", "content", "name", "tool_calls"]), st.just("user") | VALUES),
    max_size=3,
) | st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "system", "clown"]), "content": st.text(max_size=9)}),
    min_size=1, max_size=3,
)  # fmt: skip


def seeds_of(part):
    seeds = choose_seeds(part.params, part.choices)
    assert len({*seeds, None}) == 1 + (0 if part.params.sampling.greedy else part.choices)
    return seeds


def survives(part):
    """Both ways through the pipeline."""
    choices = [Choice(request, seed) for request, seed in enumerate(seeds_of(part), 1)]
    submit = Submit.of(choices, part.prompt, part.params, add_special=part.add_special)
    received = unpack_message(submit.pack())
    assign = Assign(1, 0, 1, 0, 0, 64, None, (), received.params, b"\0" * 4)
    assert unpack_request(unpack_row(assign.pack()).params) == part.params
    assert 1 <= part.params.max_tokens <= 64
    return received == submit


def check(parse, statuses):
    """A job's parts survive, and each has its choice; a refusal names its parameter."""
    try:
        job = parse()
    except ApiError as error:
        return error.status in statuses and error.parameter is not None and bool(error.body())
    assert job.texts == len(job.writer.choices) <= SETTINGS.max_queue
    return all(map(survives, job.parts))


@examples(400)
@given(st.dictionaries(st.sampled_from(LLM_SERVING), VALUES, max_size=3), st.sampled_from([None, True, False]))
def test_llm_serving(parameters, streamed):
    body = orjson.loads(orjson.dumps({"inputs": "x", "parameters": parameters}))
    assert check(lambda: parse_llm_serving(body, streamed, Reading(SETTINGS)), [422])


@examples(400)
@given(st.dictionaries(st.sampled_from(COMPLETIONS), VALUES, max_size=3), VALUES | st.just("x"))
def test_completions(fields, prompt):
    body = orjson.loads(orjson.dumps({"prompt": prompt, **fields}))
    assert check(lambda: parse_completion(body, IDENTITY, TOKENIZER, Reading(SETTINGS)), [400, 404])


@examples(400)
@given(st.dictionaries(st.sampled_from(CHAT), VALUES, max_size=3), MESSAGES | VALUES)
def test_chat(fields, messages):
    body = orjson.loads(orjson.dumps({"messages": messages, **fields}))
    assert check(lambda: parse_chat(body, IDENTITY, TOKENIZER, Reading(SETTINGS)), [400, 404])


@examples(400)
@given(st.dictionaries(st.sampled_from(RESPONSES), VALUES, max_size=3), ITEMS | VALUES)
def test_responses(fields, items):
    body = orjson.loads(orjson.dumps({"input": items, **fields}))
    assert check(lambda: parse_responses(body, IDENTITY, TOKENIZER, Reading(SETTINGS)), [400, 404])


@pytest.mark.parametrize("top_k", [99, 100, 2**63])
def test_a_top_k_of_the_whole_vocabulary_is_off(top_k):
    wanted = top_k if top_k < 100 else 0
    jobs = [
        parse_completion({"prompt": "x", "top_k": top_k}, IDENTITY, None, Reading(SETTINGS)),
        parse_chat(
            {"messages": [{"role": "user", "content": "x"}], "top_k": top_k}, IDENTITY, TOKENIZER, Reading(SETTINGS)
        ),
        parse_llm_serving(
            {"inputs": "x", "parameters": {"top_k": top_k, "do_sample": True}}, None, Reading(SETTINGS)
        ),
    ]
    assert [job.parts[0].params.sampling.top_k for job in jobs] == [wanted] * 3


@pytest.mark.parametrize("field", [{"logprobs": 1}, {"echo": True}])
def test_without_a_tokenizer_what_needs_one_is_refused(field):
    with pytest.raises(ApiError, match="no tokenizer"):
        parse_completion({"prompt": [1, 2], **field}, IDENTITY, None, Reading(SETTINGS))


def test_what_is_shown_of_a_value_is_short_whatever_it_is():
    deep = []
    for _ in range(900):
        deep = [deep]
    for value in (deep, "x" * 10**6, list(range(10**5)), 1 << 63, {"a": deep}):
        with pytest.raises(ApiError) as caught:
            parse_completion({"prompt": "x", "temperature": {"is": value}}, IDENTITY, None, Reading(SETTINGS))
        assert len(caught.value.message) < 200

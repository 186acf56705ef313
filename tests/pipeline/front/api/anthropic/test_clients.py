"""Anthropic's own package, which sends requests to the parser, and reads what the writer makes of a text."""

from __future__ import annotations

import json

import httpx2
import pytest
from anthropic import Anthropic, APIStatusError, beta_tool
from pydantic import BaseModel

from model.demo import DEMO_DIR
from model.response import choose_format
from model.tokenizer import load_tokenizer
from pipeline.front.api.anthropic.errors import anthropic_refusal
from pipeline.front.api.anthropic.request import parse_count, parse_messages
from pipeline.front.api.body import Reading
from pipeline.front.delivery.job import Begin, Identity
from pipeline.front.http.errors import SERVER, ApiError
from pipeline.front.settings import FrontSettings
from pipeline.wire.delta import Delta, FinishReason
from tests.pipeline.front.conftest import DEFAULTS

TOKENIZER = load_tokenizer(DEMO_DIR)
SETTINGS = FrontSettings(**DEFAULTS, response_format=choose_format(TOKENIZER, "hermes", "think"))
USER = {"role": "user", "content": "How is the weather?"}
TOOL = {"name": "weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>'
FORCED = {"type": "any"}  # a model whose template shows no tools can't choose one


class Model:
    """Writes these texts, a request each; a token has three characters."""

    def __init__(self, *texts, fails=False):
        self.texts, self.fails, self.prompts = list(texts), fails, []

    def __call__(self, request):
        assert request.headers["anthropic-version"]
        body = json.loads(request.content)
        if request.url.path == "/v1/messages/count_tokens":
            prompt = parse_count(body, TOKENIZER, Reading(SETTINGS))
            return httpx2.Response(200, json={"input_tokens": self._count(prompt.text)})
        try:
            job = parse_messages(body, Identity("ab" * 16, 7), TOKENIZER, Reading(SETTINGS))
        except ApiError as error:
            status, told = anthropic_refusal(error, "req_1")
            return httpx2.Response(status, content=told)
        (part,) = job.parts
        self.prompts.append(part.prompt)
        events = [Begin(0, self._count(part.prompt), 0), *self._events(job)]
        if not job.streamed:
            for event in events:
                job.writer.keep(event)
            return httpx2.Response(200, content=job.writer.whole())
        written = b"".join(map(job.writer.write, events))
        failure = job.writer.failure(ApiError(500, "the model failed", kind=SERVER))
        headers = {"content-type": job.writer.content_type.decode()}
        return httpx2.Response(200, headers=headers, content=written + (failure if self.fails else job.writer.tail()))

    def _count(self, prompt):
        return len(TOKENIZER.encode(prompt, add_special=False))

    def _events(self, job):
        text = self.texts.pop(0)
        pieces = [text[at : at + 3] for at in range(0, len(text), 3)]
        tokens = [Delta(1, 0, at, 7, -0.5, FinishReason.NONE, piece) for at, piece in enumerate(pieces, 1)]
        last = Delta(1, 0, len(pieces) + 1, 2, -0.5, FinishReason.NONE if self.fails else FinishReason.EOS, "")
        read = job.reader(0)
        return [event for token in [*tokens, last] for event in read([token])]


def client(model):
    transport = httpx2.Client(transport=httpx2.MockTransport(model))
    return Anthropic(api_key="none", base_url="http://test", http_client=transport, max_retries=0)


ASKED = {"model": "tiny", "max_tokens": 500, "messages": [USER]}


def test_create():
    message = client(Model("<think>\nHm.\n</think>\n\nSunny.")).messages.create(**ASKED)
    thinking, text = message.content
    assert (thinking.thinking, text.text, message.stop_reason) == ("Hm.", "Sunny.", "end_turn")


def test_calls():
    message = client(Model(CALL + "\n" + CALL)).messages.create(**ASKED, tools=[TOOL], tool_choice=FORCED)
    assert message.stop_reason == "tool_use"
    assert [(block.type, block.name, block.input) for block in message.content] == [
        ("tool_use", "weather", {"city": "Rome"})
    ] * 2  # fmt: skip
    assert len({block.id for block in message.content}) == 2


def test_a_stream_is_the_same_message():
    text = "<think>\nHm.\n</think>\n\nLet me see.\n" + CALL
    asked = {**ASKED, "tools": [TOOL], "tool_choice": FORCED}
    whole = client(Model(text)).messages.create(**asked)
    assert [block.type for block in whole.content] == ["thinking", "text", "tool_use"]
    with client(Model(text)).messages.stream(**asked) as stream:
        events = list(stream)
        message = stream.get_final_message()
    assert message.to_dict(exclude_none=True) == whole.to_dict(exclude_none=True)
    texts = "".join(event.text for event in events if event.type == "text")
    assert texts == whole.content[1].text
    assert [event.snapshot for event in events if event.type == "input_json"][-1] == {"city": "Rome"}


def test_a_conversation_with_a_tool():
    """What the package has run for the model comes back to it. It asks for a thread, and goes on without."""

    @beta_tool
    def weather(city: str) -> str:
        """Of a city."""
        return f"sunny in {city}"

    for stream in (False, True):
        model = Model(CALL, "It is sunny.")
        runner = client(model).beta.messages.tool_runner(**ASKED, tools=[weather], tool_choice=FORCED, stream=stream)
        last = None
        for answer in runner:
            last = answer.get_final_message() if stream else answer
        assert last.content[0].text == "It is sunny."
        assert "sunny in Rome" in model.prompts[1]
        assert "sunny in Rome" not in model.prompts[0]


def test_a_count_is_what_the_answer_says():
    asked = {"model": "tiny", "messages": [USER], "system": "Be brief.", "tools": [TOOL], "tool_choice": FORCED}
    anthropic = client(Model("", ""))
    counted = anthropic.messages.count_tokens(**asked).input_tokens
    assert counted > 0
    assert anthropic.messages.create(**asked, max_tokens=5).usage.input_tokens == counted
    with anthropic.messages.stream(**asked, max_tokens=5) as stream:
        first = next(iter(stream))
    assert (first.type, first.message.usage.input_tokens) == ("message_start", counted)


class Weather(BaseModel):
    city: str


def test_an_answer_in_a_form():
    message = client(Model('{"city": "Rome"}')).messages.parse(**ASKED, output_format=Weather)
    assert message.parsed_output == Weather(city="Rome")


def test_a_stream_that_fails():
    with client(Model("Su", fails=True)).messages.stream(**ASKED) as stream, pytest.raises(APIStatusError) as caught:
        list(stream)
    assert caught.value.type == "api_error"
    assert "the model failed" in caught.value.message

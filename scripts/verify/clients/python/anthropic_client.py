"""Anthropic's own client."""

from __future__ import annotations

from typing import Any, Literal

import anthropic
from checks import ABORTED, FORM_TOKENS, MODEL, QUESTION, TOKENS, URL, few, raises, run, same, too_long
from pydantic import BaseModel

client = anthropic.Anthropic(base_url=URL, api_key="none", max_retries=0)
common: dict[str, Any] = {"model": MODEL, "max_tokens": TOKENS, "extra_body": {"temperature": 0}}
WORD: Any = {
    "type": "object",
    "properties": {"word": {"enum": ["ring", "queue"]}},
    "required": ["word"],
    "additionalProperties": False,
}
LOOK_UP: Any = {"name": "look_up", "description": "Look a word up.", "input_schema": WORD}


class Level(BaseModel):
    """The package knows no bounds of numbers, and an emulated model may write digits for ever."""

    level: Literal["low", "high"]


def asked(content: str = QUESTION, **more: Any) -> dict[str, Any]:
    return {**common, "messages": [{"role": "user", "content": content}], **more}


def create() -> None:
    message = client.messages.create(**asked(system="Be brief."))
    assert message.content[0].text
    same((message.stop_reason, message.usage.output_tokens), ("max_tokens", TOKENS))


def stream() -> None:
    with client.messages.stream(**asked()) as answer:
        told = "".join(answer.text_stream)
    same(told, client.messages.create(**asked()).content[0].text)


def usage() -> None:
    with client.messages.stream(**asked()) as answer:
        first, *_ = answer
        last = answer.get_final_message().usage
    given = first.message.usage
    counted = client.messages.count_tokens(model=MODEL, messages=asked()["messages"]).input_tokens
    same(given.input_tokens + given.cache_read_input_tokens, counted)
    same((last.input_tokens, last.output_tokens), (given.input_tokens, TOKENS))


def stops() -> None:
    text = client.messages.create(**asked()).content[0].text
    stop = text[len(text) // 2 :][:3]
    message = client.messages.create(**asked(stop_sequences=["\0no", stop]))
    same((message.stop_reason, message.stop_sequence), ("stop_sequence", stop))


def tools() -> None:
    choice = {"type": "tool", "name": "look_up"}
    options = asked(tools=[LOOK_UP], tool_choice=choice, max_tokens=FORM_TOKENS)
    for answer in (client.messages.create(**options), _streamed(options)):
        (call,) = answer.content
        same((answer.stop_reason, call.type, call.name), ("tool_use", "tool_use", "look_up"))
        assert call.input["word"] in ("ring", "queue")
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "A band."}
    history = [*options["messages"], {"role": "assistant", "content": answer.content}]
    history.append({"role": "user", "content": [result]})
    assert client.messages.create(**{**common, "messages": history}).content


def _streamed(options: dict[str, Any]) -> Any:
    with client.messages.stream(**options) as answer:
        return answer.get_final_message()


def tool_runner() -> None:
    words: list[str] = []

    @anthropic.beta_tool(input_schema=WORD)
    def look_up(word: str) -> str:
        """Look a word up."""
        words.append(word)
        return "A band."

    options = asked(max_tokens=FORM_TOKENS, max_iterations=2)
    runner = client.beta.messages.tool_runner(tools=[look_up], tool_choice={"type": "any"}, **options)
    messages = list(runner)
    same(messages[0].stop_reason, "tool_use")
    assert words


def structured() -> None:
    answer = client.messages.parse(output_format=Level, **asked(max_tokens=FORM_TOKENS))
    assert isinstance(answer.parsed_output, Level)


def abort() -> None:
    with client.messages.stream(**asked(max_tokens=ABORTED)) as answer:
        few(answer)


run(
    "anthropic", create=create, stream=stream, usage=usage, stops=stops, tools=tools, tool_runner=tool_runner,
    unknown_model=lambda: raises(anthropic.NotFoundError, lambda: client.messages.create(**asked(model="no"))),
    too_long=lambda: too_long(anthropic.BadRequestError, lambda content: client.messages.create(**asked(content))),
    abort=abort, structured=structured,
)  # fmt: skip

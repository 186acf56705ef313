"""OpenAI's Agents SDK, on /v1/responses."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import openai
from agents import (
    Agent,
    ModelSettings,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from checks import ABORTED, FORM_TOKENS, MODEL, QUESTION, URL, Reading, raises, run, same, text, too_long

set_tracing_disabled(True)
client = openai.AsyncOpenAI(base_url=f"{URL}/v1", api_key="none", max_retries=0)
loop = asyncio.Runner()
DELTA = "response.output_text.delta"


@function_tool
def set_level(level: Literal["low", "high"]) -> str:
    """Set the level."""
    return f"it is {level}"


def agent(model: str = MODEL, tokens: int = FORM_TOKENS, **more: Any) -> Any:
    settings = {"temperature": 1, "max_tokens": tokens, "extra_body": {"seed": 1}, **more.pop("settings", {})}
    backed = OpenAIResponsesModel(model=model, openai_client=client)
    return Agent(name="one", instructions="Be brief.", model=backed, model_settings=ModelSettings(**settings), **more)


def asked(one: Any, question: Any = QUESTION) -> Any:
    return loop.run(Runner.run(one, question))


def caller() -> Any:
    """It has to call its tool, whose result is its answer."""
    settings = {"tool_choice": "required", "parallel_tool_calls": False}
    return agent(tools=[set_level], tool_use_behavior="stop_on_first_tool", settings=settings)


def create() -> None:
    assert isinstance(asked(agent(output_type=Reading)).final_output, Reading)


def tools() -> None:
    assert asked(caller()).final_output in ("it is low", "it is high")


def conversation() -> None:
    """A call and its result are sent back, with another question."""
    items = asked(caller()).to_input_list()
    same([item["type"] for item in items if "type" in item], ["function_call", "function_call_output"])
    answer = asked(agent(output_type=Reading), [*items, {"role": "user", "content": QUESTION}])
    assert isinstance(answer.final_output, Reading)


def stream() -> None:
    async def told() -> tuple[str, Any]:
        answer = Runner.run_streamed(agent(output_type=Reading), QUESTION)
        raw = [one.data async for one in answer.stream_events() if one.type == "raw_response_event"]
        return text(event.delta for event in raw if event.type == DELTA), answer.final_output

    pieces, reading = loop.run(told())
    same(Reading.model_validate_json(pieces), reading)


def usage() -> None:
    counts = asked(caller()).context_wrapper.usage
    same(counts.total_tokens, counts.input_tokens + counts.output_tokens)
    assert counts.output_tokens > 0


def abort() -> None:
    async def leave() -> None:
        answer = Runner.run_streamed(agent(tokens=ABORTED), QUESTION)
        async for event in answer.stream_events():
            if event.type == "raw_response_event" and event.data.type == DELTA:
                answer.cancel()
                return
        raise AssertionError("the stream was over before it could be left")

    loop.run(leave())


run(
    "openai-agents", create=create, stream=stream, usage=usage, tools=tools, conversation=conversation,
    unknown_model=lambda: raises(openai.NotFoundError, asked, agent("no")),
    too_long=lambda: too_long(openai.BadRequestError, lambda prompt: asked(agent(), prompt)), abort=abort,
)  # fmt: skip
loop.run(client.close())
loop.close()

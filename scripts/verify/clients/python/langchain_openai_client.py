"""LangChain over OpenAI's API."""

from __future__ import annotations

from typing import Any

import openai
from checks import ABORTED, FORM_TOKENS, MODEL, QUESTION, TOKENS, URL, Reading, few, raises, run, same, text, too_long
from langchain_core.exceptions import ContextOverflowError
from langchain_openai import ChatOpenAI


def model(name: str = MODEL, tokens: int = TOKENS) -> Any:
    return ChatOpenAI(
        model=name, base_url=f"{URL}/v1", api_key="none", temperature=0, max_tokens=tokens, max_retries=0,
        stream_usage=True,
    )  # fmt: skip


def create() -> None:
    answer = model().invoke([("system", "Be brief."), ("user", QUESTION)])
    assert answer.content
    again = model().invoke([("user", QUESTION), answer, ("user", "And now?")])
    assert again.usage_metadata["input_tokens"] > answer.usage_metadata["input_tokens"]


def stream() -> None:
    told = text(chunk.content for chunk in model().stream(QUESTION))
    same(told, model().invoke(QUESTION).content)


def usage() -> None:
    counts = [chunk.usage_metadata for chunk in model().stream(QUESTION) if chunk.usage_metadata]
    same([count["output_tokens"] for count in counts if count["output_tokens"]], [TOKENS])


def structured() -> None:
    chain = model(tokens=FORM_TOKENS).with_structured_output(Reading, method="json_schema")
    assert isinstance(chain.invoke(QUESTION), Reading)


def abort() -> None:
    answer = model(tokens=ABORTED).stream(QUESTION)
    few(answer)
    answer.close()


run(
    "langchain-openai", create=create, stream=stream, usage=usage,
    unknown_model=lambda: raises(openai.NotFoundError, model("no").invoke, QUESTION),
    too_long=lambda: too_long(ContextOverflowError, model().invoke),
    too_many_max_tokens=lambda: raises(ContextOverflowError, model(tokens=4096).invoke, QUESTION), abort=abort,
    structured=structured,
)  # fmt: skip

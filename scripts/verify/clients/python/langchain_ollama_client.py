"""LangChain over Ollama's API."""

from __future__ import annotations

from typing import Any

import ollama
from checks import ABORTED, FORM_TOKENS, MODEL, QUESTION, TOKENS, URL, Reading, few, raises, run, same, text, too_long
from langchain_ollama import ChatOllama, OllamaLLM


def model(name: str = MODEL, tokens: int = TOKENS, **more: Any) -> Any:
    return ChatOllama(
        model=name, base_url=URL, temperature=0, num_predict=tokens, num_ctx=512, keep_alive="5m", **more
    )


def create() -> None:
    answer = model(validate_model_on_init=True).invoke([("system", "Be brief."), ("user", QUESTION)])
    assert answer.content
    same(answer.response_metadata["done_reason"], "length")
    again = model().invoke([("user", QUESTION), answer, ("user", "And now?")])
    assert again.usage_metadata["input_tokens"] > answer.usage_metadata["input_tokens"]
    assert OllamaLLM(model=MODEL, base_url=URL, num_predict=TOKENS).invoke(QUESTION)


def stream() -> None:
    told = text(chunk.content for chunk in model().stream(QUESTION))
    same(told, model().invoke(QUESTION).content)


def usage() -> None:
    counts = [chunk.usage_metadata for chunk in model().stream(QUESTION) if chunk.usage_metadata]
    same([count["output_tokens"] for count in counts], [TOKENS])


def structured() -> None:
    chain = model(tokens=FORM_TOKENS).with_structured_output(Reading, method="json_schema")
    assert isinstance(chain.invoke(QUESTION), Reading)


def abort() -> None:
    answer = model(tokens=ABORTED).stream(QUESTION)
    few(answer)
    answer.close()


def logprobs() -> None:
    answer = model(logprobs=True, top_logprobs=2).invoke(QUESTION)
    same(len(answer.response_metadata["logprobs"]), TOKENS)


run(
    "langchain-ollama", create=create, stream=stream, usage=usage,
    unknown_model=lambda: raises(ollama.ResponseError, model("no").invoke, QUESTION),
    too_long=lambda: too_long(ollama.ResponseError, model().invoke), abort=abort, logprobs=logprobs,
    structured=structured,
)  # fmt: skip

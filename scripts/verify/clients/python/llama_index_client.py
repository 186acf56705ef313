"""LlamaIndex over OpenAI's API and over Ollama's."""

from __future__ import annotations

from typing import Any

import openai
from checks import ABORTED, MODEL, QUESTION, TOKENS, URL, few, raises, run, same, text, too_long
from llama_index.core.llms import ChatMessage
from llama_index.llms.ollama import Ollama
from llama_index.llms.openai_like import OpenAILike


def model(name: str = MODEL, tokens: int = TOKENS, **more: Any) -> Any:
    return OpenAILike(
        model=name, api_base=f"{URL}/v1", api_key="none", temperature=0, max_tokens=tokens, max_retries=0,
        is_chat_model=True, context_window=1024, **more,
    )  # fmt: skip


def ollama() -> Any:
    options = {"num_predict": TOKENS}
    return Ollama(model=MODEL, base_url=URL, temperature=0, context_window=512, additional_kwargs=options)


def ask(content: str = QUESTION, of: Any = None) -> Any:
    return (of or model()).chat([ChatMessage(role="user", content=content)])


def create() -> None:
    for of in (model(), ollama()):
        assert ask(of=of).message.content
    assert model().complete(QUESTION).text


def stream() -> None:
    for of in (model(), ollama()):
        told = text(part.delta for part in of.stream_chat([ChatMessage(role="user", content=QUESTION)]))
        same(told, ask(of=of).message.content)


def usage() -> None:
    same(ask().raw.usage.completion_tokens, TOKENS)
    same(ask(of=ollama()).raw["eval_count"], TOKENS)


def abort() -> None:
    answer = model(tokens=ABORTED).stream_chat([ChatMessage(role="user", content=QUESTION)])
    few(answer)
    answer.close()


run(
    "llama-index-llms-openai-like", create=create, stream=stream, usage=usage,
    unknown_model=lambda: raises(openai.NotFoundError, ask, QUESTION, model("no")),
    too_long=lambda: too_long(openai.BadRequestError, ask), abort=abort,
)  # fmt: skip

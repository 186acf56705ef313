"""litellm: what it makes of errors is what agents built on it react to."""

from __future__ import annotations

from typing import Any

import litellm
from checks import ABORTED, MODEL, QUESTION, TOKENS, URL, few, raises, run, same, text, too_long

PROVIDERS = {"openai": f"{URL}/v1", "hosted_vllm": f"{URL}/v1", "ollama_chat": URL}


def chat(content: str = QUESTION, model: str = MODEL, provider: str = "openai", **more: Any) -> Any:
    messages = [{"role": "user", "content": content}]
    options = {"temperature": 0, "max_tokens": TOKENS, **more}
    return litellm.completion(
        f"{provider}/{model}", messages, api_base=PROVIDERS[provider], api_key="none", num_retries=0, **options
    )


def each(check: Any) -> None:
    for provider in PROVIDERS:
        check(provider)


def create(provider: str) -> None:
    answer = chat(provider=provider)
    assert answer.choices[0].message.content
    same(answer.usage.completion_tokens, TOKENS)


def stream(provider: str) -> None:
    told = text(chunk.choices[0].delta.content for chunk in chat(provider=provider, stream=True))
    same(told, chat(provider=provider).choices[0].message.content)


def usage() -> None:
    chunks = list(chat(stream=True, stream_options={"include_usage": True}))
    same(chunks[-1].usage.completion_tokens, TOKENS)


def long() -> None:
    too_long(litellm.ContextWindowExceededError, chat)
    too_long(litellm.ContextWindowExceededError, lambda content: chat(content, provider="hosted_vllm"))


def beyond() -> None:
    """`max_tokens` that no context has room for."""
    raises(litellm.ContextWindowExceededError, lambda: chat(max_tokens=4096))


def unknown() -> None:
    raises(litellm.NotFoundError, chat, QUESTION, "no")
    raises(litellm.NotFoundError, chat, QUESTION, "no", "hosted_vllm")


def abort() -> None:
    answer = chat(stream=True, max_tokens=ABORTED)
    few(answer)
    answer.completion_stream.close()


run(
    "litellm", create=lambda: each(create), stream=lambda: each(stream), usage=usage, unknown_model=unknown,
    too_long=long, too_many_max_tokens=beyond, abort=abort,
)  # fmt: skip

"""huggingface_hub's InferenceClient."""

from __future__ import annotations

from typing import Any

from checks import ABORTED, MODEL, QUESTION, TOKENS, URL, few, raises, run, same, text, too_long
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError

client = InferenceClient(base_url=f"{URL}/v1", api_key="none")


def chat(content: str = QUESTION, model: str | None = MODEL, **more: Any) -> Any:
    messages = [{"role": "user", "content": content}]
    return client.chat_completion(messages, model=model, **{"temperature": 0, "max_tokens": TOKENS, **more})


def create() -> None:
    answer = chat()
    assert answer.choices[0].message.content
    same(answer.usage.completion_tokens, TOKENS)


def stream() -> None:
    told = text(chunk.choices[0].delta.content for chunk in chat(stream=True) if chunk.choices)
    same(told, chat().choices[0].message.content)


def usage() -> None:
    chunks = list(chat(stream=True, stream_options={"include_usage": True}))
    same(chunks[-1].usage.completion_tokens, TOKENS)


def abort() -> None:
    answer = chat(stream=True, max_tokens=ABORTED)
    few(answer)
    answer.close()


def generation() -> None:
    route = InferenceClient(model=f"{URL}/models/llama2/generate")
    assert route.text_generation(QUESTION, max_new_tokens=TOKENS)


run(
    "huggingface_hub", create=create, stream=stream, usage=usage,
    unknown_model=lambda: raises(HfHubHTTPError, chat, QUESTION, "no"),
    too_long=lambda: too_long(HfHubHTTPError, chat), abort=abort, text_generation=generation,
    without_a_model=lambda: chat(model=None),
)  # fmt: skip

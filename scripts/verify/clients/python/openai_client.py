"""The official client of OpenAI's API."""

from __future__ import annotations

from typing import Any

import openai
from checks import ABORTED, FORM_TOKENS, MODEL, QUESTION, TOKENS, URL, Reading, few, raises, run, same, text, too_long

client = openai.OpenAI(base_url=f"{URL}/v1", api_key="none", max_retries=0)
common: dict[str, Any] = {"temperature": 0, "max_tokens": TOKENS}


def chat(content: str = QUESTION, model: str = MODEL, **more: Any) -> Any:
    messages: Any = [{"role": "user", "content": content}]
    return client.chat.completions.create(model=model, messages=messages, **{**common, **more})


def create() -> None:
    answer = chat()
    assert answer.choices[0].message.content
    same(answer.usage.completion_tokens, TOKENS)
    completion = client.completions.create(model=MODEL, prompt=QUESTION, **common)
    same(completion.choices[0].finish_reason, "length")


def stream() -> None:
    chunks = list(chat(stream=True, stream_options={"include_usage": True}))
    told = text(chunk.choices[0].delta.content for chunk in chunks if chunk.choices)
    same(told, chat().choices[0].message.content)


def usage() -> None:
    *_, last = chat(stream=True, stream_options={"include_usage": True})
    same(last.usage.completion_tokens, TOKENS)


def structured() -> None:
    messages: Any = [{"role": "user", "content": QUESTION}]
    options: Any = {"model": MODEL, "messages": messages, "max_tokens": FORM_TOKENS, "temperature": 0}
    answer = client.chat.completions.parse(response_format=Reading, **options)
    assert isinstance(answer.choices[0].message.parsed, Reading)
    told = client.chat.completions.create(extra_body={"structured_outputs": {"choice": ["yes", "no"]}}, **options)
    assert told.choices[0].message.content in ("yes", "no")


def responses() -> None:
    options: Any = {"model": MODEL, "input": QUESTION, "temperature": 0}
    answer = client.responses.create(max_output_tokens=TOKENS, **options)
    same((answer.status, answer.usage.output_tokens if answer.usage else None), ("incomplete", TOKENS))
    with client.responses.stream(text_format=Reading, max_output_tokens=FORM_TOKENS, **options) as told:
        pieces = text(event.delta for event in told if event.type == "response.output_text.delta")
        reading = told.get_final_response().output_parsed
    same(Reading.model_validate_json(pieces), reading)
    with client.responses.create(max_output_tokens=ABORTED, stream=True, **options) as left:
        few(left)


def long() -> None:
    def code(content: str) -> None:
        try:
            chat(content)
        except openai.BadRequestError as error:
            same(error.code, "context_length_exceeded")
            raise

    too_long(openai.BadRequestError, code)


def abort() -> None:
    with chat(stream=True, max_tokens=ABORTED) as answer:
        few(answer)


def models() -> None:
    same([model.id for model in client.models.list()], [MODEL, "dummy"])
    other = openai.OpenAI(base_url=f"{URL}/", api_key="none", max_retries=0)
    same(other.models.retrieve(MODEL).id, MODEL)  # a base URL without /v1, which ends with a slash


def base_urls() -> None:
    """One that ends with a slash, and Azure's header of a key."""
    other = openai.OpenAI(base_url=f"{URL}//v1", api_key="none", default_headers={"api-key": "x"}, max_retries=0)
    same(other.models.retrieve(MODEL).id, MODEL)


run(
    "openai", create=create, stream=stream, usage=usage,
    unknown_model=lambda: raises(openai.NotFoundError, chat, QUESTION, "no"), too_long=long, abort=abort,
    models=models, base_urls=base_urls, structured=structured, responses=responses,
)  # fmt: skip

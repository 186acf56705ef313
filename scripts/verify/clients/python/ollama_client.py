"""Ollama's own client."""

from __future__ import annotations

from typing import Any

import ollama
from checks import ABORTED, FORM_TOKENS, MODEL, QUESTION, TOKENS, URL, Reading, few, run, same, text, too_long

client = ollama.Client(host=URL)


def chat(content: str = QUESTION, model: str = MODEL, tokens: int = TOKENS, **more: Any) -> Any:
    messages = [{"role": "user", "content": content}]
    return client.chat(model, messages, options={"temperature": 0, "num_predict": tokens}, **more)


def create() -> None:
    answer = chat(keep_alive="5m", think=False)
    same((answer.done, answer.done_reason, answer.message.role), (True, "length", "assistant"))
    history = [{"role": "user", "content": QUESTION}, answer.message, {"role": "user", "content": "And now?"}]
    assert (
        client.chat(MODEL, history, options=ollama.Options(num_predict=1)).prompt_eval_count
        > answer.prompt_eval_count
    )
    generated = client.generate(MODEL, QUESTION, system="Be brief.", options={"num_predict": TOKENS})
    assert generated.response
    assert client.generate(MODEL, QUESTION, raw=True, options={"num_predict": TOKENS}).eval_count == TOKENS


def stream() -> None:
    same(text(part.message.content for part in chat(stream=True)), chat().message.content)
    parts = client.generate(MODEL, QUESTION, stream=True, options={"num_predict": TOKENS})
    assert text(part.response for part in parts)


def usage() -> None:
    *_, last = chat(stream=True)
    same((last.eval_count, last.done_reason), (TOKENS, "length"))
    assert last.total_duration >= last.eval_duration > 0


def unknown() -> None:
    for call in (lambda: chat(model="no"), lambda: list(chat(model="no", stream=True)), lambda: client.show("no")):
        try:
            call()
        except ollama.ResponseError as error:
            same((error.status_code, "'no' not found" in error.error), (404, True))
        else:
            raise AssertionError("no error")


def structured() -> None:
    answer = chat(tokens=FORM_TOKENS, format=Reading.model_json_schema())
    assert Reading.model_validate_json(answer.message.content)


def abort() -> None:
    answer = chat(tokens=ABORTED, stream=True)
    few(answer)
    answer.close()


def models() -> None:
    same([model.model for model in client.list().models], [f"{MODEL}:latest"])
    same([model.name for model in client.ps().models], [f"{MODEL}:latest"])
    same(client.show(f"{MODEL}:latest").capabilities, ["completion"])
    same(client.generate(MODEL).done_reason, "load")


def logprobs() -> None:
    same(len(chat(logprobs=True, top_logprobs=3).logprobs), TOKENS)


run(
    "ollama", create=create, stream=stream, usage=usage, unknown_model=unknown,
    too_long=lambda: too_long(ollama.ResponseError, chat), abort=abort, models=models, logprobs=logprobs,
    structured=structured,
)  # fmt: skip

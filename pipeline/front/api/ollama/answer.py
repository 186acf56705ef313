"""Answers in Ollama's form: one JSON object, or one per line; the last of them has the counts and the times."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import ClassVar, Final

import orjson

from model.tokenizer import Tokenizer
from pipeline.front.api.openai.chat_answer import named_tokens
from pipeline.front.delivery.job import Begin, End, Event, Identity, Text, Times, unwritable
from pipeline.front.http.errors import ApiError
from pipeline.wire.delta import Delta, FinishReason

CHAT: Final = b'"message":{"role":"assistant","content":%b}'
GENERATE: Final = b'"response":%b'
"""Where a text stands in the answers of /api/chat and /api/generate."""

_REASONS = {FinishReason.LENGTH: b"length", FinishReason.EOS: b"stop", FinishReason.STOP: b"stop"}
_CONTINUES = FinishReason.NONE
_LAST = (
    b'"done":true,"done_reason":"%b","total_duration":%d,"load_duration":0,"prompt_eval_count":%d,'
    b'"prompt_eval_duration":%d,"eval_count":%d,"eval_duration":%d'
)


def ollama_error(error: ApiError) -> bytes:
    """The JSON form of an error, which has nothing but a message."""
    return orjson.dumps({"error": error.message})


def timestamp(seconds: int) -> str:
    """Of Unix time."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class OllamaWriter:
    """`form`: CHAT or GENERATE. `names`: of tokens, if log-probabilities are wanted. An answer for which nothing was
    generated says that the model is loaded."""

    content_type = b"application/x-ndjson"
    PING: ClassVar[bytes] = b""

    def __init__(self, identity: Identity, model: str, form: bytes, names: Tokenizer | None) -> None:
        heading = orjson.dumps({"model": model, "created_at": timestamp(identity.created)})[:-1]
        self._form, self._names = heading.replace(b"%", b"%%") + b"," + form + b",", names
        self._plain = self._form + b'"done":false}\n'
        self._prompt_tokens = self._tokens = 0
        self._reason = b"load"
        self._times = Times(0, 0, 0)
        self._texts: list[str] = []
        self._kept: list[Delta] = []

    @property
    def choices(self) -> tuple[OllamaWriter]:
        """Exactly one."""
        return (self,)

    def measured(self, times: Times) -> None:
        """Comes before `tail` or `whole`."""
        self._times = times

    def write(self, event: Event) -> bytes:
        if type(event) is not Text:
            self._note(event)
            return b""
        if self._names is not None:
            logprobs = orjson.dumps(named_tokens(self._names, [event.token]))
            return self._form % orjson.dumps(event.text) + b'"done":false,"logprobs":%b}\n' % logprobs
        if not event.text and event.token.reason is not _CONTINUES:
            return b""  # the last token has no text, such as EOS
        return self._plain % orjson.dumps(event.text)

    def keep(self, event: Event) -> None:
        if type(event) is not Text:
            self._note(event)
            return
        self._texts.append(event.text)
        if self._names is not None:
            self._kept.append(event.token)

    def _note(self, event: Event) -> None:
        """What is no text."""
        match event:
            case Begin():
                self._prompt_tokens = event.prompt_tokens
            case End():
                self._reason, self._tokens = _REASONS.get(event.reason, b""), event.token.index
            case _:
                raise unwritable(self, event)

    def tail(self) -> bytes:
        return self._last("") + b"}\n"

    def whole(self) -> bytes:
        last = self._last("".join(self._texts))
        if self._names is None:
            return last + b"}"
        return last + b',"logprobs":%b}' % orjson.dumps(named_tokens(self._names, self._kept))

    def _last(self, text: str) -> bytes:
        times = self._times
        counts = (self._prompt_tokens, times.prompt_ns, self._tokens, times.output_ns)
        return self._form % orjson.dumps(text) + _LAST % (self._reason, times.total_ns, *counts)

    def failure(self, error: ApiError) -> bytes:
        return ollama_error(error) + b"\n"

    def translate(self, error: ApiError) -> ApiError:
        """There are no names of parameters beside the message."""
        return error

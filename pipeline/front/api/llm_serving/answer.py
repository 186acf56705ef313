"""Answers in llm-serving's form: one JSON object per line, spaced as it writes them.

The constant parts of a line are bytes made once; only ids, numbers and the text vary.
"""

from __future__ import annotations

from typing import ClassVar

import orjson

from model.tokenizer import Vocabulary
from pipeline.front.delivery.job import Begin, End, Event, Text, unwritable
from pipeline.front.http.errors import ApiError
from pipeline.wire.delta import FinishReason, PromptScores

_TOKEN = b'{"id": %d, "logprob": %b, "special": %b, "text": %b}'
_DATA = b'{"details": null, "generated_text": %b, "tokens": %b, "top_tokens": [%b]}'
_SSE = b'{"event": "message", "retry": 30000, "data": %b}\n'
_RAW = b"data:%b\n"
_LAST = (
    b'{"details": %b, "generated_text": %b, "finish_reason": %b, "generated_tokens": %d, "prefill": [%b], '
    b'"seed": %d, "tokens": [%b], "top_tokens": [[%b]]}'
)
_WHOLE = (
    b'{"generated_text": %b, "finish_reason": %b, "generated_tokens": %d, "prefill": [%b], "seed": %d, '
    b'"tokens": [%b], "top_tokens": [[%b]], "details": %b}\n'
)
_DETAILS = b'{"finish_reason": %b, "generated_tokens": %d, "seed": %d, "prefill": [%b], "tokens": [%b]}'
_FAILED = b'{"details": null, "generated_text": "", "finish_reason": "predict_failed", "error": %b}'
_REASONS = {FinishReason.LENGTH: b'"length"', FinishReason.EOS: b'"eos"', FinishReason.STOP: b'"stop"'}
_TGI_REASONS = {b'"eos"': b'"eos_token"', b'"stop"': b'"stop_sequence"'}
_NAMES = {"prompt": "inputs", "max_tokens": "max_new_tokens", "prompt_logprobs": "decoder_input_details"}


class Prefill:
    """The prompt's tokens with their log-probabilities; the first has none."""

    def __init__(self, names: Vocabulary) -> None:
        self._names, self._tokens = names, list[bytes]()

    def begin(self, first_id: int) -> None:
        self._add(first_id, b"null")

    def add(self, scores: PromptScores) -> None:
        for token_id, logprob in zip(scores.ids.tolist(), scores.logprobs.tolist(), strict=True):
            self._add(token_id, number(logprob))

    def _add(self, token_id: int, logprob: bytes) -> None:
        special = b"true" if token_id in self._names.special_ids else b"false"
        self._tokens.append(_TOKEN % (token_id, logprob, special, orjson.dumps(self._names.token_text(token_id))))

    def json(self) -> bytes:
        """The elements of a list."""
        return b", ".join(self._tokens)


class LlmServingWriter:
    """`raw`: lines `data:{…}` without the object that protocol "sse" puts around. `whole_at_end`: a last line with
    the whole text. `details`: as text-generation-inference has them. `prefill`: the prompt's tokens."""

    content_type = b"text/event-stream"
    END: ClassVar[bytes] = b"\n"
    PING: ClassVar[bytes] = b""  # lines of JSON are no server-sent events

    def __init__(
        self, *, raw: bool, whole_at_end: bool, seed: int, details: bool = False, prefill: Prefill | None = None
    ) -> None:
        self._line = _RAW if raw else _SSE
        self._text = self._line % _DATA
        self._whole_at_end, self._seed = whole_at_end, seed
        self._details, self._prefill = details, prefill
        self._tokens: list[bytes] = []
        self._texts: list[str] = []
        self._reason = b"null"

    @property
    def choices(self) -> tuple[LlmServingWriter]:
        """Exactly one."""
        return (self,)

    def write(self, event: Event) -> bytes:
        if type(event) is not Text:
            self._note(event)
            return b""
        token, text = _token(event)
        if self._whole_at_end:
            self._keep(event, token)
        return self._text % (text, token, token)

    def keep(self, event: Event) -> None:
        if type(event) is Text:
            self._keep(event, _token(event)[0])
        else:
            self._note(event)

    def _keep(self, event: Text, token: bytes) -> None:
        self._tokens.append(token)
        self._texts.append(event.text)

    def _note(self, event: Event) -> None:
        """What is no text."""
        if isinstance(event, End):
            self._reason = _REASONS.get(event.reason, b"null")
        elif not isinstance(event, Begin):
            raise unwritable(self, event)

    def tail(self) -> bytes:
        return self._line % (_LAST % (self._detailed(), *self._everything())) if self._whole_at_end else b""

    def whole(self) -> bytes:
        return _WHOLE % (*self._everything(), self._detailed())

    def _everything(self) -> tuple[bytes, bytes, int, bytes, int, bytes, bytes]:
        """`prefill`, unless it is the prompt, and `top_tokens` hold the first token, as llm-serving has it."""
        text, first = orjson.dumps("".join(self._texts)), self._tokens[0]
        prefill = first if self._prefill is None else self._prefill.json()
        return text, self._reason, len(self._tokens), prefill, self._seed, b", ".join(self._tokens), first

    def _detailed(self) -> bytes:
        if not self._details:
            return b"null"
        reason, count = _TGI_REASONS.get(self._reason, self._reason), len(self._tokens)
        prefill = b"" if self._prefill is None else self._prefill.json()
        return _DETAILS % (reason, count, self._seed, prefill, b", ".join(self._tokens))

    def failure(self, error: ApiError) -> bytes:
        return self._line % (_FAILED % orjson.dumps(orjson.loads(error.body())["error"]))

    def translate(self, error: ApiError) -> ApiError:
        """Errors of the prompt have types of their own in llm-serving, and status 422 here."""
        if error.parameter is None or error.status != 400:
            return error
        kind = error.kind
        if error.parameter == "prompt":
            kind = "prompt_token_ids_empty" if "no tokens" in error.message else "prompt_out_of_range"
        parameter = _NAMES.get(error.parameter, error.parameter)
        return ApiError(422, error.message, kind=kind, parameter=parameter, code=error.code, headers=error.headers)


def _token(event: Text) -> tuple[bytes, bytes]:
    """The token and its text, as JSON. A token that completes no character is "special"."""
    token, text = event.token, orjson.dumps(event.text)
    special = b"false" if event.text else b"true"
    return _TOKEN % (token.token_id, number(token.logprob), special, text), text


def number(logprob: float) -> bytes:
    """JSON of a log-probability; float32 has no more than these digits. null where none was asked for."""
    return b"null" if logprob != logprob else b"%.7g" % (logprob if logprob > -9999.0 else -9999.0)  # noqa: PLR0124 - NaN

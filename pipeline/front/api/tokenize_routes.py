"""Handlers of /tokenize and /detokenize, in vLLM's form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from model.tokenizer import InvalidTextError, Tokenizer
from pipeline.front.api.fields import Fields, as_token_ids
from pipeline.front.api.json_body import parse_object
from pipeline.front.api.openai.chat_messages import read_prompt
from pipeline.front.api.openai.fields import INVALID_STATUS, check_model
from pipeline.front.http.errors import ApiError
from pipeline.front.http.exchange import Exchange
from pipeline.front.http.worker import Worker
from pipeline.front.settings import FrontSettings
from pipeline.runtime import background
from pipeline.wire.request import TOO_LONG

_SMALL_BODY = 2048  # bytes; up to there a thread would take longer than the tokenizer
_MOST_IDS = 1 << 18  # that are returned, unless a sequence can be longer; many more would delay other clients


@dataclass(frozen=True, slots=True)
class _TokenizeRequest:
    prompt: str
    add_special: bool
    with_names: bool


class TokenizeRoutes:
    """The tokenizer runs in a thread of low priority: the longest prompt takes it seconds. Python code runs in the
    parser's thread instead: at low priority it could lose its CPU while it holds the GIL, and so block the event
    loop."""

    def __init__(self, settings: FrontSettings, tokenizer: Tokenizer | None, parser: Worker) -> None:
        self._settings, self._tokenizer, self._parser = settings, tokenizer, parser
        self._worker = Worker("tokenizer", background.lower_priority)

    def close(self) -> None:
        self._worker.close()

    async def tokenize(self, exchange: Exchange) -> None:
        content = await exchange.read_body()
        if len(content) <= _SMALL_BODY:
            await exchange.respond(200, self._tokenize(parse_object(content)))
            return
        asked = await self._parser.run(exchange, lambda: self._parse(parse_object(content)))
        encoded = await self._worker.run(exchange, lambda: self._encode(asked))
        await exchange.respond(200, await self._parser.run(exchange, lambda: self._answer(asked, *encoded)))

    async def detokenize(self, exchange: Exchange) -> None:
        content = await exchange.read_body()
        if len(content) <= _SMALL_BODY:
            await exchange.respond(200, self._detokenize(parse_object(content)))
            return
        text = await self._parser.run(exchange, lambda: self._detokenize(parse_object(content)))
        await exchange.respond(200, text)

    def _tokenize(self, body: dict[str, Any]) -> bytes:
        asked = self._parse(body)
        return self._answer(asked, *self._encode(asked))

    def _parse(self, body: dict[str, Any]) -> _TokenizeRequest:
        fields, tokenizer = self._read(body)
        with_names = fields.boolean("return_token_strs", False)
        prompt, add_special = self._prompt(fields, tokenizer)
        fields.done()
        return _TokenizeRequest(prompt, add_special, with_names)

    def _encode(self, asked: _TokenizeRequest) -> tuple[int, NDArray[np.int32]]:
        """The number of token ids, and the ids."""
        assert self._tokenizer is not None  # `_read` checked
        most = max(_MOST_IDS, self._settings.max_length)
        try:
            count, ids = self._tokenizer.encode_up_to(asked.prompt, most, add_special=asked.add_special)
        except InvalidTextError as error:
            raise ApiError(INVALID_STATUS, str(error), parameter="prompt") from None
        if count > most:
            message = f"the prompt has {count} tokens; at most {most} can be returned here"
            raise ApiError(INVALID_STATUS, message, parameter="prompt", code=TOO_LONG)
        return count, ids

    def _answer(self, asked: _TokenizeRequest, count: int, ids: NDArray[np.int32]) -> bytes:
        assert self._tokenizer is not None
        names = list(map(self._tokenizer.token_text, ids.tolist())) if asked.with_names else None
        answer = {"count": count, "max_model_len": self._settings.max_length, "tokens": ids, "token_strs": names}
        return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)

    def _prompt(self, fields: Fields, tokenizer: Tokenizer) -> tuple[str, bool]:
        """The prompt, or the one rendered from messages; and whether BOS is still to be added."""
        settings = self._settings
        if not fields.has("messages"):
            prompt = fields.text("prompt")
            if prompt is None:
                raise fields.invalid("prompt", "prompt is missing: expected a string; or send messages")
            prompt = fields.limit_text("prompt", prompt, settings.prompt_limit_chars, settings.max_prompt)
            return prompt, fields.boolean("add_special_tokens", True)
        if fields.has("prompt"):
            raise fields.invalid("prompt", "prompt and messages are both given; send only one of them")
        fields.restrict({"tools": ([],), "chat_template": ()})
        return read_prompt(fields, tokenizer, settings), fields.boolean("add_special_tokens", False)

    def _detokenize(self, body: dict[str, Any]) -> bytes:
        fields, tokenizer = self._read(body)
        given, vocab, most = fields.take("tokens"), self._settings.vocab_size, self._settings.max_length
        fields.done()
        if isinstance(given, list) and len(given) > most:
            raise fields.invalid("tokens", f"tokens has {len(given)} ids; the model's longest sequence has {most}")
        ids = as_token_ids(given, vocab)
        if ids is None and given != []:
            fields.refuse("tokens", f"a list of token ids in [0, {vocab - 1}]")
        return orjson.dumps({"prompt": tokenizer.decode(ids or (), skip_special=False)})

    def _read(self, body: dict[str, Any]) -> tuple[Fields, Tokenizer]:
        fields = Fields(body, status=INVALID_STATUS)
        check_model(fields.text("model"), self._settings)
        if self._tokenizer is None:
            raise ApiError(404, "this server has no tokenizer", kind="not_found_error")
        return fields, self._tokenizer

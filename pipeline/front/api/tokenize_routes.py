"""Handlers of /tokenize and /detokenize, in vLLM's form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import numpy as np
import orjson
from numpy.typing import NDArray

from model.tokenizer import InvalidTextError, Vocabulary, require_utf8
from pipeline.front.api.body import Body, Reading
from pipeline.front.api.chat.prompt import Prompted, prompt_for
from pipeline.front.api.fields import TextPrompt, also, given, token_ids
from pipeline.front.api.json_body import parse_object
from pipeline.front.api.openai.body import INVALID_STATUS, ModelName, read_openai
from pipeline.front.api.openai.conversation import Conversation
from pipeline.front.api.sampling import longest
from pipeline.front.api.unknown import UnknownParameters
from pipeline.front.delivery.backend import Backend
from pipeline.front.http.errors import ApiError
from pipeline.front.http.exchange import Exchange, answer_json
from pipeline.front.http.worker import Worker
from pipeline.front.settings import FrontSettings
from pipeline.wire.request import TOO_LONG, Encode, ids_of

_SMALL_BODY = 2048  # bytes; up to there a thread would take longer than the work
_MOST_IDS = 1 << 18  # that are returned, unless a sequence can be longer; many more would delay other clients


T = TypeVar("T")


class _Either(Body):
    model: ModelName = None
    return_token_strs: bool = given(False, "Return the text of each token, too.")


class TokenizeText(_Either):
    prompt: TextPrompt
    add_special_tokens: bool = given(True, "Add BOS.")


@also({"chat_template": ()})
class TokenizeChat(Conversation, _Either):
    add_special_tokens: bool = given(False, "Add BOS; most templates write it themselves.")


class DetokenizeRequest(Body):
    tokens: Annotated[Any, token_ids(longest)]
    model: ModelName = None


@dataclass(frozen=True, slots=True)
class _Text:
    prompt: str
    add_special: bool
    with_names: bool = False
    plain: tuple[int, ...] = ()


class TokenizeRoutes:
    """The front has a vocabulary, but no tokenizer: preprocess encodes. Large bodies are read, and large answers
    written, in the parser's thread."""

    def __init__(
        self, settings: FrontSettings, tokenizer: Vocabulary | None, parser: Worker, backend: Backend
    ) -> None:
        self._settings, self._tokenizer, self._parser, self._backend = settings, tokenizer, parser, backend
        self._unknown = UnknownParameters()

    async def tokenize(self, exchange: Exchange) -> None:
        await self._serve(exchange, self._parse, max(_MOST_IDS, self._settings.max_length), self._answer)

    async def count(
        self, exchange: Exchange, parse: Callable[[dict[str, Any], Reading], Prompted], answer: Callable[[int], bytes]
    ) -> None:
        """Answers with the number of a chat's tokens."""

        def read(body: dict[str, Any], reading: Reading) -> _Text:
            prompt = parse(body, reading)
            return _Text(prompt.text, add_special=False, plain=prompt.plain)

        await self._serve(exchange, read, 0, lambda _, count, __: answer(count))

    async def _serve(
        self,
        exchange: Exchange,
        parse: Callable[[dict[str, Any], Reading], _Text],
        most: int,
        answer: Callable[[_Text, int, NDArray[np.int32]], bytes],
    ) -> None:
        content, reading = await exchange.read_body(), Reading(self._settings)

        def read() -> tuple[_Text, Encode]:
            asked = parse(parse_object(content), reading)
            return asked, self._message(asked, most)

        asked, message = await self._run(exchange, read)
        self._unknown.tell(exchange, reading)
        count, packed = await self._backend.encode(message, exchange)
        if 0 < most < count:
            told = f"the prompt has {count} tokens; at most {most} can be returned here"
            raise ApiError(INVALID_STATUS, told, parameter="prompt", code=TOO_LONG)
        await exchange.respond(200, await self._run(exchange, lambda: answer(asked, count, ids_of(packed))))

    async def _run(self, exchange: Exchange, work: Callable[[], T]) -> T:
        return work() if exchange.body_bytes <= _SMALL_BODY else await self._parser.run(exchange, work)

    async def info(self, exchange: Exchange) -> None:
        """What a client needs to render chats itself, named as in tokenizer_config.json."""
        tokenizer = self._needed()
        special = tokenizer.special
        ids = {"bos_token": special.bos_id, "eos_token": special.eos_id, "pad_token": special.pad_id}
        every = [tokenizer.token_text(one) for one in sorted(special.all_ids)]
        known = {
            "tokenizer_class": tokenizer.class_name,
            "vocab_size": tokenizer.vocab_size,
            "model_max_length": self._settings.max_length,
            **{name: None if one is None else tokenizer.token_text(one) for name, one in ids.items()},
            "all_special_tokens": every,
            "chat_template": tokenizer.chat_template,
        }
        await answer_json(exchange, known)

    async def detokenize(self, exchange: Exchange) -> None:
        content, reading = await exchange.read_body(), Reading(self._settings)
        text = await self._run(exchange, lambda: self._detokenize(parse_object(content), reading))
        self._unknown.tell(exchange, reading)
        await exchange.respond(200, text)

    def _parse(self, body: dict[str, Any], reading: Reading) -> _Text:
        settings, tokenizer = self._settings, self._needed()
        if body.get("messages") is None:
            text = read_openai(TokenizeText, body, reading)
            return _Text(text.prompt, text.add_special_tokens, text.return_token_strs)
        if body.get("prompt") is not None:
            both = "prompt and messages are both given; send only one of them"
            raise ApiError(INVALID_STATUS, both, parameter="prompt")
        chat = read_openai(TokenizeChat, body, reading)
        prompt = prompt_for(chat.chat(), tokenizer, settings)
        add_special = prompt.needs_bos(tokenizer, wanted=chat.add_special_tokens)
        return _Text(prompt.text, add_special, chat.return_token_strs, prompt.plain)

    def _message(self, asked: _Text, most: int) -> Encode:
        """Raises ApiError for a text that has no UTF-8 form."""
        try:
            require_utf8(asked.prompt)
        except InvalidTextError as error:
            raise ApiError(INVALID_STATUS, str(error), parameter="prompt") from None
        return Encode(self._backend.new_id(), 0, asked.prompt, most, asked.add_special, asked.plain)

    def _answer(self, asked: _Text, count: int, ids: NDArray[np.int32]) -> bytes:
        names = list(map(self._needed().token_text, ids.tolist())) if asked.with_names else None
        answer = {"count": count, "max_model_len": self._settings.max_length, "tokens": ids, "token_strs": names}
        return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)

    def _detokenize(self, body: dict[str, Any], reading: Reading) -> bytes:
        ids = read_openai(DetokenizeRequest, body, reading).tokens
        return orjson.dumps({"prompt": self._needed().decode(ids, skip_special=False)})

    def _needed(self) -> Vocabulary:
        if self._tokenizer is None:
            raise ApiError(404, "this server has no tokenizer", kind="not_found_error")
        return self._tokenizer

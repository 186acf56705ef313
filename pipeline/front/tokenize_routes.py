"""Handlers of /tokenize and /detokenize, in vLLM's form."""

from __future__ import annotations

import asyncio
from typing import Any

from model.tokenizer import InvalidTextError, Tokenizer
from pipeline.front.chat_messages import read_prompt
from pipeline.front.errors import ApiError
from pipeline.front.exchange import Exchange, answer_json
from pipeline.front.fields import Fields, is_token_list
from pipeline.front.openai_fields import INVALID_STATUS, check_model
from pipeline.front.settings import FrontSettings


class TokenizeRoutes:
    """The tokenizer works in a thread: a text as long as a body may be takes it most of a second."""

    def __init__(self, settings: FrontSettings, tokenizer: Tokenizer | None) -> None:
        self._settings, self._tokenizer = settings, tokenizer

    async def tokenize(self, exchange: Exchange) -> None:
        body = await exchange.read_json()
        await answer_json(exchange, await asyncio.to_thread(self._tokenize, body))

    async def detokenize(self, exchange: Exchange) -> None:
        body = await exchange.read_json()
        await answer_json(exchange, await asyncio.to_thread(self._detokenize, body))

    def _tokenize(self, body: dict[str, Any]) -> dict[str, Any]:
        fields, tokenizer = self._read(body)
        with_names = fields.boolean("return_token_strs", False)
        prompt, add_special = self._prompt(fields, tokenizer)
        fields.done()
        try:
            ids = tokenizer.encode(prompt, add_special=add_special)
        except InvalidTextError as error:
            raise fields.invalid("prompt", str(error)) from None
        names = [tokenizer.token_text(token) for token in ids] if with_names else None
        return {"count": len(ids), "max_model_len": self._settings.max_length, "tokens": ids, "token_strs": names}

    def _prompt(self, fields: Fields, tokenizer: Tokenizer) -> tuple[str, bool]:
        """A prompt, or the one that a chat comes to; and whether BOS is still to be added."""
        if not fields.has("messages"):
            prompt = fields.text("prompt")
            if prompt is None:
                raise fields.invalid("prompt", "prompt is missing: a string; or send messages")
            return prompt, fields.boolean("add_special_tokens", True)
        if fields.has("prompt"):
            raise fields.invalid("prompt", "prompt and messages exclude each other")
        fields.restrict({"tools": ([],), "chat_template": ()})
        return read_prompt(fields, tokenizer, self._settings), fields.boolean("add_special_tokens", False)

    def _detokenize(self, body: dict[str, Any]) -> dict[str, Any]:
        fields, tokenizer = self._read(body)
        ids, vocab, most = fields.take("tokens"), self._settings.vocab_size, self._settings.max_length
        fields.done()
        if ids != [] and not is_token_list(ids, vocab):
            fields.refuse("tokens", f"a list of token ids in [0, {vocab - 1}]")
        if len(ids) > most:
            raise fields.invalid("tokens", f"tokens has {len(ids)} ids; the model's longest sequence has {most}")
        return {"prompt": tokenizer.decode(ids, skip_special=False)}

    def _read(self, body: dict[str, Any]) -> tuple[Fields, Tokenizer]:
        fields = Fields(body, status=INVALID_STATUS)
        check_model(fields.text("model"), self._settings)
        if self._tokenizer is None:
            raise ApiError(404, "this server has no tokenizer at hand", kind="not_found_error")
        return fields, self._tokenizer

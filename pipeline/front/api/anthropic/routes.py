"""Handlers of Anthropic's paths."""

from __future__ import annotations

from typing import Final

from model.tokenizer import Vocabulary
from pipeline.front.api.anthropic.request import CountRequest, MessagesRequest, parse_count, parse_messages
from pipeline.front.api.generate_routes import GenerateRoutes
from pipeline.front.api.schema import schema_at
from pipeline.front.api.tokenize_routes import TokenizeRoutes
from pipeline.front.http.exchange import Exchange
from pipeline.front.settings import FrontSettings

REQUEST_ID: Final = b"request-id"
"""In which Anthropic's clients look for the id."""


class AnthropicRoutes:
    """`generate` serves what generates, `tokenize` what counts."""

    def __init__(
        self,
        settings: FrontSettings,
        tokenizer: Vocabulary | None,
        generate: GenerateRoutes,
        tokenize: TokenizeRoutes,
    ) -> None:
        self._tokenizer, self._generate, self._tokenize = tokenizer, generate, tokenize
        for kind in (MessagesRequest, CountRequest):
            schema_at(kind, (), settings)  # errors need it; the first time it takes milliseconds

    async def create(self, exchange: Exchange) -> None:
        _name(exchange)
        await self._generate.serve(
            exchange, lambda body, identity, reading: parse_messages(body, identity, self._tokenizer, reading)
        )

    async def count_tokens(self, exchange: Exchange) -> None:
        _name(exchange)
        await self._tokenize.count(
            exchange,
            lambda body, reading: parse_count(body, self._tokenizer, reading),
            lambda count: b'{"input_tokens":%d}' % count,
        )


def _name(exchange: Exchange) -> None:
    exchange.common = (*exchange.common, (REQUEST_ID, exchange.request_id))

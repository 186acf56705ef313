"""Handlers of the paths that generate text."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

from model.tokenizer import Vocabulary
from pipeline.front.api.body import Reading
from pipeline.front.api.json_body import is_small, parse_object
from pipeline.front.api.llm_serving.request import GenerateRequest, parse_llm_serving
from pipeline.front.api.openai.chat import ChatRequest, parse_chat
from pipeline.front.api.openai.completions import CompletionRequest, parse_completion
from pipeline.front.api.responses.request import ResponsesRequest, parse_responses
from pipeline.front.api.schema import schema_at
from pipeline.front.api.structured import GrammarTexts
from pipeline.front.api.unknown import UnknownParameters
from pipeline.front.delivery.generation import Delivery, Generation, wants_times
from pipeline.front.delivery.job import Identity, Job
from pipeline.front.delivery.keeping import Background
from pipeline.front.delivery.kept import KeptExchange
from pipeline.front.http.errors import ApiError
from pipeline.front.http.exchange import Exchange, Handler
from pipeline.front.http.worker import Worker

Parser = Callable[[dict[str, Any], Identity, Reading], Job]


def background_of(content: bytes) -> Background:
    """Of a body, as far as it can be read."""
    with contextlib.suppress(ApiError):
        body = parse_object(content)
        if body.get("background") is True:
            return Background.STREAMED if body.get("stream") is True else Background.ALONE
    return Background.NO


class GenerateRoutes:
    """`tokenizer` renders chats, and gives the text of tokens for clients that want log-probabilities; `parser` is
    where large bodies are parsed."""

    def __init__(self, delivery: Delivery, tokenizer: Vocabulary | None, parser: Worker) -> None:
        self._delivery, self._tokenizer, self._parser = delivery, tokenizer, parser
        self._unknown, self._grammars = UnknownParameters(), GrammarTexts(parser, delivery.counters)
        self._settings = delivery.settings
        for kind in (CompletionRequest, ChatRequest, ResponsesRequest, GenerateRequest):
            schema_at(kind, (), self._settings)  # errors need it; the first time it takes milliseconds

    def llm_serving(self, adapter: str, *, streamed: bool | None) -> Handler:
        """Of a path that says which adapter is wanted, and whether the answer is streamed, or leaves that to the
        body."""

        async def handle(exchange: Exchange) -> None:
            await self.serve(
                exchange,
                lambda body, _, reading: parse_llm_serving(body, streamed, reading, adapter, self._tokenizer),
            )

        return handle

    async def completions(self, exchange: Exchange) -> None:
        await self.serve(
            exchange, lambda body, identity, reading: parse_completion(body, identity, self._tokenizer, reading)
        )

    async def chat(self, exchange: Exchange) -> None:
        await self.serve(
            exchange, lambda body, identity, reading: parse_chat(body, identity, self._tokenizer, reading)
        )

    async def responses(self, exchange: Exchange) -> None:
        """Whether it is in the background must be known before its connection is all that keeps it."""
        background = Background.NO
        if not isinstance(exchange, KeptExchange):
            content = exchange.content = await exchange.read_body()
            if b'"background"' in content:
                look = functools.partial(background_of, content)
                background = look() if is_small(content) else await self._parser.run(exchange, look)
        await self.serve(
            exchange,
            lambda body, identity, reading: parse_responses(body, identity, self._tokenizer, reading),
            background,
        )

    async def serve(self, exchange: Exchange, parse: Parser, background: Background = Background.NO) -> None:
        """`exchange` is a client's, or of an answer that is made again."""
        kept, settings = self._delivery.kept, self._settings

        async def make(own: Exchange) -> None:
            await self._generate(own, parse)

        if isinstance(exchange, KeptExchange):
            await make(exchange)
            return
        seconds = kept.seconds(exchange)
        if background is not Background.NO:
            seconds = seconds or settings.max_detached_s
        if seconds:
            await kept.serve(exchange, seconds, make, background)
        else:
            await make(exchange)

    async def _generate(self, exchange: Exchange, parse: Parser) -> None:
        async def read(identity: Identity) -> Job:
            """A large body is parsed in a thread, so that other clients' tokens need not wait for it."""
            reading = Reading(self._settings, timed=wants_times(exchange))
            content = await exchange.read_body()
            try:
                if is_small(content):
                    job = parse(parse_object(content), identity, reading)
                else:
                    job = await self._parser.run(exchange, lambda: parse(parse_object(content), identity, reading))
            finally:
                self._unknown.tell(exchange, reading)
            return await self._grammars.constrain(exchange, job)

        await Generation(exchange, self._delivery).serve(read)

"""Handlers of the paths that generate text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from model.tokenizer import Tokenizer
from pipeline.front.api.json_body import LARGE_BODY, parse_object
from pipeline.front.api.llm_serving.request import parse_llm_serving
from pipeline.front.api.openai.chat import parse_chat
from pipeline.front.api.openai.completions import parse_completion
from pipeline.front.delivery.admission import Admission
from pipeline.front.delivery.backend import Backend
from pipeline.front.delivery.generation import Generation
from pipeline.front.delivery.job import Job
from pipeline.front.delivery.many_texts import ManyTexts
from pipeline.front.delivery.progress import Progress
from pipeline.front.http.errors import ApiError, ClientGone
from pipeline.front.http.exchange import Exchange
from pipeline.front.http.worker import Worker
from pipeline.front.metrics.spans import Spans
from pipeline.front.settings import FrontSettings
from pipeline.stats import Counters, Histograms, RequestHistogram, StatsReader

Parser = Callable[[dict[str, Any], int], Job]
"""Body and request number → the job."""


class GenerateRoutes:
    """`tokenizer` renders chats, and gives the text of tokens for clients that want log-probabilities."""

    def __init__(
        self,
        settings: FrontSettings,
        backend: Backend,
        admission: Admission,
        counters: Counters,
        times: Histograms,
        stats: StatsReader,
        spans: Spans,
        tokenizer: Tokenizer | None,
        parser: Worker,
    ) -> None:
        self._settings, self._backend, self._tokenizer = settings, backend, tokenizer
        self._admission, self._parser = admission, parser
        self._counters, self._times, self._stats, self._spans = counters, times, stats, spans

    async def llm_serving(self, exchange: Exchange) -> None:
        await self._serve(exchange, self._llm_serving_parser(None))

    async def llm_serving_whole(self, exchange: Exchange) -> None:
        await self._serve(exchange, self._llm_serving_parser(streamed=False))

    async def llm_serving_streamed(self, exchange: Exchange) -> None:
        await self._serve(exchange, self._llm_serving_parser(streamed=True))

    async def completions(self, exchange: Exchange) -> None:
        await self._serve(
            exchange, lambda body, request: parse_completion(body, request, self._tokenizer, self._settings)
        )

    async def chat(self, exchange: Exchange) -> None:
        await self._serve(exchange, lambda body, request: parse_chat(body, request, self._tokenizer, self._settings))

    def _llm_serving_parser(self, streamed: bool | None) -> Parser:
        return lambda body, request: parse_llm_serving(body, streamed, self._settings)

    async def _serve(self, exchange: Exchange, parse: Parser) -> None:
        progress = self._new_progress()
        exchange.request_id = exchange.client_id or b"%016x" % progress.request
        progress.client_id = exchange.client_id.decode()
        try:
            with self._admission.request():
                job = await self._parse(exchange, lambda body: parse(body, progress.request))
                await self._generation(exchange, job, progress).run(self._settings)
        except ApiError as error:
            progress.fail(error.status, error.message)
            raise
        except ClientGone as gone:
            progress.cancel(str(gone))
            raise

    def _new_progress(self) -> Progress:
        return Progress(self._backend.new_id(), self._counters, self._times)

    async def _parse(self, exchange: Exchange, parse: Callable[[dict[str, Any]], Job]) -> Job:
        """A large body is parsed in a thread, so that other clients' tokens need not wait for it."""
        content = await exchange.read_body()
        if len(content) < LARGE_BODY:
            return parse(parse_object(content))
        return await self._parser.run(exchange, lambda: parse(parse_object(content)))

    def _generation(self, exchange: Exchange, job: Job, progress: Progress) -> Generation:
        self._times.observe(RequestHistogram.TEXTS, job.texts)
        common = (exchange, job, self._backend, progress, self._stats, self._spans)
        return Generation(*common) if job.texts == 1 else ManyTexts(*common, new_progress=self._new_progress)

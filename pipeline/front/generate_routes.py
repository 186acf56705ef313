"""Handlers of the paths that generate text."""

from __future__ import annotations

from collections.abc import Callable

from model.tokenizer import Tokenizer
from pipeline.front.admission import Admission
from pipeline.front.backend import Backend
from pipeline.front.completions import parse_completion
from pipeline.front.errors import ApiError, ClientGone
from pipeline.front.exchange import Exchange
from pipeline.front.generate import Generation
from pipeline.front.job import Job
from pipeline.front.llm_serving import parse_llm_serving
from pipeline.front.progress import Progress
from pipeline.front.settings import FrontSettings
from pipeline.front.spans import Spans
from pipeline.stats import Counters, Histograms, StatsReader


class GenerateRoutes:
    """`tokenizer` names tokens for clients that want log-probabilities; nothing else in the front needs it."""

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
    ) -> None:
        self._settings, self._backend, self._admission = settings, backend, admission
        self._counters, self._times, self._stats, self._spans = counters, times, stats, spans
        self._token_text = None if tokenizer is None else tokenizer.token_text

    async def llm_serving(self, exchange: Exchange) -> None:
        await self._serve(exchange, self._llm_serving_parser(None))

    async def llm_serving_whole(self, exchange: Exchange) -> None:
        await self._serve(exchange, self._llm_serving_parser(streamed=False))

    async def llm_serving_streamed(self, exchange: Exchange) -> None:
        await self._serve(exchange, self._llm_serving_parser(streamed=True))

    async def completions(self, exchange: Exchange) -> None:
        await self._serve(
            exchange, lambda body, request: parse_completion(body, request, self._token_text, self._settings)
        )

    def _llm_serving_parser(self, streamed: bool | None) -> Callable[[dict[str, object], int], Job]:
        return lambda body, request: parse_llm_serving(body, request, streamed, self._settings)

    async def _serve(self, exchange: Exchange, parse: Callable[[dict[str, object], int], Job]) -> None:
        request = self._backend.new_id()
        progress = Progress(request, self._counters, self._times)
        try:
            with self._admission.request():
                job = parse(await exchange.read_json(), request)
                generation = Generation(exchange, job, self._backend, progress, self._stats, self._spans)
                await generation.run(self._settings)
        except ApiError as error:
            progress.fail(error.status, error.message)
            raise
        except ClientGone as gone:
            progress.cancel(str(gone))
            raise

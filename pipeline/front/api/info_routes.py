"""Handlers of the paths that report the server's state."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from typing import Any
from urllib.parse import parse_qs

from prometheus_client.core import Metric

from pipeline.front.api.openai.body import check_model
from pipeline.front.delivery.admission import SHUTTING_DOWN, Admission
from pipeline.front.delivery.backend import Backend
from pipeline.front.http.access import is_local
from pipeline.front.http.errors import UNAVAILABLE, ApiError, retry_later
from pipeline.front.http.exchange import Exchange, answer_json
from pipeline.front.metrics import CONTENT_TYPE, StatsCollector
from pipeline.front.metrics.trace import Spans, trace
from pipeline.front.settings import FrontSettings
from pipeline.stats import KEY_NAME, NO_USE, PreprocessCounter, RingEnds, StageState, StatsReader

MODELS = "/v1/models/"
USAGE = "/v1/usage"
LONGEST_TRACE_S = 60.0
_SLICE_S = 0.005
_DOWN = (StageState.HUNG, StageState.RESTARTING)


class InfoRoutes:
    """None of them waits for the pipeline, so they answer even when it does not."""

    def __init__(
        self,
        settings: FrontSettings,
        backend: Backend,
        admission: Admission,
        stats: StatsReader,
        spans: Spans,
        ends: RingEnds,
        more_metrics: Callable[[], Iterable[Metric]] = tuple,
    ) -> None:
        self._settings, self._backend, self._admission = settings, backend, admission
        self._stats, self._spans = stats, spans
        self._collector = StatsCollector(stats, settings, ends, more_metrics, backend.lanes.weights)
        self._started = int(time.time())

    async def health(self, exchange: Exchange) -> None:
        """200 while every stage makes progress or is idle, of one replica at least; 503 names those that hang or
        restart. Loading a model counts as progress."""
        topology = self._stats.topology
        states = {stage: self._stats.state(stage.key) for stage in topology.stages}
        down = {stage: f"{stage.key} is {state.name.lower()}" for stage, state in states.items() if state in _DOWN}
        lost = {replica for stage in down for replica in topology.replicas_of(stage)}
        if down and len(lost) == topology.replicas:
            raise retry_later(503, "; ".join(down.values()), UNAVAILABLE)
        await answer_json(exchange, {"status": "degraded" if lost else "alive", **self._replicas()})

    def _replicas(self) -> dict[str, Any]:
        """The state of each, where there are several."""
        topology = self._stats.topology
        if topology.replicas < 2:  # a router has none of its own
            return {}
        return {
            "replicas": [
                {
                    "replica": replica,
                    "state": self._stats.replica_state(replica).name.lower(),
                    "generation": self._stats.generation(replica),
                    "weights": self._backend.lanes[replica].weights,
                }
                for replica in range(topology.replicas)
            ]
        }

    async def ready(self, exchange: Exchange) -> None:
        if self._admission.draining:
            raise retry_later(503, SHUTTING_DOWN, UNAVAILABLE)
        if not self._backend.ready:
            raise retry_later(503, self._backend.why_not_ready, UNAVAILABLE)
        compiled, buckets = self._stats.compiled()
        progress = {"progress": f"compiled {compiled} of {buckets}"} if compiled < buckets else {}
        await answer_json(exchange, {"status": "ready", **progress, **self._replicas()})

    async def load(self, exchange: Exchange) -> None:
        """As in vLLM: requests that run or wait."""
        numbers = self._stats.counters(PreprocessCounter)
        await answer_json(exchange, {"server_load": numbers["running"] + numbers["waiting"]})

    async def metrics(self, exchange: Exchange) -> None:
        pieces, began = list[bytes](), time.monotonic()
        for piece in self._collector.pieces():
            pieces.append(piece)
            if time.monotonic() - began > _SLICE_S:  # tokens that have come meanwhile do not wait for the rest
                await asyncio.sleep(0)
                began = time.monotonic()
        await exchange.respond(200, b"".join(pieces), CONTENT_TYPE)

    async def usage(self, exchange: Exchange) -> None:
        """What the client's own key has used since the server's start; on the operators' port, every key."""
        used: Mapping[str, Mapping[str, int]] = self._stats.keys()
        if exchange.port != self._settings.metrics_port:
            own = exchange.key[:KEY_NAME]
            used = {own: used.get(own, NO_USE)}
        await answer_json(exchange, {"object": "list", "data": [_usage(*each) for each in sorted(used.items())]})

    async def version(self, exchange: Exchange) -> None:
        await answer_json(exchange, {"version": version("ringserve")})

    # ---- OpenAI's -------------------------------------------------------------------------------------------

    async def models(self, exchange: Exchange) -> None:
        settings = self._settings
        models = [self._model(name) for name in (None, *settings.model_aliases, *settings.adapters)]
        await answer_json(exchange, {"object": "list", "data": models})

    async def model(self, exchange: Exchange) -> None:
        """`/v1/models/…`, whose name may have slashes in it."""
        name = exchange.path.removeprefix(MODELS).rstrip("/")
        settings = self._settings
        check_model(name, settings)
        other = name in (*settings.model_aliases, *settings.adapters)
        await answer_json(exchange, self._model(name if other else None))

    def _model(self, name: str | None) -> dict[str, Any]:
        """`root` and what follows is vLLM's; its clients take the model's `root` for the tokenizer's name, and find
        adapters by `parent`. Names stand for the paths that vLLM shows."""
        settings = self._settings
        adapter = settings.adapter(name)
        return {
            "id": name or settings.model_name,
            "object": "model",
            "created": self._started,
            "owned_by": "ringserve",
            "root": adapter or settings.model_name,
            "parent": settings.model_name if adapter else None,
            "max_model_len": settings.max_length,
            "permission": [],
        }

    # ---- llm-serving's --------------------------------------------------------------------------------------

    async def batch_size(self, exchange: Exchange) -> None:
        await self._number(exchange, "running")

    async def request_numbers(self, exchange: Exchange) -> None:
        await self._number(exchange, "waiting")

    async def _number(self, exchange: Exchange, counter: str) -> None:
        number = self._stats.counters(PreprocessCounter)[counter]
        await answer_json(exchange, {"event": "message", "retry": 30000, "data": number})

    async def model_info(self, exchange: Exchange) -> None:
        settings = self._settings
        info = {
            "docker_label": "",
            "max_batch_total_tokens": settings.replicas * settings.max_rows * settings.max_length,
            "max_concurrent_requests": settings.max_queue + settings.replicas * settings.max_rows,
            "max_input_length": settings.max_prompt,
            "max_total_tokens": settings.max_length,
            "model_device_type": settings.device,
            "model_dtype": settings.dtype,
            "model_id": settings.model_name,
            "model_pipeline_tag": "text-generation",
            "version": version("ringserve"),
        }
        await answer_json(exchange, info)

    # ---- for operators --------------------------------------------------------------------------------------

    async def trace(self, exchange: Exchange) -> None:
        """What all stages do during the next `seconds`. To this machine only: it shows other clients' requests."""
        if not is_local(exchange):
            raise ApiError(403, "/debug is for clients on this machine only", kind="permission_error")
        seconds = _seconds(exchange.query)
        since = time.monotonic_ns()
        with self._spans.recording() as spans:
            await asyncio.sleep(seconds)
            mine = [span for span in spans if span[0] >= since]
        await exchange.respond(200, trace(self._stats, since, mine))


def _usage(key: str, used: Mapping[str, int]) -> dict[str, Any]:
    return {
        "object": "usage",
        "key": key or None,
        "requests": used["requests"],
        "prompt_tokens": used["prompt_tokens"],
        "cached_tokens": used["cached_tokens"],
        "completion_tokens": used["generated_tokens"],
        "device_seconds": used["device_ns"] / 1e9,
    }


def _seconds(query: bytes) -> float:
    text = parse_qs(query.decode("latin-1")).get("seconds", ["5"])[-1]
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds <= LONGEST_TRACE_S:
        message = f"seconds is {text[:40]!r}, expected a number in (0, {LONGEST_TRACE_S:g}]"
        raise ApiError(400, message, parameter="seconds")
    return seconds

"""Spans of OpenTelemetry from what fronts send, by its semantic conventions for generative AI.

https://github.com/open-telemetry/semantic-conventions-genai: one span per request, and within it the queue, the
prompt (prefill) and the answer (decode). What the conventions have no name for is named `ringserve.…`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib.metadata import version

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)
from opentelemetry.util.types import AttributeValue

from pipeline.wire.span import RequestSpan

_REASONS = {"length": "length", "eos": "stop", "stop": "stop"}
_ERRORS = {"failed": "500", "cancelled": "cancelled", "refused": "refused", "rejected": "429"}
"""Outcomes that are none of an answer, as `error.type`."""


class _Given(IdGenerator):
    """Ids that the front has chosen, since it tells them to its client; else random ones."""

    def __init__(self) -> None:
        self.trace_id = self.span_id = 0
        self._random = RandomIdGenerator()

    def generate_trace_id(self) -> int:
        return self.trace_id

    def generate_span_id(self) -> int:
        given, self.span_id = self.span_id, 0
        return given or self._random.generate_span_id()


class _Kept(SpanProcessor):
    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.spans.append(span)


class SpanMaker:
    """The SDK's variables hold: OTEL_TRACES_SAMPLER, OTEL_RESOURCE_ATTRIBUTES, OTEL_SERVICE_NAME."""

    def __init__(self) -> None:
        self._given, self._kept = _Given(), _Kept()
        resource = Resource.create({"service.name": "ringserve", "service.version": version("ringserve")})
        provider = TracerProvider(resource=resource, id_generator=self._given, shutdown_on_exit=False)
        provider.add_span_processor(self._kept)
        self._tracer = provider.get_tracer("ringserve", version("ringserve"))

    def take(self) -> Sequence[ReadableSpan]:
        """Those that were made since the last time."""
        spans, self._kept.spans = self._kept.spans, []
        return spans

    def add(self, record: RequestSpan) -> None:
        since = time.time_ns() - time.monotonic_ns()  # traces are read by people, and by other machines
        self._given.trace_id = int.from_bytes(record.trace_id)
        self._given.span_id = int.from_bytes(record.span_id)
        span = self._tracer.start_span(
            f"{record.operation} {record.model}",
            _parent(record),
            SpanKind.SERVER,
            attributes(record),
            start_time=record.began_ns + since,
        )
        _set_status(span, record)
        within = set_span_in_context(span)
        for name, began, ended in _parts(record):
            self._tracer.start_span(name, within, start_time=began + since).end(ended + since)
        span.end(record.ended_ns + since)


def _parent(record: RequestSpan) -> Context:
    if not record.parent:
        return Context()
    ids = int.from_bytes(record.trace_id), int.from_bytes(record.parent)
    context = SpanContext(*ids, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    return set_span_in_context(NonRecordingSpan(context), Context())


def _parts(record: RequestSpan) -> list[tuple[str, int, int]]:
    """Those that were reached; the last one ends with the request, if it was broken off."""
    times = [record.began_ns, record.row_ns, record.first_ns, record.last_ns]
    parts = []
    for name, began, ended in zip(("queue", "prefill", "decode"), times, times[1:], strict=False):
        if began:
            parts.append((name, began, max(began, ended or record.ended_ns)))
    return parts


def _set_status(span: Span, record: RequestSpan) -> None:
    errors = [_ERRORS[outcome] for outcome in record.outcomes if outcome in _ERRORS]
    if errors:
        span.set_attribute("error.type", errors[0])
        span.set_status(StatusCode.ERROR, record.message or errors[0])


def attributes(record: RequestSpan) -> dict[str, AttributeValue]:
    every: dict[str, AttributeValue] = {
        "gen_ai.operation.name": record.operation,
        "gen_ai.provider.name": "ringserve",
        "gen_ai.request.model": record.model,
        "gen_ai.response.model": record.model,
        "gen_ai.response.id": record.response_id,
        "gen_ai.request.stream": record.stream,
        "gen_ai.request.choice.count": record.texts,
        "gen_ai.request.max_tokens": record.max_tokens,
        "gen_ai.request.temperature": record.temperature,
        "gen_ai.request.top_p": record.top_p,
        "gen_ai.request.top_k": record.top_k,
        "gen_ai.response.finish_reasons": [_REASONS.get(outcome, "error") for outcome in record.outcomes],
        "gen_ai.usage.input_tokens": record.input_tokens,
        "gen_ai.usage.cache_read.input_tokens": record.cached_tokens,
        "gen_ai.usage.output_tokens": record.output_tokens,
        "url.path": record.path,
        "ringserve.device_seconds": record.device_ns / 1e9,
        "ringserve.outcomes": record.outcomes,
    }
    if record.first_ns:
        every["gen_ai.response.time_to_first_chunk"] = (record.first_ns - record.began_ns) / 1e9
    optional = {"ringserve.key": record.key, "ringserve.client_request_id": record.client_id}
    return every | {name: value for name, value in optional.items() if value}

"""front → exporter: what one request was, for a trace. One record each; times in ns of the monotonic clock."""

from __future__ import annotations

import msgspec


class RequestSpan(msgspec.Struct, array_like=True, gc=False):
    """A request of any API, with all its texts. Times that were not reached are 0; `parent` is empty for a root."""

    trace_id: bytes
    span_id: bytes
    parent: bytes
    operation: str  # by the names of OpenTelemetry's conventions for generative AI
    model: str
    response_id: str
    client_id: str  # of the request, as its client calls it
    path: str
    key: str  # name of the client's API key
    stream: bool
    texts: int
    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    began_ns: int
    row_ns: int
    first_ns: int
    last_ns: int
    ended_ns: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    device_ns: int
    outcomes: list[str]  # of its texts: length, eos, stop, failed, cancelled, refused, rejected
    message: str  # of what failed

    def pack(self) -> bytes:
        return msgspec.msgpack.encode(self)


_DECODER = msgspec.msgpack.Decoder(RequestSpan)


def unpack_span(record: bytes) -> RequestSpan:
    """Raises msgspec.DecodeError, msgspec.ValidationError."""
    return _DECODER.decode(record)

"""The front's settings, made from the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from ipc import RingHandle
from model.response import ResponseFormat


@dataclass(frozen=True, slots=True)
class FrontRings:
    """Handles of the rings around the front: `requests` to preprocess, `replies` from it, `deltas` from sampling."""

    requests: RingHandle
    replies: RingHandle
    deltas: RingHandle


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkSettings:
    """Of a node's links, or a router's: `max_nodes` at most, at first those in `nodes`, hosts and ports. Sizes in
    bytes."""

    nodes: tuple[str, ...] = ()
    max_nodes: int = 0
    ca: Path
    certificate: Path
    key: Path
    heartbeat_s: float = 1.0
    facts: Mapping[str, int | str] = field(default_factory=dict)  # in which both sides have to agree
    longest_request: int = 4 << 20
    longest_answer: int = 4 << 20


@dataclass(slots=True, kw_only=True)
class FrontSettings:
    """Times in seconds, sizes in bytes. Limits of the model are those of preprocess, too.

    Every part of the front refers to the same object, so that a reload reaches all of them (`update`).
    """

    model_name: str  # in OpenAI's API
    model_aliases: tuple[str, ...] = ()  # which clients may use instead
    model_route: str = "llama2"  # in llm-serving's paths
    adapters: tuple[str, ...] = ()  # by these names a request has one instead of the model's own weights
    vocab_size: int
    max_length: int  # prompt and output tokens together
    max_prompt: int
    prompt_limit_chars: int = 1 << 20  # of a prompt that is text
    max_rows: int  # of a replica
    replicas: int = 1
    routing: str = "cost"  # which replica gets a request: or "least_requests", "round_robin"
    cached_tokens: int = 1 << 20  # that the KV cache of a replica holds at most
    block_size: int = 16  # tokens of a block of it
    token_budget: int = 256  # of a step
    max_queue: int
    device: str = "CPU"  # as llm-serving names it
    runner: str = ""  # the engine: model and device, with the word "emulated" for an emulated device
    dtype: str = "float16"
    body_limit_bytes: int = 4 << 20
    body_memory_bytes: int = 256 << 20  # of all bodies that are being received
    header_limit_bytes: int = 64 << 10
    max_connections: int = 1000
    cors_origins: tuple[str, ...] = ()
    metrics_port: int | None = None  # the bound port of /metrics and /debug, where they have one of their own
    header_timeout_s: float = 10.0  # from the first byte of a request to the end of its headers
    body_timeout_s: float = 30.0  # from there to the end of its body
    write_timeout_s: float = 30.0  # a client that reads nothing for so long is disconnected
    keep_alive_s: float = 75.0
    stream_ping_s: float | None = None  # a comment for clients of a stream that is silent for so long
    drain_timeout_s: float = 30.0
    request_timeout_s: float | None = None
    detached_s: float = 0.0  # a request goes on so long without its client, unless it says for how long itself
    max_detached_s: float = 600.0  # that it may say
    max_background: int = 512  # texts that are generated though no client waits for them
    kept_bytes: int = 32 << 20  # of answers that are kept for clients to come back to
    stream_buffer_tokens: int = 4096  # tokens that may wait for a client that does not read
    sampling_defaults: Mapping[str, float] = field(default_factory=dict)  # the model's own
    user_control_tokens: str = "text"  # or "control"
    response_format: ResponseFormat | None = None  # how the model writes reasoning and calls, as far as known
    deterministic: bool = False  # requests are, unless they say something else
    not_deterministic: str = ""  # why none can be, with this engine; it may find out more on its host
    unknown_parameters: str = "warn"  # or "refuse"
    vllm_metrics: bool = False  # metrics have vLLM's names, too
    llm_serving_logprobs: bool = True  # false: `logprob` is null there
    llm_serving_raw_logit: bool = False  # true: it is the token's logit, as llm-serving has it
    log_level: str = "info"
    log_format: str = "text"  # or "json"
    link: LinkSettings | None = None  # of a node or a router

    @property
    def is_router(self) -> bool:
        """Its replicas are on nodes."""
        return self.link is not None and self.link.max_nodes > 0

    @property
    def calls_tools(self) -> bool:
        """The model can call tools, as far as its calls are understood."""
        return self.response_format is not None and bool(self.response_format.calls)

    @property
    def reasons(self) -> bool:
        """The model thinks before it answers, as far as that is understood."""
        return self.response_format is not None and self.response_format.reasoning is not None

    def update(self, other: FrontSettings) -> None:
        """Copy the values of another one."""
        for one in fields(self):
            setattr(self, one.name, getattr(other, one.name))

    @property
    def model_names(self) -> tuple[str, ...]:
        """All that a client may call the model, the own one first; and adapters."""
        return tuple(dict.fromkeys((self.model_name, *self.model_aliases, self.model_route, *self.adapters)))

    def adapter(self, name: str | None) -> str:
        """That a request with this model has, as in `Request.adapter`."""
        return name if name is not None and name in self.adapters else ""

    def shown_model(self, name: str | None) -> str:
        """What the answer to such a request calls the model."""
        return self.adapter(name) or self.model_name

    @property
    def max_in_flight(self) -> int:
        """Requests that the front accepts; preprocess refuses those beyond its queue."""
        return self.max_queue + self.replicas * self.max_rows + 64

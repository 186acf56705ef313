"""What the front needs to know; the launcher fills it in from the configuration."""

from __future__ import annotations

from dataclasses import dataclass

from ipc import RingHandle


@dataclass(frozen=True, slots=True)
class FrontRings:
    """Handles of the rings around the front: `requests` to preprocess, `replies` from it, `deltas` from sampling."""

    requests: RingHandle
    replies: RingHandle
    deltas: RingHandle


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontSettings:
    """Times in seconds, sizes in bytes. Limits of the model are those that preprocess holds, too."""

    model_name: str  # in OpenAI's API
    model_route: str = "llama2"  # in llm-serving's paths
    vocab_size: int
    max_length: int  # prompt and output tokens together
    max_prompt: int
    max_rows: int
    max_queue: int
    device: str = "CPU"
    dtype: str = "float16"
    host: str = "127.0.0.1"
    port: int = 8835  # 0: any
    body_limit_bytes: int = 4 << 20
    header_limit_bytes: int = 64 << 10
    max_connections: int = 1000
    header_timeout_s: float = 10.0  # from the first byte of a request to the end of its headers
    body_timeout_s: float = 30.0  # from there to the end of its body
    write_timeout_s: float = 30.0  # a client that reads nothing for so long is cut off
    keep_alive_s: float = 30.0
    drain_timeout_s: float = 30.0
    request_timeout_s: float | None = None
    stream_buffer_tokens: int = 4096  # tokens that may wait for a client that does not read
    retry_after_s: int = 1
    llm_serving_logprobs: bool = True  # false: `logprob` is null there
    llm_serving_raw_logit: bool = False  # true: it is the token's logit, as llm-serving has it
    log_level: str = "info"
    log_format: str = "text"  # or "json"

    @property
    def max_in_flight(self) -> int:
        """Requests that the front lets in; preprocess refuses what goes beyond its queue."""
        return self.max_queue + self.max_rows + 64

"""RingServe's own settings: the section ``pipeline``. Every key has a default."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from .kinds import (
    BOOLEAN,
    COLLECTOR,
    HOST_AND_PORT,
    MAPPING,
    ORIGIN,
    PATH,
    TEXT,
    auto_or,
    choice,
    integer,
    list_of,
    named,
    number,
    off_or,
    word_or,
)
from .setting import section, setting

_CPUS = word_or("device", list_of(integer(0, 4095)))
_SPIN = number(0, 1_000_000)
_BYTES = integer(1 << 16, 1 << 30)

TOOL_FORMATS: Final = ("hermes", "qwen3_coder", "mistral", "llama_pythonic", "llama3_json")
REASONING_FORMATS: Final = ("think", "mistral_think")
"""`model.response` has them; the configuration is read without it."""

EMULATED_KEYS: Final = (
    "name",
    "cost_model",
    "token_range",
    "emit_eos",
    "eos_probability",
    "seed",
    "spin_us",
    "compile_s",
    "fault_token",
    "fault",
)
"""Keys of ``pipeline.runner`` that only the emulated device has; `model.emulated` has their defaults."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerConfig:
    """The engine that runs the model."""

    kind: str = setting(
        choice("auto", "openvino", "mindspore", "mindformers", "emulated"),
        "auto",
        "the engine. `openvino`: a decoder for most families of docs/models.md, on x86 CPUs with AVX2 "
        "(`ringserve[openvino]`); `mindspore`: one for all of them, on CPU; `mindformers`: its own networks for "
        "those that they know, on CPU or Ascend; `auto`: on CPU, where the model has a `config.json`, `openvino` if "
        "it is installed and can compute the model, and `pipeline.lora.adapters` names none, else `mindspore`; "
        "otherwise `mindformers`; `emulated`: takes as long as a device would, and computes nothing",
    )
    device: str = setting(
        choice("CPU", "Ascend"),
        None,
        "where the model computes; `openvino` and `mindspore` know CPU only",
        derived="`context.device_target` of the mindformers YAML, else CPU",
    )
    compile_cache: Path | str | None = setting(
        word_or("none", PATH),
        None,
        "directory that keeps compiled graphs and int8 weights between starts, created if missing; `none`: they are "
        "not kept",
        derived="`ringserve/compile` in the user's cache (`$XDG_CACHE_HOME`, by default `~/.cache`)",
    )
    warm_up: str = setting(
        choice("early", "all"),
        "early",
        "`early`: ready when the two smallest buckets are compiled that serve every kind of step; the others follow "
        "while it serves, between two steps. `all`: ready when all are compiled, so that no stream ever stands still",
    )
    weight_dtype: str | None = setting(
        choice("f32", "bf16", "int8"),
        None,
        "openvino: what weights become: `f32`, or, faster and less exact, `bf16`, in which all is computed then, or "
        "`int8` (docs/models.md has the errors); null: they stay as the checkpoint has them, computed in f32",
    )
    kv_dtype: str | None = setting(
        choice("f32", "f16", "bf16", "u8"),
        None,
        "openvino: of the KV cache; null: `bf16` with weights in `bf16`, else `f32`",
    )
    threads: int | None = setting(
        integer(1, 4096),
        None,
        "CPU threads of a step",
        derived="one per CPU the process may use, divided by `pipeline.replicas` x `ranks`",
    )
    random_weights: bool = setting(
        BOOLEAN, False, "for measurements without a checkpoint: random weights, so the answers are meaningless"
    )
    replay: Path | None = setting(
        PATH,
        None,
        "for measurements: file of token ids (see `model/replay.py`); the engine computes, but prompts in it are "
        "answered as it says",
    )
    cost_model: Mapping[str, Any] | None = setting(
        MAPPING, None, "emulated: milliseconds of a step and its results; see `configs/emulated_910b.yaml`"
    )
    name: str | None = setting(TEXT, None, "emulated: name of the emulated device, for logs")
    token_range: tuple[int, ...] | None = setting(
        list_of(integer(0), 2, 2), None, "emulated: first and last + 1 of the ids it answers with"
    )
    emit_eos: bool | None = setting(BOOLEAN, None, "emulated: whether answers end with `end_token`")
    eos_probability: float | None = setting(
        number(0, 1), None, "emulated: chance that a token ends the answer, with `emit_eos`"
    )
    seed: int | None = setting(integer(0), None, "emulated: seed of the answers' text")
    spin_us: float | None = setting(
        number(0, 1000), None, "emulated: the last part of a step, in microseconds, that spins instead of sleeping"
    )
    compile_s: float | None = setting(
        number(0), None, "emulated: seconds before the first step of each bucket; null: nothing is compiled"
    )
    fault_token: int | None = setting(
        integer(0), None, "emulated, for tests of supervision: a step with this input token makes the process fail"
    )
    fault: str | None = setting(
        choice("error", "exit", "abort", "segfault", "hang"),
        None,
        "emulated: how the process fails; null: segfault",
    )

    def emulated(self) -> dict[str, Any]:
        """What `EmulatedSettings.from_mapping` takes: the keys that are set."""
        values = {key: getattr(self, key) for key in EMULATED_KEYS}
        return {"kind": self.kind, **{key: value for key, value in values.items() if value is not None}}


_ADAPTER_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._:@+/-]{0,253}[A-Za-z0-9._@+-])?")
MOST_ADAPTERS: Final = 128
"""The statistics page has a counter for each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraConfig:
    """LoRA adapters, folders as PEFT writes them: see docs/models.md."""

    merged: Path | None = setting(PATH, None, "an adapter that is merged into the weights when they are loaded")
    adapters: Mapping[str, Path] = setting(
        named(
            PATH,
            _ADAPTER_NAME,
            "letters, digits, and . _ : @ + / - between them, 255 characters at most",
            MOST_ADAPTERS,
        ),
        {},
        "adapters beside the model, by the names with which requests choose one as their `model`; for the engine "
        "`mindspore`, and for `emulated`, which reads none of them",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeculationConfig:
    """Tokens that are guessed from the sequence's own text, and verified together: the same text in fewer steps (see
    docs/speculation.md)."""

    method: str = setting(
        off_or("ngram"),
        "off",
        "`ngram`: what followed when the text went as it does now before; `off`: a step brings one token of each row",
    )
    max_drafts: int = setting(
        integer(1, 15), 7, "guesses of a row in a step, at most; fewer where they prove wrong, or many rows decode"
    )
    max_rows: int = setting(integer(1, 4096), 32, "steps in which more rows decode have none")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    """One line per request at `info`; nothing per token at any level."""

    level: str = setting(
        choice("debug", "info", "warning", "error"), "info", "least severe level that is written", live=True
    )
    format: str = setting(choice("text", "json"), "text", "lines for people, or one JSON object per line", live=True)


MOST_REPLICAS: Final = 64
MOST_RANKS: Final = 16
"""As many cursors as a ring has."""

_BY_CPUS = "depends on the number of CPUs"


@dataclass(frozen=True, slots=True, kw_only=True)
class SpinConfig:
    """How long a stage spins, in microseconds, while it waits for the next message, before it sleeps; the front
    never spins. By default no stage spins on a CPU that the model needs: see docs/operations.md."""

    preprocess: float | None = setting(_SPIN, None, "tokenizing and scheduling: for room in a ring", derived=_BY_CPUS)
    inference: float | None = setting(_SPIN, None, "the process that runs the model", derived=_BY_CPUS)
    sampling: float | None = setting(_SPIN, None, "sampling and detokenizing", derived=_BY_CPUS)


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuConfig:
    """CPU numbers that a stage is pinned to; null: not pinned; `device`: those of the NUMA node that the Ascend
    device is attached to (not run on a device so far); each replica's own, and for the front the first one's."""

    front: tuple[int, ...] | str | None = setting(_CPUS, None, "the HTTP process")
    preprocess: tuple[int, ...] | str | None = setting(_CPUS, None, "tokenizing and scheduling")
    inference: tuple[int, ...] | str | None = setting(_CPUS, None, "the process that runs the model, and its threads")
    sampling: tuple[int, ...] | str | None = setting(_CPUS, None, "sampling and detokenizing")


@dataclass(frozen=True, slots=True, kw_only=True)
class RingConfig:
    """Sizes of the rings in shared memory. All are powers of two."""

    step_slots: int = setting(integer(2, 256), 4, "step descriptors from preprocess to inference")
    logits_slots: int = setting(
        integer(2, 64), 2, "logits from inference to sampling, 4 bytes x logit_rows x vocabulary each"
    )
    request_bytes: int = setting(_BYTES, 8 << 20, "front to preprocess; a request may take half of it")
    reply_bytes: int = setting(
        _BYTES,
        None,
        "sampling to front: text; preprocess to front: refusals",
        derived="32 x `max_generate_length`, at least 1 MiB",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkConfig:
    """Links between a router and its nodes, see docs/scaling.md: TLS 1.3, with a certificate on both sides."""

    listen: str | None = setting(
        HOST_AND_PORT,
        None,
        "where routers link to: this server is a node then, without an HTTP API of its own; port 0: any free one",
    )
    ca: Path | None = setting(PATH, None, "certificate of the authority that has signed those of nodes and routers")
    certificate: Path | None = setting(PATH, None, "this side's certificate; a node's names its hosts")
    key: Path | None = setting(PATH, None, "its key")
    heartbeat_s: float = setting(
        number(0.1, 60), 1.0, "time between two signs of life; after three without one the other side is away"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineConfig:
    """RingServe's own settings."""

    model_dir: Path | None = setting(
        PATH, None, "a Hugging Face directory: its configuration, weights and tokenizer are the defaults"
    )
    replicas: int = setting(
        integer(1, MOST_REPLICAS),
        1,
        "copies of the model behind one front, each with a batch, a KV cache and processes of its own: on Ascend one "
        "per device, from `start_device_id` on; on CPU they divide CPUs and memory",
    )
    ranks: int = setting(
        integer(1, MOST_RANKS),
        None,
        "processes of a replica that compute each step together, every one a part of the model (tensor parallel; the "
        "engines `mindspore` and `mindformers`): with more than one the server is ready when all buckets are "
        "compiled",
        derived="as many as `serving_config.agent_ports` lists",
    )
    routing: str = setting(
        choice("cost", "least_requests", "round_robin"),
        "cost",
        "which of several replicas gets a request: by `cost` the one that is likely to give its first token soonest, "
        "with what is cached there; the others are there to be compared with",
    )
    nodes: tuple[str, ...] = setting(
        list_of(HOST_AND_PORT, minimum=0, maximum=MOST_REPLICAS),
        (),
        "servers on other machines (`pipeline.link.listen`): this one is a router then, which has no model of its "
        "own and sends requests to their replicas",
    )
    max_nodes: int = setting(
        integer(0, MOST_REPLICAS),
        None,
        "nodes that a router can have at a time; those beyond `nodes` may come while it runs (`PUT /admin/nodes`)",
        derived="as many as `nodes` lists",
    )
    link: LinkConfig = section(LinkConfig)
    model_name: str = setting(TEXT, None, "name of the model in OpenAI's API", derived="`model_config.model_name`")
    chat_template: Path | None = setting(
        PATH, None, "Jinja file for `/v1/chat/completions`, used instead of the tokenizer's own template"
    )
    tool_format: str = setting(
        choice("auto", "none", *TOOL_FORMATS),
        "auto",
        "how the model writes calls of tools: `auto` takes the checkpoint's `response_template`, or what its chat "
        "template shows",
    )
    reasoning_format: str = setting(
        choice("auto", "none", *REASONING_FORMATS),
        "auto",
        "how the model writes what it thinks before it answers; `none`: that is a part of the answer",
    )
    lora: LoraConfig = section(LoraConfig)
    runner: RunnerConfig = section(RunnerConfig)
    overlap: bool = setting(BOOLEAN, True, "schedule the next step while the device computes this one")
    max_rows: int = setting(
        integer(1, 4096), None, "sequences that run at the same time", derived="`decode_batch_size`"
    )
    logit_rows: int = setting(
        integer(1, 4096),
        None,
        "rows among them that may need their logits on the host, as all do that are sampled at a temperature; others "
        "wait, with all behind them",
        derived="`max_rows`",
    )
    token_budget: int = setting(
        auto_or(integer(1, 1 << 20)),
        256,
        "new tokens per step; longer prompts are prefilled in chunks, beside decoding",
    )
    memory_fraction: float = setting(
        number(0, 1, above=True), 0.9, "part of the available memory that `pa_config.num_blocks: auto` counts on"
    )
    speculation: SpeculationConfig = section(SpeculationConfig)
    tokenized_cache_bytes: int = setting(
        integer(0, 1 << 34),
        16 << 20,
        "memory for long texts whose token ids are kept, such as system prompts; 0: each is tokenized anew",
    )
    prefix_cache: bool = setting(BOOLEAN, True, "prompts with the same beginning share its KV blocks")
    greedy_on_device: bool = setting(
        BOOLEAN, True, "the device chooses tokens that are the argmax, and reports their log-probabilities"
    )
    max_queue: int = setting(
        integer(1, 1 << 20), 1024, "requests in the queue of all replicas; beyond it 429", live=True
    )
    request_timeout_s: float | None = setting(
        number(0, above=True), None, "longest time of a request, queue included; null: no limit", live=True
    )
    hang_timeout_s: float = setting(
        number(0.5),
        5.0,
        "time after which a stage that has work and makes no progress is killed and restarted; "
        "ten times the slowest step, if that is longer",
        live=True,
    )
    max_restarts: int = setting(
        integer(0),
        5,
        "restarts in a row of a stage that dies without having done anything useful; then the server exits",
        live=True,
    )
    drain_timeout_s: float = setting(number(0), 30.0, "time for running requests to finish at shutdown", live=True)
    keep_alive_s: float = setting(
        number(0),
        75.0,
        "idle time after which a connection is closed; longer than the 60 s of usual proxies, which otherwise send "
        "a request on a connection that has just been closed",
        live=True,
    )
    stream_ping_s: float | None = setting(
        number(0, above=True),
        None,
        "a server-sent comment for a stream in which nothing was sent for so long, since proxies cut silent "
        "connections; its status is then sent before the first token; null: none",
        live=True,
    )
    header_timeout_s: float = setting(
        number(0, above=True), 10.0, "time for a client to send a request's headers; beyond it 408", live=True
    )
    body_timeout_s: float = setting(
        number(0, above=True), 30.0, "time for a client to send the body after the headers; beyond it 408", live=True
    )
    write_timeout_s: float = setting(
        number(0, above=True), 30.0, "time without reading its answer after which a client is disconnected", live=True
    )
    header_limit_bytes: int = setting(
        integer(1024, 1 << 20), 64 << 10, "largest request line and headers together; beyond it 431", live=True
    )
    body_limit_bytes: int = setting(
        integer(1024, 1 << 28), 4 << 20, "largest body of a request; beyond it 413", live=True
    )
    body_memory_bytes: int = setting(
        integer(1024, 1 << 40), 256 << 20, "all bodies that are being received, together; beyond it 503", live=True
    )
    stream_buffer_tokens: int = setting(
        integer(1, 1 << 20),
        4096,
        "tokens buffered for a client that does not read; beyond them it is disconnected",
        live=True,
    )
    detached_s: float = setting(
        number(0),
        0.0,
        "how long a request goes on without its client, and how long its answer is kept for that; 0: it is cancelled "
        "when its client disconnects. A request's header `x-detached-s` says it for that one",
        live=True,
    )
    max_detached_s: float = setting(
        number(0), 600.0, "most that `x-detached-s` may be, and as long as `background: true` is good for", live=True
    )
    max_background: int = setting(
        integer(1, 1 << 20),
        None,
        "texts that wait or run though no client does: of answers in the background, and of those whose client left "
        "and may come back; beyond it 429 for more that may outlive their client",
        derived="half of `max_queue`",
        live=True,
    )
    kept_bytes: int = setting(
        integer(1 << 20, 1 << 32),
        32 << 20,
        "memory of answers that are kept; those that were complete first make room for others",
    )
    prompt_limit_chars: int = setting(
        integer(1, 1 << 28),
        None,
        "longest text prompt, in characters: a prompt that can't fit is refused before it is tokenized",
        derived="16 x `seq_length`, at least 4096",
        live=True,
    )
    max_connections: int = setting(
        integer(1, 1 << 20), 1000, "open connections; beyond it new ones get 503", live=True
    )
    hosts: tuple[str, ...] = setting(
        list_of(TEXT, maximum=64), None, "addresses to listen on", derived="`serving_config.server_ip`"
    )
    api_keys_file: Path | None = setting(
        PATH, None, "file of API keys, one per line; keys in the environment (`RINGSERVE_API_KEY`) are valid, too"
    )
    cors_origins: tuple[str, ...] | None = setting(
        list_of(ORIGIN), None, "origins of web pages that may use this server from a browser (CORS); null: none"
    )
    metrics_port: int | None = setting(
        integer(0, 65535),
        None,
        "separate port for `/metrics`, `/debug` and the live page, 0: any free one; null: `server_port`",
    )
    otlp_endpoint: str | None = setting(
        COLLECTOR,
        None,
        "OpenTelemetry collector for a trace of each request, as OTLP over HTTP; needs the extra `otel`; null: none",
    )
    vllm_metrics: bool = setting(
        BOOLEAN,
        False,
        "`/metrics` has the metrics that vLLM has under its names, too, which endpoint pickers and autoscalers read",
        live=True,
    )
    metrics_host: str = setting(TEXT, "127.0.0.1", "address of that port")
    model_aliases: tuple[str, ...] = setting(
        list_of(TEXT, minimum=0, maximum=64), (), "more names of the model in OpenAI's API and Ollama's", live=True
    )
    generation_config: str = setting(
        choice("auto", "none"),
        "auto",
        "defaults of sampling parameters in OpenAI's API and Ollama's: `auto` takes temperature, top_p, top_k, min_p "
        "and repetition_penalty from the model's `generation_config.json`",
    )
    user_control_tokens: str = setting(
        choice("text", "control"),
        "text",
        "what special tokens are that a user or a tool spells out in a chat's message: `text`, or `control` as if "
        "the template had written them",
        live=True,
    )
    unknown_parameters: str = setting(
        choice("warn", "refuse"),
        "warn",
        "parameters of a request that no API here knows: `warn` ignores them, and names them in the answer's header "
        "`x-ringserve-ignored` and once in the log; `refuse` answers 400 (422 in llm-serving's API)",
        live=True,
    )
    deterministic: bool = setting(
        BOOLEAN,
        False,
        "requests are deterministic unless they say something else: the same text whoever else is served, and "
        "whatever happens; it costs speed (docs/deterministic.md), and not every engine can",
    )
    llm_serving_logprobs: bool = setting(
        BOOLEAN,
        True,
        "tokens in llm-serving's API have a `logprob`; false: it is null",
        live=True,
    )
    llm_serving_raw_logit: bool = setting(
        BOOLEAN,
        False,
        "`logprob` in llm-serving's API is the raw logit, as llm-serving has it; every step then copies all logits",
        live=True,
    )
    save_logits_dir: Path | None = setting(
        PATH,
        None,
        "for comparing runs: directory for the logits of every 100th position, as llm-serving's accuracy check "
        "expects them; slow",
    )
    log: LogConfig = section(LogConfig)
    spin_us: SpinConfig = section(SpinConfig)
    cpus: CpuConfig = section(CpuConfig)
    rings: RingConfig = section(RingConfig)

    @property
    def engine_processes(self) -> int:
        """That run a model, or a part of it."""
        return self.replicas * self.ranks

    @property
    def is_router(self) -> bool:
        """A front whose replicas are on nodes."""
        return self.max_nodes > 0

    @property
    def drafts(self) -> int:
        """Of a row in a step, at most. Files of logits are of tokens that hold: with these there are no guesses."""
        on = self.speculation.method != "off" and self.save_logits_dir is None
        return self.speculation.max_drafts if on else 0

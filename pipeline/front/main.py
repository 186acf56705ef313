"""The front's process, as the launcher starts it."""

from __future__ import annotations

import socket
import sys
from collections.abc import Mapping

from pipeline.front.http.access import ApiKeys
from pipeline.front.server import run_front
from pipeline.front.settings import FrontSettings
from pipeline.host.facts import raise_descriptor_limit
from pipeline.runtime import background
from pipeline.runtime.engines import make_runner
from pipeline.runtime.gc_policy import freeze_gc
from pipeline.runtime.malloc_policy import share_one_heap
from pipeline.runtime.stage import Stage
from pipeline.runtime.tokenizer import open_tokenizer, sampling_defaults


def run_front_stage(stage: Stage) -> None:
    """Serve on the sockets that the launcher has bound."""
    listeners = [socket.socket(fileno=fd) for fd in (*stage.listen_fds, *stage.metrics_fds)]
    for listener in listeners:
        listener.setblocking(False)
    metrics_port = listeners[-1].getsockname()[1] if stage.metrics_fds else None

    share_one_heap()
    tokenizer = open_tokenizer(stage.config, stage.shapes.vocab_size)
    defaults = sampling_defaults(stage.config)
    settings, keys = settings_of(stage, metrics_port, defaults), ApiKeys(stage.api_keys)

    def reload() -> None:
        raise_descriptor_limit(stage.config)  # the launcher has checked that this is possible
        settings.update(settings_of(stage, metrics_port, defaults))
        keys.replace(stage.api_keys)

    stage.on_reload = reload
    sys.setswitchinterval(background.SWITCH_S)
    freeze_gc(stage.spec.role)
    stage.pauses.start()
    run_front(settings, stage.control, stage.stats_handle, listeners, tokenizer, keys, front=stage.spec.rank)


def settings_of(stage: Stage, metrics_port: int | None, defaults: Mapping[str, float]) -> FrontSettings:
    config, pipeline = stage.config, stage.config.pipeline
    return FrontSettings(
        model_name=pipeline.model_name,
        model_aliases=pipeline.model_aliases,
        model_route=config.serving_config.model_route,
        vocab_size=stage.shapes.vocab_size,
        max_length=config.max_length,
        max_prompt=config.max_prompt,
        prompt_limit_chars=pipeline.prompt_limit_chars,
        max_rows=stage.shapes.max_rows,
        max_queue=pipeline.max_queue,
        device=pipeline.runner.device,
        runner=make_runner(config).facts.name,
        dtype=str(config.model_config.model_dtype),
        body_limit_bytes=pipeline.body_limit_bytes,
        body_memory_bytes=pipeline.body_memory_bytes,
        header_limit_bytes=pipeline.header_limit_bytes,
        max_connections=pipeline.max_connections,
        cors_origins=pipeline.cors_origins or (),
        metrics_port=metrics_port,
        header_timeout_s=pipeline.header_timeout_s,
        body_timeout_s=pipeline.body_timeout_s,
        write_timeout_s=pipeline.write_timeout_s,
        stream_buffer_tokens=pipeline.stream_buffer_tokens,
        keep_alive_s=pipeline.keep_alive_s,
        stream_ping_s=pipeline.stream_ping_s,
        drain_timeout_s=pipeline.drain_timeout_s,
        request_timeout_s=pipeline.request_timeout_s,
        sampling_defaults=defaults,
        user_control_tokens=pipeline.user_control_tokens,
        unknown_parameters=pipeline.unknown_parameters,
        llm_serving_logprobs=pipeline.llm_serving_logprobs,
        llm_serving_raw_logit=pipeline.llm_serving_raw_logit,
        log_level=pipeline.log.level,
        log_format=pipeline.log.format,
    )

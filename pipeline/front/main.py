"""The front's process, as the launcher starts it."""

from __future__ import annotations

import socket

from pipeline.front.server import run_front
from pipeline.front.settings import FrontSettings
from pipeline.garbage import settle
from pipeline.stage import Stage
from pipeline.stats import StatsHandle
from pipeline.tokenizers import open_tokenizer


def run_front_stage(stage: Stage) -> None:
    """Serve on the sockets that the launcher has bound."""
    listeners = [socket.socket(fileno=fd) for fd in stage.listen_fds]
    for listener in listeners:
        listener.setblocking(False)

    tokenizer = open_tokenizer(stage.config, stage.shapes.vocab_size)
    settings = settings_of(stage)
    stage.on_reload = lambda: settings.update(settings_of(stage))
    settle(stage.name)
    handle = StatsHandle(stage.stats_fd)
    run_front(settings, stage.control, handle, listeners=listeners, load_tokenizer=lambda: tokenizer)


def settings_of(stage: Stage) -> FrontSettings:
    config, pipeline = stage.config, stage.config.pipeline
    return FrontSettings(
        model_name=pipeline.model_name,
        model_route=config.serving_config.model_route,
        vocab_size=stage.shapes.vocab_size,
        max_length=config.max_length,
        max_prompt=min(config.model_config.seq_length, config.max_length - 1),
        max_rows=stage.shapes.max_rows,
        max_queue=pipeline.max_queue,
        device=pipeline.runner.device,
        dtype=str(config.model_config.model_dtype),
        body_limit_bytes=pipeline.body_limit_bytes,
        max_connections=pipeline.max_connections,
        header_timeout_s=pipeline.header_timeout_s,
        keep_alive_s=pipeline.keep_alive_s,
        drain_timeout_s=pipeline.drain_timeout_s,
        request_timeout_s=pipeline.request_timeout_s,
        llm_serving_logprobs=pipeline.llm_serving_logprobs,
        llm_serving_raw_logit=pipeline.llm_serving_raw_logit,
        log_level=pipeline.log.level,
        log_format=pipeline.log.format,
    )

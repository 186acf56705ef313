"""The front's process, as the launcher starts it."""

from __future__ import annotations

import functools
import socket
import sys
from collections.abc import Mapping
from dataclasses import fields
from types import MappingProxyType
from typing import Any

from model.response import ResponseFormat
from pipeline.config import Configuration
from pipeline.front.http.access import ApiKeys
from pipeline.front.server import run_front
from pipeline.front.settings import FrontSettings, LinkSettings
from pipeline.host.facts import raise_descriptor_limit
from pipeline.runtime import background
from pipeline.runtime.deterministic import why_not_deterministic
from pipeline.runtime.gc_policy import freeze_gc
from pipeline.runtime.huge_pages import collapse_heap
from pipeline.runtime.malloc_policy import give_back_freed, share_one_heap
from pipeline.runtime.stage import Stage, end_as_usual
from pipeline.runtime.tokenizer import response_format, sampling_defaults
from pipeline.runtime.vocabulary import map_vocabulary, vocabulary_hash


def run_front_stage(stage: Stage) -> None:
    """Serve on the sockets that the launcher has bound."""
    listeners, links = _sockets(*stage.listen_fds, *stage.metrics_fds), _sockets(*stage.link_fds)
    metrics_port = listeners[-1].getsockname()[1] if stage.metrics_fds else None

    share_one_heap()
    assert stage.vocabulary_fd is not None  # the launcher gives one to every front
    vocabulary = map_vocabulary(stage.vocabulary_fd)
    defaults, form = sampling_defaults(stage.config), response_format(stage.config, vocabulary)
    link = link_settings(
        stage.config, stage.shapes.vocab_size, vocabulary_hash(stage.vocabulary_fd), stage.fingerprints
    )
    make = functools.partial(settings_of, stage, metrics_port, defaults, form, link)
    settings, keys = make(), ApiKeys(stage.api_keys)

    def reload() -> None:
        raise_descriptor_limit(stage.config)  # the launcher has checked that this is possible
        settings.update(make())
        keys.replace(stage.api_keys)

    stage.on_reload = reload
    end_as_usual()
    sys.setswitchinterval(background.SWITCH_S)
    freeze_gc(stage.spec.role)
    give_back_freed()
    collapse_heap()
    stage.pauses.start()
    run_front(
        settings,
        stage.control,
        stage.stats_handle,
        listeners,
        vocabulary,
        keys,
        front=stage.spec.rank,
        spans=stage.spans,
        link_listeners=links,
        journal_fd=stage.journal_fd,
    )


def _sockets(*fds: int) -> list[socket.socket]:
    sockets = [socket.socket(fileno=fd) for fd in fds]
    for one in sockets:
        one.setblocking(False)
    return sockets


def link_settings(
    config: Configuration, vocab_size: int, vocabulary: str, adapters: Mapping[str, bytes] = MappingProxyType({})
) -> LinkSettings | None:
    """Of a node or a router; `vocabulary` is a fingerprint of its tokenizer, `adapters` those of adapters."""
    pipeline, link = config.pipeline, config.pipeline.link
    if not pipeline.is_router and link.listen is None:
        return None
    assert link.ca is not None  # the configuration was checked
    assert link.certificate is not None
    assert link.key is not None
    return LinkSettings(
        nodes=pipeline.nodes,
        max_nodes=pipeline.max_nodes,
        ca=link.ca,
        certificate=link.certificate,
        key=link.key,
        heartbeat_s=link.heartbeat_s,
        facts={
            "pipeline.model_name": pipeline.model_name,
            "model_config.vocab_size": vocab_size,
            "model_config.max_generate_length": config.max_length,
            "model_config.seq_length": config.max_prompt,
            "pipeline.replicas": pipeline.replicas,
            "pipeline.lora.adapters": ", ".join(f"{name} {made.hex()[:16]}" for name, made in adapters.items()),
            "the tokenizer's fingerprint": vocabulary,
        },
        longest_request=pipeline.rings.request_bytes // 2,
        longest_answer=pipeline.rings.reply_bytes // 2,
    )


def settings_of(
    stage: Stage,
    metrics_port: int | None,
    defaults: Mapping[str, float],
    form: ResponseFormat | None,
    link: LinkSettings | None = None,
) -> FrontSettings:
    """What is not set here is named as in `pipeline` of the configuration."""
    config, pipeline = stage.config, stage.config.pipeline
    own: dict[str, Any] = {
        "model_route": config.serving_config.model_route,
        "vocab_size": stage.shapes.vocab_size,
        "adapters": tuple(pipeline.lora.adapters),
        "max_length": config.max_length,
        "max_prompt": config.max_prompt,
        "max_rows": stage.shapes.max_rows,
        "block_size": stage.facts.block_size,
        "cached_tokens": stage.facts.num_blocks * stage.facts.block_size,
        "device": pipeline.runner.device,
        "runner": stage.facts.name,
        "not_deterministic": "" if pipeline.is_router else why_not_deterministic(stage.facts),
        "dtype": str(config.model_config.model_dtype),
        "sampling_defaults": defaults,
        "response_format": form,
        "cors_origins": pipeline.cors_origins or (),
        "metrics_port": metrics_port,
        "log_level": pipeline.log.level,
        "log_format": pipeline.log.format,
        "replicas": max(1, pipeline.max_nodes) * pipeline.replicas,
        "link": link,
    }
    same = {field.name: getattr(pipeline, field.name) for field in fields(FrontSettings) if field.name not in own}
    return FrontSettings(**own, **same)

"""Defaults that follow from other settings and from the model's own files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from .auto import resolve
from .draft import Draft
from .engine_choice import choose_engine, replace_block_size
from .files import default_compile_cache, is_folder, is_there
from .model_files import ModelFacts, read_model_facts
from .source import Unreadable

_MODEL = "model_config."
_CHARS_PER_TOKEN = 16  # four times English; only runs of spaces and the like have more


def derive(draft: Draft, known: Mapping[str, Any] = MappingProxyType({})) -> ModelFacts:
    """Fill in defaults; None stays where no source has a value. Returns what the model's files say.

    ``known``: values of an earlier time for settings that are ``auto``.
    """
    _find_model(draft)
    facts = _facts(draft)
    values = draft.values
    _default(draft, _MODEL + "checkpoint_path", facts.checkpoint)
    _default(draft, _MODEL + "vocab_size", facts.vocab_size)
    _default(draft, _MODEL + "end_token", facts.end_token if facts.end_token is not None else 2)
    _default(draft, "pipeline.runner.device", facts.device or "CPU")
    ports = values["serving_config.agent_ports"]
    _default(draft, "pipeline.ranks", len(ports) if ports else None)
    _default(draft, "pipeline.max_nodes", len(values["pipeline.nodes"] or ()))
    choose_engine(draft, known)
    replace_block_size(draft)
    if values["pipeline.runner.kind"] != "emulated":
        _default(draft, "pipeline.runner.compile_cache", default_compile_cache() or "none")
    draft.choices += resolve(draft, facts, known)
    lengths = [length for length in (values["pa_config.decode_seq_length"], facts.max_positions) if length]
    _default(draft, _MODEL + "max_generate_length", min(lengths, default=None))
    longest = values[_MODEL + "max_generate_length"]
    _default(draft, _MODEL + "seq_length", longest)
    _default(draft, "pa_config.decode_seq_length", longest)
    prompt = values[_MODEL + "seq_length"]
    _default(draft, "pipeline.prompt_limit_chars", None if prompt is None else max(_CHARS_PER_TOKEN * prompt, 4096))
    queue = values["pipeline.max_queue"]
    _default(draft, "pipeline.max_background", None if queue is None else max(1, queue // 2))
    _default(draft, "pipeline.max_rows", values[_MODEL + "decode_batch_size"])
    _default(draft, "pipeline.logit_rows", values["pipeline.max_rows"])
    _default(draft, "pipeline.model_name", values[_MODEL + "model_name"])
    _default(draft, "pipeline.rings.reply_bytes", _reply_bytes(longest))
    host = values["serving_config.server_ip"]
    _default(draft, "pipeline.hosts", (host,) if host else None)
    return facts


def _default(draft: Draft, key: str, value: Any) -> None:
    if draft.values[key] is None and key not in draft.bad:
        draft.values[key] = value


def _reply_bytes(longest: int | None) -> int:
    """A power of two. A record takes at most half of the ring."""
    return min(max(1 << 20, 1 << (32 * (longest or 1) - 1).bit_length()), 1 << 30)


def _find_model(draft: Draft) -> None:
    """``pipeline.model_dir``, or the directory of a ``config.json``, gives the paths that are not set."""
    folder: Path | None = draft.values["pipeline.model_dir"]
    key = _MODEL + "model_cfg_path"
    _default(draft, key, folder and folder / "config.json")
    path: Path | None = draft.values[key]
    if path is not None and is_folder(path):
        draft.values[key] = path = path / "config.json"
    if path is not None and path.suffix == ".json":
        _default(draft, _MODEL + "checkpoint_path", folder or path.parent)
        folder = folder or path.parent
    _default(draft, "tokenizer.vocab_file", folder)


def _facts(draft: Draft) -> ModelFacts:
    path: Path | None = draft.values[_MODEL + "model_cfg_path"]
    if path is None or not is_there(path):  # the checks report a missing file
        return ModelFacts()
    try:
        return read_model_facts(path)
    except Unreadable as error:
        draft.reject([_MODEL + "model_cfg_path", "pipeline.model_dir"], f"the model's configuration: {error}")
        derived = (_MODEL + "vocab_size", _MODEL + "max_generate_length")
        draft.bad |= {key for key in derived if draft.values[key] is None}
        return ModelFacts()

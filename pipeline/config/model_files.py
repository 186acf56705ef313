"""What a model's own configuration says about the server: sizes, and where the weights are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import Problem
from .files import is_folder, is_there
from .source import Unreadable, read_content, read_file

_USUAL_POSITIONS = 2048  # of engines, and of transformers, where a config.json has none
_NO_LENGTH = 10**9  # transformers writes 10**30 where nothing bounds a tokenizer


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """None: the file has no such value."""

    vocab_size: int | None = None
    max_positions: int | None = None
    end_token: int | None = None
    dtype: str | None = None
    device: str | None = None
    checkpoint: Path | None = None
    checkpoint_name: str | None = None
    """A name in place of a path: mindformers would download it."""


def read_model_facts(path: Path) -> ModelFacts:
    """From a Hugging Face ``config.json`` or a mindformers YAML, told apart by their names.

    Values that look wrong are left to the runner, which reads the whole file. Raises Unreadable.
    """
    if path.suffix not in {".json", ".yaml", ".yml"}:
        raise Unreadable(Problem(str(path), 0, "is neither .json (Hugging Face) nor .yaml (mindformers)"))
    document = _read_json(path) if path.suffix == ".json" else read_file(path, []).plain()
    if not isinstance(document, dict):
        raise Unreadable(Problem(str(path), 0, "must hold a mapping"))
    return _hugging_face(document, path) if path.suffix == ".json" else _mindformers(document, path)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(read_content(path))
    except json.JSONDecodeError as error:
        raise Unreadable(
            Problem(str(path), error.lineno, f"is not JSON: {error.msg}; if it is truncated, download it again")
        ) from error
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits; thousands of levels
        raise Unreadable(Problem(str(path), 0, f"is not usable JSON: {error}")) from error


def _hugging_face(document: Mapping[str, Any], path: Path) -> ModelFacts:
    from model.errors import ConfigurationError
    from model.folder import refuse_multimodal

    try:
        refuse_multimodal(document)
    except ConfigurationError as error:
        raise Unreadable(Problem(str(path), 0, str(error))) from error
    return ModelFacts(
        vocab_size=_count(document, "vocab_size"),
        max_positions=_count(document, "max_position_embeddings") or _USUAL_POSITIONS,
        end_token=_id(document.get("eos_token_id")),
        dtype=_dtype(document.get("dtype") or document.get("torch_dtype")),
        checkpoint=path.parent,
    )


def _mindformers(document: Mapping[str, Any], path: Path) -> ModelFacts:
    config = _mapping(_mapping(document.get("model")).get("model_config"))
    named = document.get("load_checkpoint") or config.get("checkpoint_name_or_path")
    checkpoint = _existing(named, path.parent)
    positions = [_count(config, key) or 0 for key in ("max_position_embedding", "seq_length")]
    return ModelFacts(
        vocab_size=_count(config, "vocab_size"),
        max_positions=max(positions) or None,
        end_token=_id(config.get("eos_token_id")),
        device=_device(_mapping(document.get("context")).get("device_target")),
        checkpoint=checkpoint,
        checkpoint_name=named if isinstance(named, str) and checkpoint is None else None,
    )


def _existing(named: object, folder: Path) -> Path | None:
    """A path, absolute or relative to the file. A bare name that is no file there is a name for downloading."""
    if not isinstance(named, str) or not named or "\0" in named:
        return None
    path = folder / named
    return path if "/" in named or path.suffix in {".ckpt", ".safetensors"} or is_there(path) else None


def _dtype(value: object) -> str | None:
    name = value.removeprefix("torch.") if isinstance(value, str) else None
    return name if name in ("float16", "float32", "bfloat16") else None


def read_tokenizer_length(tokenizer: Path | None) -> int | None:
    """``model_max_length`` of the tokenizer_config.json beside a tokenizer; None: it says nothing that is meant."""
    if tokenizer is None:
        return None
    path = (tokenizer if is_folder(tokenizer) else tokenizer.parent) / "tokenizer_config.json"
    try:
        document = _read_json(path)
    except Unreadable:
        return None
    length = _count(document, "model_max_length") if isinstance(document, dict) else None
    return length if length is not None and length < _NO_LENGTH else None


def _device(value: object) -> str | None:
    return value if value in ("CPU", "Ascend") and isinstance(value, str) else None


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _count(mapping: Mapping[str, Any], key: str) -> int | None:
    value = mapping.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _id(value: object) -> int | None:
    """Of several ids the first; the tokenizer knows the others."""
    first = value[0] if isinstance(value, list) and value else value
    return first if isinstance(first, int) and not isinstance(first, bool) and first >= 0 else None

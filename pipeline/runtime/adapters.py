"""The adapters that a configuration names."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from model.errors import ModelError
from pipeline.config import Configuration

if TYPE_CHECKING:
    from model.adapters import Adapter


def adapter_fingerprints(config: Configuration) -> dict[str, bytes]:
    """By name, in the order of their slots. Reads headers and hashes the files, so that what does not fit is known
    before anything is started: raises ModelError, which names the adapter."""
    lora, kind, model = config.pipeline.lora, config.pipeline.runner.kind, config.model_config.model_cfg_path
    if kind == "emulated":  # it has no weights, and tells adapters by their slots
        return {name: hashlib.sha256(b"slot %d" % slot).digest() for slot, name in enumerate(lora.adapters, 1)}
    if model is None:
        return {}
    if lora.merged is not None:
        _read(model, "that is to be merged", lora.merged)
    return {name: _read(model, name, folder).fingerprint() for name, folder in lora.adapters.items()}


def _read(model: Path, name: str, folder: Path) -> Adapter:
    """Headers alone."""
    from model.adapters import read_adapter
    from model.mindformers_runner.configuration import read_model

    try:
        return read_adapter(folder, read_model(model)[0])
    except ModelError as error:
        raise ModelError(f"the adapter {name}: {error}") from error

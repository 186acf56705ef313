"""The adapters that a configuration names."""

from __future__ import annotations

import hashlib
from pathlib import Path

from model.errors import ModelError
from pipeline.config import Configuration


def adapter_fingerprints(config: Configuration) -> dict[str, bytes]:
    """By name, in the order of their slots. Reads headers and hashes the files, so that what does not fit is known
    before anything is started: raises the `ModelError` that an adapter is refused with, and names it."""
    lora = config.pipeline.lora
    if config.pipeline.runner.kind == "emulated":  # which has no weights, and tells adapters by their slots
        return {name: hashlib.sha256(b"slot %d" % slot).digest() for slot, name in enumerate(lora.adapters, 1)}
    if lora.merged is not None:
        _fingerprint(config, "that is to be merged", lora.merged)
    return {name: _fingerprint(config, name, folder) for name, folder in lora.adapters.items()}


def _fingerprint(config: Configuration, name: str, folder: Path) -> bytes:
    from model.adapters import read_adapter
    from model.families import read_spec_file

    assert config.model_config.model_cfg_path is not None  # the configuration was checked
    try:
        return read_adapter(folder, read_spec_file(config.model_config.model_cfg_path)).fingerprint
    except ModelError as error:
        raise type(error)(f"the adapter {name}: {error}") from error

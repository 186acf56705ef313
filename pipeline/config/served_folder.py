"""``ringserve serve DIR``: the configuration that a model's folder is enough for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .auto import AUTO
from .errors import ConfigurationError, Problem
from .kinds import not_utf8
from .source import Located

if TYPE_CHECKING:
    from model.folder import ModelFolder


def describe_folder(folder: Path) -> Located:
    """The document that stands for a folder: what a file would say that leaves everything to the server.

    Raises ConfigurationError for a folder without a model that can be read.
    """
    from model.errors import ModelError
    from model.folder import locate_model

    if (reason := not_utf8(str(folder.absolute()))) is not None:
        raise ConfigurationError([Problem(f"serve {folder}", 0, reason)])
    try:
        model = locate_model(folder)
        _require_configuration(model.path)
    except ModelError as error:
        raise ConfigurationError([Problem("serve", 0, str(error))]) from error
    return _located(_document(model), f"serve {folder}")


def _document(model: ModelFolder) -> dict[str, Any]:
    return {
        "model_config": {
            "model_name": model.short_name,
            "max_generate_length": AUTO,
            "decode_batch_size": AUTO,
            "model_dtype": AUTO,
        },
        "pa_config": {"num_blocks": AUTO, "block_size": AUTO},
        "pipeline": {
            "model_dir": str(model.path),
            "model_name": model.name,
            "model_aliases": [model.short_name] if model.short_name != model.name else [],
            "token_budget": AUTO,
        },
    }


def _require_configuration(folder: Path) -> None:
    """Raises CheckpointError that says what the folder is, if it has no config.json."""
    from model.errors import CheckpointError
    from model.folder import require_content, weight_files

    file = folder / "config.json"
    if file.exists() or file.is_symlink():
        require_content(file)
        return
    weight_files(folder)
    raise CheckpointError(f"{folder} holds weights, but no config.json, which describes the model; download it, too")


def _located(value: Any, source: str) -> Located:
    if isinstance(value, dict):
        value = {key: _located(item, source) for key, item in value.items()}
    elif isinstance(value, list):
        value = [_located(item, source) for item in value]
    return Located(value, source, 0, Path.cwd())

"""What can be known of a configuration's weights without reading them all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config import Configuration

if TYPE_CHECKING:
    from model.checkpoint.stored_tensor import StoredTensor


def describe_weights(config: Configuration) -> str | None:
    """One line, after a look at the headers and sizes of all files; None: nothing is loaded.

    Raises ModelError for what a start would refuse by them.
    """
    runner, model = config.pipeline.runner, config.model_config
    if config.pipeline.is_router:  # a router's are its nodes'
        return None
    if runner.kind == "emulated" or runner.random_weights or None in (model.model_cfg_path, model.checkpoint_path):
        return None
    from model.adapters import model_weights
    from model.mindformers_runner.configuration import read_model

    path = model.checkpoint_path
    if path is not None and not path.exists():  # perhaps it is on another host
        return f"warning: {path} does not exist here, so weights were not looked at"
    assert model.model_cfg_path is not None
    weights = model_weights(read_model(model.model_cfg_path)[0], path)
    return f"weights: names, shapes and sizes of {len(weights)} fit the model; their values were not read"


def identify_weights(config: Configuration) -> str:
    """Their id: what `model.checkpoint.identity` makes of the files, and of an adapter that is merged into them; of
    an emulated device, which has none, it stands for its seed. Empty for a router. Raises ModelError, OSError."""
    from model.checkpoint.identity import weights_id

    runner, model, merged = config.pipeline.runner, config.model_config, config.pipeline.lora.merged
    if config.pipeline.is_router:
        return ""
    if runner.kind == "emulated":
        return weights_id(b"emulated, seed %d" % (runner.seed or 0), {})
    assert model.model_cfg_path is not None  # the configuration was checked
    content = model.model_cfg_path.read_bytes() + _fingerprint(merged, model.model_cfg_path)
    if runner.random_weights or model.checkpoint_path is None:
        return weights_id(content + b"random", {})
    return weights_id(content, _tensors(model.checkpoint_path))


def identify_folder(folder: Path) -> str:
    """The same of a folder, which need not have weights. Raises ModelError, OSError."""
    from model.checkpoint.identity import weights_id

    weights = any(next(folder.glob(f"*{kind}"), None) for kind in (".safetensors", ".ckpt"))
    return weights_id((folder / "config.json").read_bytes(), _tensors(folder) if weights else {})


def _tensors(path: Path) -> dict[str, StoredTensor]:
    from model.checkpoint.files import index_files

    return index_files(path)


def _fingerprint(merged: Path | None, model: Path) -> bytes:
    from model.adapters import read_adapter
    from model.mindformers_runner.configuration import read_model

    return b"" if merged is None else read_adapter(merged, read_model(model)[0]).fingerprint()

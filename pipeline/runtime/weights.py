"""What can be known of a configuration's weights without reading them."""

from __future__ import annotations

from pipeline.config import Configuration


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

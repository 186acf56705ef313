"""`MindFormersRunner`: mindformers' Llama behind the runner interface."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from model.checkpoint.weight import random_weights
from model.mindformers_runner.checkpoint import open_checkpoint
from model.mindformers_runner.configuration import read_architecture
from model.mindformers_runner.settings import MindFormersSettings
from model.mindspore_common.runner import GraphRunner
from model.runner import Progress

if TYPE_CHECKING:
    from model.mindspore_common.compile_cache import CompileCache
    from model.mindspore_common.execution import Execution


class MindFormersRunner(GraphRunner):
    """mindformers' `LlamaForCausalLM` with a paged KV cache, on CPU or Ascend.

    Constructing it reads the configuration and the checkpoint's headers, so that everything that does not fit
    is known before anything is allocated.

    Raises:
        ConfigurationError, CheckpointError, CapacityError: from the constructor.
    """

    settings: MindFormersSettings

    def __init__(self, settings: MindFormersSettings) -> None:
        self.settings = settings
        self.architecture = shape = read_architecture(settings.config_path)
        path = settings.checkpoint_path
        self._weights = (
            open_checkpoint(path, shape) if path is not None else random_weights(shape.tensors(), settings.seed)
        )
        super().__init__(f"mindformers Llama {shape.hidden_size} x {shape.num_layers}", shape, settings)

    def _build(self, progress: Progress | None) -> tuple[Any, Execution]:
        from model.mindspore_common.import_quietly import import_mindformers

        import_mindformers()
        from model.mindformers_runner.network import build_network
        from model.mindformers_runner.weights import load_weights
        from model.mindspore_common.device import use_device

        use_device(self.settings)
        network = build_network(self.architecture, self.settings, self.facts.max_length)
        load_weights(network, self._weights, np.float32 if self._on_cpu else np.float16, progress)
        return network, self._make_execution(network)

    def _make_execution(self, network: Any) -> Execution:
        from model.mindformers_runner.execution import DynamicExecution, arrange_on_cpu
        from model.mindspore_common.execution import StaticExecution

        if self._on_cpu:
            return StaticExecution(network, self.facts, arrange_on_cpu)
        return DynamicExecution(network, self.facts)

    def _compile_cache(self) -> CompileCache:
        import mindformers

        from model.mindspore_common.compile_cache import CompileCache

        parts = (self.architecture, self.settings.attention, mindformers.__version__)
        return CompileCache(self.settings.compile_cache_dir, self.facts, Path(__file__).parent, *parts)

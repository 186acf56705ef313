"""`MindFormersRunner`: mindformers' networks behind the runner interface."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.adapters import model_weights
from model.mindformers_runner.configuration import read_model
from model.mindformers_runner.names import network_weights
from model.mindformers_runner.networks import choose_network, compute_dtype
from model.mindformers_runner.settings import MindFormersSettings
from model.mindspore_common.runner import GraphRunner, longest
from model.runner import Progress

if TYPE_CHECKING:
    from model.mindspore_common.compile_cache import CompileCache
    from model.mindspore_common.execution import Execution


class MindFormersRunner(GraphRunner):
    """mindformers' `LlamaForCausalLM` or `GPTModel` with a paged KV cache, on CPU or Ascend.

    Constructing it reads the configuration and the checkpoint's headers, so that everything that does not fit
    is known before anything is allocated.

    Raises:
        ConfigurationError, CheckpointError, CapacityError: from the constructor.
    """

    settings: MindFormersSettings

    def __init__(self, settings: MindFormersSettings) -> None:
        self.settings = settings
        self.spec, self.fused = read_model(settings.config_path)
        spec = self.spec
        length = longest(settings, spec)
        self.network = choose_network(spec, length)
        self._arithmetic = compute_dtype(spec, settings.device)
        canonical = model_weights(spec, settings.checkpoint_path, settings.merged_adapter, settings.seed)
        self._weights = network_weights(spec, self.network, canonical, fused=self.fused, on_cpu=self._on_cpu)
        name = f"mindformers {self.network} {spec.hidden_size} x {spec.num_layers}"
        super().__init__(name, spec, settings, table_bytes=2 * 4 * length * spec.head_dim)

    def _build(self, progress: Progress | None) -> tuple[Any, Execution]:
        from model.mindspore_common.import_quietly import import_mindformers

        import_mindformers()
        from model.mindformers_runner.weights import load_weights
        from model.mindspore_common.device import use_device

        use_device(self.settings)
        network = self._build_network()
        load_weights(network, self._weights, self._arithmetic, progress)
        return network, self._make_execution(network)

    def _build_network(self) -> Any:
        """Without weights."""
        length = self.facts.max_length
        if self.network == "Llama":
            from model.mindformers_runner.llama import build_llama

            return build_llama(self.spec, self.settings, length, self._arithmetic, fused=self.fused)
        from model.mindformers_runner.gpt import build_gpt

        return build_gpt(self.spec, self.settings, length, self._arithmetic)

    def _make_execution(self, network: Any) -> Execution:
        from model.mindformers_runner.execution import ARGUMENTS, DynamicExecution
        from model.mindspore_common.execution import StaticExecution

        arguments = ARGUMENTS[self.network]
        if self._on_cpu:
            return StaticExecution(network, self.facts, arguments.on_cpu)
        return DynamicExecution(network, self.facts, arguments)

    def _compile_cache(self) -> CompileCache:
        import mindformers

        from model.mindspore_common.compile_cache import CompileCache

        parts = (self.spec, self.fused, self.settings.attention, mindformers.__version__)
        return CompileCache(self.settings.compile_cache_dir, self.facts, Path(__file__).parent, *parts)

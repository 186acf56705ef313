"""`MindFormersRunner`: mindformers' networks behind the runner interface."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.adapters import model_weights
from model.checkpoint.weight import Weight
from model.families import Spec
from model.families.shard import Shard
from model.mindformers_runner.configuration import read_model
from model.mindformers_runner.names import network_weights
from model.mindformers_runner.networks import choose_network, compute_dtype
from model.mindformers_runner.settings import MindFormersSettings
from model.mindspore_common.runner import GraphRunner, longest
from model.runner import Progress

if TYPE_CHECKING:
    from model.mindformers_runner.execution import DynamicExecution
    from model.mindspore_common.compile_cache import CompileCache
    from model.mindspore_common.execution import Execution


class MindFormersRunner(GraphRunner):
    """mindformers' `LlamaForCausalLM` or `GPTModel` with a paged KV cache, on CPU or Ascend; a rank's part of a model
    is a `GPTModel`.

    Constructing it reads the configuration and the checkpoint's headers, so that everything that does not fit
    is known before anything is allocated.

    Raises:
        ConfigurationError, CheckpointError, CapacityError: from the constructor.
    """

    settings: MindFormersSettings

    def __init__(self, settings: MindFormersSettings) -> None:
        self.settings = settings
        self.spec, self.fused = read_model(settings.config_path, settings.ranks.count)
        spec, ranks = self.spec, settings.ranks
        length = longest(settings, spec)
        self.network = choose_network(spec, length, ranks.count)
        self._arithmetic = compute_dtype(spec, settings.device)
        canonical = model_weights(spec, settings.checkpoint_path, settings.merged_adapter, settings.seed)
        if ranks.count > 1:
            spec, canonical = with_own_head(spec, canonical)
        self._shard = Shard(spec, ranks.rank, ranks.count)
        own = self._shard.weights(canonical)
        self._weights = network_weights(self._shard.spec, self.network, own, fused=self.fused, on_cpu=self._on_cpu)
        together = f" on {ranks.count} ranks" if ranks.count > 1 else ""
        name = f"mindformers {self.network} {spec.hidden_size} x {spec.num_layers}{together}"
        numbers = sum(math.prod(weight.shape) for weight in own)
        weight_bytes = numbers * (4 if self._on_cpu else 2)
        super().__init__(name, self._shard.spec, settings, 2 * 4 * length * spec.head_dim, weight_bytes)

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

        return build_gpt(self._shard, self.settings, length, self._arithmetic)

    def _make_execution(self, network: Any) -> Execution:
        if not self._on_cpu:
            return self._dynamic_execution(network)
        from model.mindformers_runner.execution import ARGUMENTS
        from model.mindspore_common.execution import StaticExecution
        from model.mindspore_common.host_results import HostResults
        from model.mindspore_common.rank_results import results_of

        arguments, results = ARGUMENTS[self.network], results_of(self._shard, HostResults)
        return StaticExecution(network, self.facts, arguments.on_cpu, results)

    def _dynamic_execution(self, network: Any) -> DynamicExecution:
        from model.mindformers_runner.execution import ARGUMENTS, DynamicExecution
        from model.mindspore_common.device_results import DeviceResults
        from model.mindspore_common.rank_results import results_of

        candidates = self.facts.candidates
        results = results_of(self._shard, lambda vocab_size: DeviceResults(vocab_size, candidates))
        return DynamicExecution(network, ARGUMENTS[self.network], results)

    def _compile_cache(self) -> CompileCache:
        import mindformers

        from model.mindspore_common.compile_cache import CompileCache

        ranks = self.settings.ranks
        rank = (ranks.rank, ranks.count, ranks.reduce) if ranks.count > 1 else ()
        parts = (self.spec, self.fused, self.settings.attention, mindformers.__version__, *rank)
        return CompileCache(self.settings.compile_cache_dir, self.facts, Path(__file__).parent, *parts)


def with_own_head(spec: Spec, weights: tuple[Weight, ...]) -> tuple[Spec, tuple[Weight, ...]]:
    """A head that is the embedding, as a weight of its own: a rank has a part of it, and the whole embedding."""
    if not spec.tied_embeddings:
        return spec, weights
    embedding = next(weight for weight in weights if weight.name == "embed.weight")
    return replace(spec, tied_embeddings=False), (*weights, replace(embedding, name="head.weight"))

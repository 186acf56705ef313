"""`MindSporeRunner`: the decoder that a `Spec` describes, behind the runner interface."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.adapters import model_weights, read_adapter
from model.checkpoint.weight import size_bytes
from model.errors import ConfigurationError
from model.families import read_spec_file
from model.families.shard import Shard
from model.mindspore_common.runner import GraphRunner, longest
from model.mindspore_runner.adapters import stack
from model.mindspore_runner.settings import MindSporeSettings
from model.runner import Progress

if TYPE_CHECKING:
    from model.mindspore_common.compile_cache import CompileCache
    from model.mindspore_common.execution import Execution


class MindSporeRunner(GraphRunner):
    """Any family that `read_spec` knows, with a paged KV cache, in float32 on CPU.

    Constructing it reads the configuration and the checkpoint's headers, so that everything that does not fit
    is known before anything is allocated.

    Raises:
        ConfigurationError, CheckpointError, CapacityError: from the constructor.
    """

    settings: MindSporeSettings

    def __init__(self, settings: MindSporeSettings) -> None:
        self.settings = settings
        self.spec = spec = read_spec_file(settings.config_path)
        ranks = settings.ranks
        self._shard = Shard(spec, ranks.rank, ranks.count)
        if ranks.count > 1 and settings.adapters:
            raise ConfigurationError(
                f"adapters beside the model are not divided among {ranks.count} ranks; merge one"
            )
        self._adapters = tuple(read_adapter(folder, spec) for folder in settings.adapters)
        whole = model_weights(spec, settings.checkpoint_path, settings.merged_adapter, settings.seed)
        self._weights = self._shard.weights(whole)
        tables = 4 * len(spec.ropes) * longest(settings, spec) * spec.head_dim
        together = f" on {ranks.count} ranks" if ranks.count > 1 else ""
        name = f"mindspore {spec.family} {spec.hidden_size} x {spec.num_layers}{together}"
        weights = size_bytes(self._weights) + sum(adapter.size_bytes for adapter in self._adapters)
        super().__init__(name, self._shard.spec, settings, tables, weights)
        self.facts = replace(self.facts, deterministic=self._on_cpu and ranks.count == 1)

    def _build(self, progress: Progress | None) -> tuple[Any, Execution]:
        from model.mindspore_common.import_quietly import import_mindspore

        import_mindspore()
        from model.mindspore_common.device import use_device
        from model.mindspore_common.execution import StaticExecution
        from model.mindspore_common.host_results import HostResults
        from model.mindspore_common.rank_results import results_of
        from model.mindspore_runner.decoder import Weights, arrange, build_decoder

        use_device(self.settings)
        weights = Weights(self._weights, self._adapters, progress)
        network = build_decoder(self._shard, self.settings, self.facts.max_length, weights)
        arguments = partial(arrange, adapters=bool(self._adapters))
        return network, StaticExecution(network, self.facts, arguments, results_of(self._shard, HostResults))

    def _compile_cache(self) -> CompileCache:
        from model.mindspore_common.compile_cache import CompileCache

        kept = [weight.name for weight in self._weights if weight.keeps_bfloat16]
        adapted = [(name, stacked.shapes) for name, stacked in stack(self._adapters).items()]
        parts = (self.spec, kept, adapted, self._shard.rank, self._shard.ranks, self.settings.ranks.reduce)
        return CompileCache(self.settings.compile_cache_dir, self.facts, Path(__file__).parent, *parts)

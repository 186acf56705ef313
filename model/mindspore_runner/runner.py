"""`MindSporeRunner`: the decoder that a `Spec` describes, behind the runner interface."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.adapters import model_weights, read_adapter
from model.checkpoint.weight import size_bytes
from model.families import read_spec_file
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
        self._adapters = tuple(read_adapter(folder, spec) for folder in settings.adapters)
        self._weights = model_weights(spec, settings.checkpoint_path, settings.merged_adapter, settings.seed)
        tables = 4 * len(spec.ropes) * longest(settings, spec) * spec.head_dim
        name = f"mindspore {spec.family} {spec.hidden_size} x {spec.num_layers}"
        weights = size_bytes(self._weights) + sum(adapter.size_bytes for adapter in self._adapters)
        super().__init__(name, spec, settings, tables, weights)

    def _build(self, progress: Progress | None) -> tuple[Any, Execution]:
        from model.mindspore_common.import_quietly import import_mindspore

        import_mindspore()
        from model.mindspore_common.device import use_device
        from model.mindspore_common.execution import StaticExecution
        from model.mindspore_runner.decoder import Weights, arrange, build_decoder

        use_device(self.settings)
        weights = Weights(self._weights, self._adapters, progress)
        network = build_decoder(self.spec, self.settings, self.facts.max_length, weights)
        return network, StaticExecution(network, self.facts, partial(arrange, adapters=bool(self._adapters)))

    def _compile_cache(self) -> CompileCache:
        from model.mindspore_common.compile_cache import CompileCache

        kept = [weight.name for weight in self._weights if weight.keeps_bfloat16]
        adapted = [(name, stacked.shapes) for name, stacked in stack(self._adapters).items()]
        parts = (self.spec, kept, adapted)
        return CompileCache(self.settings.compile_cache_dir, self.facts, Path(__file__).parent, *parts)

"""`MindSporeRunner`: the decoder that a `Spec` describes, behind the runner interface."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.checkpoint.weight import random_weights, size_bytes
from model.families import canonical_weights, read_spec_file
from model.mindspore_common.runner import GraphRunner, longest
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
        path = settings.checkpoint_path
        self._weights = (
            canonical_weights(spec, path) if path is not None else random_weights(spec.tensors(), settings.seed)
        )
        tables = 4 * len(spec.ropes) * longest(settings, spec) * spec.head_dim
        name = f"mindspore {spec.family} {spec.hidden_size} x {spec.num_layers}"
        super().__init__(name, spec, settings, tables, size_bytes(self._weights))

    def _build(self, progress: Progress | None) -> tuple[Any, Execution]:
        from model.mindspore_common.import_quietly import import_mindspore

        import_mindspore()
        from model.mindspore_common.device import use_device
        from model.mindspore_common.execution import StaticExecution
        from model.mindspore_runner.decoder import arrange, build_decoder

        use_device(self.settings)
        network = build_decoder(self.spec, self.settings, self.facts.max_length, self._weights, progress)
        return network, StaticExecution(network, self.facts, arrange)

    def _compile_cache(self) -> CompileCache:
        from model.mindspore_common.compile_cache import CompileCache

        kept = [weight.name for weight in self._weights if weight.keeps_bfloat16]
        return CompileCache(self.settings.compile_cache_dir, self.facts, Path(__file__).parent, self.spec, kept)

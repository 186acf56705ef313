"""`OpenVinoRunner`: the decoder that a `Spec` describes, on OpenVINO's CPU kernels, behind the runner interface."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from model.adapters import model_weights
from model.checkpoint.weight import size_bytes
from model.families import read_spec_file
from model.layout import padding
from model.mindspore_common.memory import MemoryNeed
from model.mindspore_common.runner import GraphRunner
from model.openvino.int8_products import load_operations
from model.openvino.memory import kv_block_bytes, memory_need, trim_heap, use_huge_pages, weight_bytes
from model.openvino.requirements import require_openvino
from model.openvino.settings import OpenVinoSettings
from model.runner import Bucket, Progress

if TYPE_CHECKING:
    from model.mindspore_common.execution import Execution


class OpenVinoRunner(GraphRunner):
    """Any family that `read_spec` knows but mixtures of experts and softcaps of scores, on x86 with AVX2.

    Constructing it reads the configuration and the checkpoint's headers, so that everything that does not fit is
    known before anything is allocated, and before OpenVINO is imported.

    Raises:
        ConfigurationError, CheckpointError, CapacityError: from the constructor.
    """

    settings: OpenVinoSettings

    def __init__(self, settings: OpenVinoSettings) -> None:
        self.settings = settings
        self.spec = spec = read_spec_file(settings.config_path)
        require_openvino(spec, bfloat16=settings.inference_dtype == "bf16")
        self._weights = model_weights(spec, settings.checkpoint_path, settings.merged_adapter, settings.seed)
        self._arithmetic = "bfloat16" if settings.inference_dtype == "bf16" else "float32"
        kind = f"{settings.weight_dtype} " if settings.weight_dtype else ""
        super().__init__(f"openvino {kind}{spec.family} {spec.hidden_size} x {spec.num_layers}", spec, settings)

    def memory_need(self) -> MemoryNeed:
        """Bytes that this runner will take."""
        stored = weight_bytes(self.spec, self.settings, size_bytes(self._weights))
        return memory_need(self.spec, self.settings, stored, self.facts.max_length)

    @property
    def compiles(self) -> bool:
        """One graph serves all buckets."""
        return False

    def warm_up(self, progress: Progress | None = None, buckets: Sequence[Bucket] | None = None) -> None:
        """Run what occurs most of these buckets: a shape that is met for the first time costs some milliseconds.
        Raises ModelError for logits not finite."""
        from model.mindspore_common.first_step import try_one_token

        every, nothing = self.facts.buckets, np.zeros((0, self.facts.vocab_size), np.float32)
        wanted = every if buckets is None else buckets
        largest = Bucket(every[-1].tokens, every[-1].rows)
        usual = [bucket for bucket in wanted if bucket.tokens == bucket.rows or bucket == largest] or wanted
        for done, bucket in enumerate(usual, start=1):
            self.step(self.bind(padding(bucket, self.facts)), nothing)
            if done == 1:
                try_one_token(self, bucket, self._arithmetic)
            if progress is not None:
                progress("warming up", done, len(usual))
        if not self.settings.packs_int8:
            self._network.release()  # the plugin has its own copy of most
        trim_heap()
        use_huge_pages()

    def _block_bytes(self) -> int:
        return kv_block_bytes(self.spec, self.settings)

    def _kernel_name(self) -> str:
        products = "; int8 products of our own" if self.settings.packs_int8 else ""
        return f"OpenVINO's, in {self.settings.inference_dtype}{products}"

    def _build(self, progress: Progress | None) -> tuple[Any, Execution]:
        from model.openvino.import_openvino import import_openvino

        import_openvino()
        if self.settings.packs_int8:
            load_operations()
        from model.openvino.compiling import compile_decoder
        from model.openvino.execution import OpenVinoExecution
        from model.openvino.loading import load_weights

        file = load_weights(self._weights, self.settings, progress)
        compiled = compile_decoder(self.spec, self.settings, self.facts.max_length, file)
        return file, OpenVinoExecution(compiled, self.facts, exact_replay=self.settings.rounds)

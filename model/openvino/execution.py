"""Runs the compiled graph over a step's arrays, in threads of OpenVINO's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from openvino import CompiledModel, InferRequest, Shape, Tensor, Type

from model.layout import padding
from model.mindspore_common.host_results import HostResults
from model.openvino.decoder import INPUTS
from model.openvino.replay import Rows, one_by_one
from model.openvino.requirements import BLOCK_SIZE
from model.runner import Bucket, Float32, Int32, RunnerFacts, StepInputs

_OF_TOKENS = 2  # the first inputs are as long as the step has tokens
_OF_ROWS = tuple(INPUTS.index(name) for name in Rows.__slots__)
_CACHES = len(INPUTS)


@dataclass(frozen=True, slots=True)
class Prepared:
    """Tensors over the arrays of one binding; they do not keep them."""

    bucket: Bucket
    fresh: Int32  # [B] new tokens of each row
    arrays: tuple[Int32, ...]  # `INPUTS`
    tensors: tuple[Tensor, ...]  # of the same, for a step that has as many tokens as the bucket
    sampled: Int32 | None


class Output:
    """Logits of a step that computes."""

    __slots__ = ("_logits", "_request")

    def __init__(self, request: InferRequest) -> None:
        self._request = request
        self._logits: Float32 | None = None

    def asnumpy(self) -> Float32:
        """Waits for them: ``[S, vocab]``, in OpenVINO's memory until the next step. Raises RuntimeError."""
        if self._logits is None:
            self._request.wait()
            self._logits = self._request.get_output_tensor(0).data
        logits: Float32 = self._logits
        return logits


class OpenVinoExecution:
    """One graph and one request serve all shapes.

    Attention takes the number of tokens from its arrays' length, which must be the sum of ``q_seq_lens``: else it
    reads and writes out of bounds. So padding is cut off, and a step of padding alone, which warms up or measures,
    computes its bucket's tokens as a row of a block that nobody else has. Slots follow from block tables and lengths:
    `StepInputs.slot_mapping` is only checked.

    ``exact_replay``: see `model.openvino.replay`.
    """

    computes_by_itself = True

    def __init__(self, compiled: CompiledModel, facts: RunnerFacts, *, exact_replay: bool) -> None:
        self.results = HostResults(facts.vocab_size)
        self._facts = facts
        self._request = compiled.create_infer_request()
        self._caches = [_allocate(port, facts.num_blocks + 1) for port in compiled.inputs[_CACHES:]]
        for at, cache in enumerate(self._caches, start=_CACHES):
            self._request.set_input_tensor(at, cache)
        self._rehearsals: dict[Bucket, Prepared] = {}
        self._exact_replay = exact_replay
        self._replayed: Rows | None = None  # of the step that computes: tensors do not keep arrays

    def prepare(self, inputs: StepInputs) -> Prepared:
        arrays = tuple(getattr(inputs, name) for name in INPUTS)
        tensors = tuple(map(_tensor, arrays))
        return Prepared(inputs.bucket, inputs.q_seq_lens, arrays, tensors, inputs.sampled)

    def run(self, prepared: Prepared) -> Output:
        tokens = int(prepared.fresh.sum())
        if tokens == 0:
            prepared = self._rehearsal(prepared.bucket)
        request = self._request
        for at, tensor in enumerate(prepared.tensors):
            request.set_input_tensor(at, tensor)
        if 0 < tokens < prepared.bucket.tokens:
            for at, array in enumerate(prepared.arrays[:_OF_TOKENS]):
                request.set_input_tensor(at, _tensor(array[:tokens]))
        if self._exact_replay and prepared.sampled is not None and tokens > np.count_nonzero(prepared.fresh):
            self._replay(prepared, prepared.sampled)
        request.start_async()
        return Output(request)

    def _replay(self, prepared: Prepared, sampled: Int32) -> None:
        rows = Rows(*(prepared.arrays[at] for at in _OF_ROWS))
        self._replayed = one_by_one(rows, sampled)
        if self._replayed is not None:
            for at, name in zip(_OF_ROWS, Rows.__slots__, strict=True):
                self._request.set_input_tensor(at, _tensor(getattr(self._replayed, name)))

    def _rehearsal(self, bucket: Bucket) -> Prepared:
        if bucket not in self._rehearsals:
            self._rehearsals[bucket] = self.prepare(_one_row(bucket, self._facts))
        return self._rehearsals[bucket]


def _tensor(array: Int32) -> Tensor:
    """Over the array's memory, which may be read-only."""
    return Tensor(array, Shape(array.shape), Type.i32)


def _one_row(bucket: Bucket, facts: RunnerFacts) -> StepInputs:
    """All tokens of a bucket in the block behind the last one, again and again."""
    inputs = padding(bucket, facts)
    tables = np.full((bucket.rows, max(facts.block_table_width, -(-bucket.tokens // BLOCK_SIZE))), facts.num_blocks)
    inputs.q_seq_lens[0] = inputs.valid_length[0] = bucket.tokens
    return StepInputs(
        input_ids=inputs.input_ids,
        positions=inputs.positions,
        slot_mapping=inputs.slot_mapping,
        valid_length=inputs.valid_length,
        q_seq_lens=inputs.q_seq_lens,
        sample_index=inputs.sample_index,
        adapter=inputs.adapter,
        block_tables=tables.astype(np.int32),
    )


def _allocate(port: Any, blocks: int) -> Tensor:
    """A cache of the type and shape that the plugin has chosen; its content is never read before it is written."""
    shape = [port.partial_shape[axis].get_length() for axis in (1, 2, 3)]
    return Tensor(port.element_type, Shape([blocks, *shape]))

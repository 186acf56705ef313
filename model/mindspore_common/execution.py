"""How a network is run: an interface, and static shapes over shared arrays, as on CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mindspore import Tensor
from mindspore.graph.api import _cell_graph_executor

from model.mindspore_common.host_results import HostResults
from model.runner import Best, Float32, Int32, RunnerFacts, StepInputs

Arguments = Sequence[Tensor | None]


def step_tensors(inputs: StepInputs) -> list[Tensor]:
    """All arrays of a step but `adapter`, as our networks take them; the tensors share their memory."""
    arrays = (
        inputs.input_ids,
        inputs.positions,
        inputs.slot_mapping,
        inputs.valid_length,
        inputs.q_seq_lens,
        inputs.sample_index,
        inputs.block_tables,
    )
    return [Tensor.from_numpy(array) for array in arrays]


class Execution(Protocol):
    """Prepares inputs over arrays, and runs the network on them."""

    @property
    def computes_by_itself(self) -> bool:
        """`run` returns before the step is done."""

    @property
    def results(self) -> Results:
        """Brings to the host what is wanted of the logits."""

    def prepare(self, inputs: StepInputs) -> Any: ...

    def run(self, prepared: Any) -> Tensor:
        """Logits ``[S, vocab]``, float32, or this rank's part of them."""


class Results(Protocol):
    """Waits for a step's logits ``[S, vocab]``; see `Runner.fetch` and `Runner.fetch_best`."""

    def fetch(self, output: Tensor, rows: Int32, logits: Float32) -> None: ...

    def fetch_best(self, output: Tensor, best: Best, targets: Int32 | None) -> None: ...


@dataclass(slots=True)
class StaticInputs:
    """Tensors over the arrays of one binding."""

    phase: str  # of the bucket; reusing a phase's name with another shape fails
    arguments: Arguments
    tensors: tuple[Tensor, ...]  # the arguments that are there: what a compiled graph takes


class StaticExecution:
    """CPU: one compiled graph per bucket; the graph reads the caller's memory anew at every call.

    The first run of a bucket calls the network, which compiles it. Later runs call the compiled graph itself:
    the network's ``__call__`` spends 2 ms in Python on checks that cannot come out otherwise (measured with
    four layers; it grows with the number of cells).
    """

    computes_by_itself = False

    def __init__(
        self,
        network: Any,
        facts: RunnerFacts,
        arrange: Callable[[StepInputs], Arguments],
        results: Results | None = None,
    ) -> None:
        """``arrange``: a step's positional arguments of the network, tensors that share the arrays' memory;
        ``results``: where the network's output is not all logits."""
        self.results = results or HostResults(facts.vocab_size)
        self._network, self._arrange = network, arrange
        self._run_graph = _cell_graph_executor._graph_executor
        self._graphs: dict[str, str] = {}  # MindSpore's full name of the graph by phase

    def prepare(self, inputs: StepInputs) -> StaticInputs:
        arguments = self._arrange(inputs)
        tensors = tuple(argument for argument in arguments if argument is not None)
        bucket = inputs.bucket
        return StaticInputs(f"{bucket.tokens}x{bucket.rows}x{bucket.samples}", arguments, tensors)

    def run(self, prepared: StaticInputs) -> Tensor:
        graph = self._graphs.get(prepared.phase)
        if graph is not None:
            return self._run_graph(prepared.tensors, graph)
        self._network.phase = prepared.phase
        output = self._network(*prepared.arguments)
        self._graphs[prepared.phase] = self._network.phase_cache[prepared.phase]
        return output

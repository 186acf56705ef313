"""A step's arguments of mindformers' Llama, and dynamic shapes as on Ascend."""

from __future__ import annotations

from typing import Any

import numpy as np
from mindspore import Tensor
from mindspore import dtype as mstype

from model.mindspore_common.device_results import DeviceResults
from model.runner import RunnerFacts, StepInputs

# positions in LlamaForCausalLM.construct
_INPUT_IDS, _ATTENTION_MASK, _VALID_LENGTH, _BLOCK_TABLES = 0, 4, 7, 10
_SLOT_MAPPING, _Q_SEQ_LENS, _GATHER_INDEX, _SEQ_RANGE = 11, 14, 16, 17
_INPUTS = 19

Arguments = list[Tensor | None]


def arrange_on_cpu(inputs: StepInputs) -> Arguments:
    """Every positional input."""
    arguments = _arguments(inputs)
    # a mask that is there keeps mindformers from gathering one of [T, max_length]
    arguments[_ATTENTION_MASK] = Tensor.from_numpy(np.zeros((1, 1), np.int32))
    return arguments


class DynamicExecution:
    """Ascend: one graph for every shape; a new tensor per step makes the device copy straight from the array.

    Not run on a device so far: it is tested on CPU, with an attention cell for CPU.
    """

    computes_by_itself = True

    def __init__(self, network: Any, facts: RunnerFacts) -> None:
        self.results = DeviceResults(facts)
        self._network = network
        network.set_inputs(*_dynamic_arguments())

    def prepare(self, inputs: StepInputs) -> StepInputs:
        return inputs

    def run(self, prepared: StepInputs) -> Tensor:
        arguments = _arguments(prepared)
        # mindformers takes one past each token that is sampled
        arguments[_GATHER_INDEX] = Tensor.from_numpy(prepared.sample_index + np.int32(1))
        return self._network(*arguments)


def _arguments(inputs: StepInputs) -> Arguments:
    """Every positional input; tensors share the arrays' memory."""
    arguments: Arguments = [None] * _INPUTS
    arguments[_INPUT_IDS] = Tensor.from_numpy(inputs.input_ids.reshape(1, -1))
    arguments[_VALID_LENGTH] = Tensor.from_numpy(inputs.valid_length)
    arguments[_BLOCK_TABLES] = Tensor.from_numpy(inputs.block_tables)
    arguments[_SLOT_MAPPING] = Tensor.from_numpy(inputs.slot_mapping)
    arguments[_Q_SEQ_LENS] = Tensor.from_numpy(inputs.q_seq_lens)
    arguments[_GATHER_INDEX] = Tensor.from_numpy(inputs.sample_index)
    arguments[_SEQ_RANGE] = Tensor.from_numpy(inputs.positions)
    return arguments


def _dynamic_arguments() -> Arguments:
    arguments: Arguments = [None] * _INPUTS
    for index in (_VALID_LENGTH, _SLOT_MAPPING, _Q_SEQ_LENS, _GATHER_INDEX, _SEQ_RANGE):
        arguments[index] = Tensor(shape=[None], dtype=mstype.int32)
    arguments[_INPUT_IDS] = Tensor(shape=[1, None], dtype=mstype.int32)
    arguments[_BLOCK_TABLES] = Tensor(shape=[None, None], dtype=mstype.int32)
    return arguments

"""The columns of slots: what the code names and what the layouts have are the same."""

from __future__ import annotations

import dataclasses
from typing import get_type_hints

import numpy as np
import pytest

import ipc
from pipeline.wire import step

SHAPES = step.Shapes(token_budget=8, max_rows=4, block_table_width=2, vocab_size=16)
COLUMNS = {
    step.step_layout: step.StepColumns,
    step.logits_layout: step.LogitsColumns,
    step.tokens_layout: step.TokensColumns,
    step.results_layout: step.ResultsColumns,
}


@pytest.mark.parametrize("layout", COLUMNS, ids=lambda layout: layout.__name__)
def test_every_column_has_its_name_and_type(layout):
    kinds = {step.Int32: np.int32, step.Int64: np.int64, step.Float32: np.float32, step.Float64: np.float64}
    kinds[step.UInt64] = np.uint64
    named = {name: np.dtype(kinds[kind]) for name, kind in get_type_hints(COLUMNS[layout]).items()}
    assert named == {field.name: np.dtype(field.dtype) for field in layout(SHAPES).fields}


def test_words_of_header_and_stamps_have_room():
    assert max(step.Head) < step.HEADER_WORDS
    assert sorted(step.Stamp) == list(range(step.STAMP_WORDS))


def test_a_slot_of_other_shapes_is_refused():
    other = step.Shapes(token_budget=64, max_rows=4, block_table_width=2, vocab_size=16)
    with (
        ipc.SlotRing.create("steps", slots=2, layout=step.step_layout(SHAPES)) as ring,
        ring.producer() as producer,
        pytest.raises(ValueError, match="bytes, the slots of 'steps'"),
    ):
        step.step_layout(other).resident_views(producer)


@pytest.mark.parametrize("layout", COLUMNS, ids=lambda layout: layout.__name__)
def test_every_slot_begins_with_the_head(layout):
    first = layout(SHAPES).fields[0]
    assert (first.name, first.shape) == ("head", (step.HEADER_WORDS,))


@pytest.mark.parametrize("layout", COLUMNS, ids=lambda layout: layout.__name__)
def test_other_capacities_are_another_layout(layout):
    assert layout(dataclasses.replace(SHAPES, max_rows=5, samples=5)).hash != layout(SHAPES).hash

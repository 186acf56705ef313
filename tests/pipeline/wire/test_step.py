"""Layouts of the pipeline's slots: what they have in common is alike, and other sizes are other layouts."""

from __future__ import annotations

import dataclasses

import pytest

from pipeline.wire.step import (
    HEADER_WORDS,
    STAMP_WORDS,
    Head,
    Shapes,
    Stamp,
    logits_layout,
    results_layout,
    step_layout,
    tokens_layout,
)

SHAPES = Shapes(token_budget=32, max_rows=4, block_table_width=8, vocab_size=50)
LAYOUTS = (step_layout, logits_layout, tokens_layout, results_layout)


def test_there_is_a_word_for_every_entry():
    assert max(Head) < HEADER_WORDS
    assert max(Stamp) < STAMP_WORDS


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_every_slot_begins_with_the_head_and_names_its_rows(layout):
    first, *others = layout(SHAPES).fields
    assert (first.name, first.shape) == ("head", (HEADER_WORDS,))
    assert ("rows", (SHAPES.max_rows,)) in [(field.name, field.shape) for field in others]


def test_other_capacities_are_other_layouts():
    for layout in LAYOUTS:
        other = layout(dataclasses.replace(SHAPES, max_rows=5))
        assert other.hash != layout(SHAPES).hash

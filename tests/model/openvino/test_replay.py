"""Tokens of an answer that are computed again, after a restart or a preemption. A KV cache in u8 is left out: keys of
a block share their factors, and are rounded anew with every token that joins them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from model.demo import DEMO_DIR
from model.openvino.replay import Rows, one_by_one
from model.openvino.requirements import computes_bfloat16
from tests.model.conftest import needs_openvino
from tests.model.openvino import scenarios

bfloat16 = pytest.mark.skipif(not computes_bfloat16(), reason="the processor has no arithmetic in bfloat16")


def rows_of(*rows):
    """Of context, new tokens, and a block."""
    valid, fresh, blocks = np.array(rows, np.int32).T
    return Rows(valid, fresh.copy(), np.stack([blocks, blocks + 1], 1))


def test_sampled_tokens_become_rows_of_their_own():
    """A decode row, a chunk of a prompt, two of sampled tokens, padding."""
    rows = rows_of((9, 1, 1), (8, 4, 2), (7, 2, 3), (20, 3, 4), (0, 0, 5))
    found = one_by_one(rows, np.array([1, 0, 1, 1, 1], np.int32))
    assert found.q_seq_lens.tolist() == [1, 4, 1, 1, 1, 1, 1, 0]
    assert found.valid_length.tolist() == [9, 8, 6, 7, 18, 19, 20, 0]
    assert found.block_tables[:, 0].tolist() == [1, 2, 3, 3, 4, 4, 4, 5]
    assert {getattr(found, name).dtype for name in Rows.__slots__} == {np.dtype(np.int32)}


def test_most_steps_stay_as_they_are():
    assert one_by_one(rows_of((9, 1, 1), (8, 4, 2), (0, 0, 3)), np.array([1, 0, 0], np.int32)) is None


@needs_openvino
@pytest.mark.parametrize(
    "types",
    [
        {"weight_dtype": "int8"},
        {"weight_dtype": "int8", "kv_dtype": "f16"},
        {"kv_dtype": "f16"},
        pytest.param({"weight_dtype": "bf16"}, marks=bfloat16),
    ],
    ids=lambda types: "-".join(types.values()),
)
def test_it_is_as_it_was_to_the_bit(in_openvino, types):
    entry = max((json.loads(line) for line in (DEMO_DIR / "golden.jsonl").read_text().splitlines()),
                key=lambda it: len(it["answer_ids"]))  # fmt: skip
    prompt = entry["prompt_ids"][:30]
    tokens = (prompt + entry["answer_ids"])[: len(prompt) + 60]
    first, again = in_openvino(scenarios.replayed, DEMO_DIR, tokens, len(prompt), **types)
    np.testing.assert_array_equal(again, first)
    if types == {"weight_dtype": "bf16"}:  # where it is all but certain
        first, again = in_openvino(scenarios.replayed, DEMO_DIR, tokens, len(prompt), told=False, **types)
        assert not np.array_equal(again, first)

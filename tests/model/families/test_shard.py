"""A decoder divided among ranks, in numpy: each rank is a thread, and computes what its part of the weights gives."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from model.checkpoint.weight import random_weights
from model.errors import ConfigurationError
from model.families import canonical_weights, read_spec
from model.families.shard import Shard
from tests.model.families.checkpoints import load
from tests.model.numpy_decoder import NumpyDecoder

CHECKPOINTS = load()
SPECS = {name: read_spec(it.config) for name, it in CHECKPOINTS.items()}


class Meeting:
    """Where the threads' parts are added up."""

    def __init__(self, ranks):
        self.parts, self.barrier = [None] * ranks, threading.Barrier(ranks, timeout=60)

    def sum(self, rank, part):
        self.parts[rank] = part
        self.barrier.wait()
        total = sum(self.parts)
        self.barrier.wait()
        return total


class RankDecoder(NumpyDecoder):
    def __init__(self, shard, weights, meeting):
        super().__init__(shard.spec, weights)
        first, end = shard.vocabulary
        if shard.spec.tied_embeddings:
            self.own_rows = self.weights["embed.weight"][first:end]
        self.rank, self.meeting = shard.rank, meeting

    def _linear(self, x, name):
        product = x @ self.weights[f"{name}.weight"].T
        if name.endswith((".o", ".down")):
            product = self.meeting.sum(self.rank, product)
        return product + self.weights.get(f"{name}.bias", 0.0)

    def _feed_forward(self, layer, x):
        out = super()._feed_forward(layer, x)
        return self.meeting.sum(self.rank, out) if f"{layer}router.weight" in self.weights else out


def divided(spec, weights, tokens, ranks):
    """Logits by all ranks, and the shapes of their weights."""
    meeting = Meeting(ranks)

    def run(rank):
        shard = Shard(spec, rank, ranks)
        parts = shard.weights(weights)
        values = {weight.name: weight.read(np.float32) for weight in parts}
        assert {name: array.shape for name, array in values.items()} == {w.name: w.shape for w in parts}
        logits = RankDecoder(shard, values, meeting).logits(tokens)
        first, end = shard.vocabulary
        return logits[:, first:end] if spec.tied_embeddings else logits

    with ThreadPoolExecutor(ranks) as pool:
        return np.concatenate([*pool.map(run, range(ranks))], axis=1)


def whole(spec, weights, tokens):
    return NumpyDecoder(spec, {weight.name: weight.read(np.float32) for weight in weights}).logits(tokens)


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("name", [name for name, spec in SPECS.items() if spec.qk_norm != "all"])
def test_ranks_together_compute_what_one_does(name, ranks, tmp_path):
    """Every family that can be divided, among more ranks than some have key/value heads."""
    it, spec = CHECKPOINTS[name], SPECS[name]
    weights = canonical_weights(spec, it.save(tmp_path))
    try:
        found = divided(spec, weights, it.tokens[:20], ranks)
    except ConfigurationError:
        assert spec.num_heads % ranks or spec.intermediate_size % ranks
        return
    np.testing.assert_allclose(found, whole(spec, weights, it.tokens[:20]), atol=1e-9)


def test_a_vocabulary_need_not_be_a_multiple(tmp_path):
    spec = replace(SPECS["qwen2"], vocab_size=251)
    weights = random_weights(spec.tensors(), seed=5)
    tokens = np.arange(12)
    assert [Shard(spec, rank, 4).vocabulary for rank in range(4)] == [(0, 63), (63, 126), (126, 189), (189, 251)]
    np.testing.assert_allclose(divided(spec, weights, tokens, 4), whole(spec, weights, tokens), atol=1e-9)


def test_bits_are_cut_as_numbers_are(tmp_path):
    spec, folder = SPECS["llama-tied"], CHECKPOINTS["llama-tied"].save(tmp_path, bfloat16=True)
    for weight in Shard(spec, 1, 2).weights(canonical_weights(spec, folder)):
        if weight.keeps_bfloat16:
            wide = (weight.read_bits().astype(np.uint32) << 16).view(np.float32)
            np.testing.assert_array_equal(wide, weight.read(np.float32))


@pytest.mark.parametrize(
    ("changes", "ranks", "message"),
    [
        ({"num_heads": 6, "num_kv_heads": 3}, 4, r"num_heads 6, .* can't be divided among 4 ranks; use 1, 3 or 6"),
        ({"intermediate_size": 130}, 4, "intermediate_size 130 and num_kv_heads .*; use 1 or 2"),
        (
            {"num_heads": 12, "num_kv_heads": 6},
            4,
            "num_kv_heads 6 can't be divided among 4 ranks; use 1, 2, 3, 6 or 12",
        ),
        ({"qk_norm": "all"}, 2, "normalizes the queries of all heads together"),
    ],
)
def test_what_cannot_be_divided_is_refused_with_what_would_work(changes, ranks, message):
    spec = replace(SPECS["qwen2"], intermediate_size=144)
    with pytest.raises(ConfigurationError, match=message):
        Shard(replace(spec, **changes), 0, ranks)


def test_there_is_no_rank_beyond_the_last():
    with pytest.raises(ConfigurationError, match="rank 2 of 2"):
        Shard(SPECS["qwen2"], 2, 2)

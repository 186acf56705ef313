"""From stored tensors to canonical weights: what does not fit, other spellings, and how much memory it takes."""

from __future__ import annotations

import math
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from model.checkpoint.files import index_files
from model.checkpoint.weight import size_bytes
from model.errors import CheckpointError
from model.families import canonical, canonical_weights, read_spec
from model.families.canonical import recipes
from tests.model.families.checkpoints import load
from tests.model.numpy_llama import write_safetensors

CHECKPOINTS = load()


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_recipes_make_the_shapes_that_a_decoder_needs(name):
    spec = read_spec(CHECKPOINTS[name].config)
    sizes = {
        key: sum(part.length * math.prod(part.shape[1:]) for part in recipe) for key, recipe in recipes(spec).items()
    }
    assert sizes == {key: math.prod(shape) for key, shape in spec.tensors().items()}


@pytest.mark.parametrize("name", ["qwen2", "phi3", "internlm2", "mixtral", "gemma3"])
def test_what_does_not_fit_is_named_as_in_the_file(name, tmp_path):
    it = CHECKPOINTS[name]
    spec, stored = read_spec(it.config), index_files(it.save(tmp_path))
    missing, wrong = "model.layers.1.input_layernorm.weight", next(key for key in stored if "layers.0" in key)
    missing = missing if missing in stored else "model.layers.1.attention_norm.weight"
    changed = {
        **stored,
        "extra.weight": replace(stored[missing], name="extra.weight"),
        wrong: replace(stored[missing], name=wrong),
    }
    del changed[missing]
    with pytest.raises(CheckpointError) as error:
        canonical(spec, changed, tmp_path)
    message = str(error.value)
    assert f"1 missing: {missing} (64,)" in message
    assert "1 surplus: extra.weight (64,)" in message
    if stored[wrong].shape != (64,):
        assert f"1 wrongly shaped: {wrong} is (64,), expected {stored[wrong].shape}" in message


def test_what_follows_from_the_configuration_may_be_stored(tmp_path):
    it = CHECKPOINTS["llama-tied"]
    spec, tensors = read_spec(it.config), it.tensors()
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(8, np.float32)
    write_safetensors(tmp_path / "model.safetensors", tensors)
    assert [weight.name for weight in canonical_weights(spec, tmp_path)] == list(spec.tensors())


def test_mindformers_names(tmp_path):
    it = CHECKPOINTS["llama-mha"]
    words = {
        "embed_tokens.weight": "tok_embeddings.embedding_weight",
        "model.norm.": "model.norm_out.",
        "self_attn.q_proj": "attention.wq",
        "self_attn.k_proj": "attention.wk",
        "self_attn.v_proj": "attention.wv",
        "self_attn.o_proj": "attention.wo",
        "mlp.gate_proj": "feed_forward.w1",
        "mlp.down_proj": "feed_forward.w2",
        "mlp.up_proj": "feed_forward.w3",
        "post_attention_layernorm": "ffn_norm",
        "input_layernorm": "attention_norm",
    }
    renamed = {}
    for name, array in it.tensors().items():
        theirs = next((word for word in words if word in name), "")
        renamed[name.replace(theirs, words.get(theirs, ""))] = array
    assert not set(renamed) & set(it.shapes) - {"lm_head.weight"}
    (tmp_path / "theirs").mkdir()
    write_safetensors(tmp_path / "theirs" / "model.safetensors", renamed)
    spec = read_spec(it.config)
    ours = canonical_weights(spec, it.save(tmp_path / "ours"))
    for ours_, theirs_ in zip(ours, canonical_weights(spec, tmp_path / "theirs"), strict=True):
        np.testing.assert_array_equal(ours_.read(np.float32), theirs_.read(np.float32))


@pytest.mark.parametrize("name", ["phi3", "internlm2", "qwen3-moe"])
def test_loading_takes_the_memory_of_the_weights_and_of_one_tensor(name, tmp_path):
    it = CHECKPOINTS[name]
    wide = {"intermediate_size": 4096} if name != "qwen3-moe" else {"moe_intermediate_size": 1024}
    spec = read_spec({**it.config, **wide})
    tensors = {part.source: np.zeros(part.shape, np.float32) for recipe in recipes(spec).values() for part in recipe}
    write_safetensors(tmp_path / "model.safetensors", tensors)
    weights = canonical_weights(spec, tmp_path)
    largest = max(array.nbytes for array in tensors.values())
    total = sum(4 * int(np.prod(shape)) for shape in spec.tensors().values())
    tracemalloc.start()
    kept = [weight.read(np.float32) for weight in weights]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(kept) == len(weights)
    assert peak < total + 3 * largest + (1 << 18)  # as bytes, as stored, and converted


def test_rows_of_a_tensor_that_is_stored_in_pieces(tmp_path):
    array = np.arange(24, dtype=np.float32).reshape(6, 4)
    write_safetensors(tmp_path / "model.safetensors", {"x": array})
    tensor = index_files(tmp_path)["x"]
    ((offset, size),) = tensor.pieces
    pieces = replace(tensor, pieces=((offset, 36), (offset + 36, size - 36)))
    for stored in (tensor, pieces):
        rows = stored.take_rows(((0, 1), (2, 5)))
        np.testing.assert_array_equal(rows.read(np.float32), array[[0, 2, 3, 4]])


@pytest.mark.parametrize("name", ["internlm2", "glm4", "granite", "qwen2-moe"])
def test_matrices_of_bfloat16_can_stay_as_they_are_stored(name, tmp_path):
    it = CHECKPOINTS[name]
    spec = read_spec(it.config)
    assert not any(weight.keeps_bfloat16 for weight in canonical_weights(spec, it.save(tmp_path / "float32")))
    weights = canonical_weights(spec, it.save(tmp_path / "bfloat16", bfloat16=True))
    kept = {weight.name: weight for weight in weights if weight.keeps_bfloat16}
    scaled = ("q", "o", "down") if name == "granite" else ()
    assert set(kept) == {
        weight.name for weight in weights if len(weight.shape) > 1 and weight.name.split(".")[-2] not in scaled
    }
    for weight in kept.values():
        bits = weight.read_bits()
        assert (bits.dtype, bits.shape, bits.ctypes.data % 64) == (np.uint16, weight.shape, 0)
        np.testing.assert_array_equal((bits.astype(np.uint32) << 16).view(np.float32), weight.read(np.float32))
    full = sum(4 * math.prod(shape) for shape in spec.tensors().values())
    assert size_bytes(weights) == full - sum(2 * math.prod(weight.shape) for weight in kept.values())

"""Checkpoints of every kind, whole and broken. Nothing here needs MindSpore but the files that it writes."""

import shutil

import numpy as np
import pytest

from model.checkpoint.weight import Weight
from model.errors import CheckpointError
from model.families import Spec, canonical_weights
from model.mindformers_runner import MindFormersRunner, MindFormersSettings
from model.mindformers_runner.configuration import read_model
from model.mindformers_runner.names import network_weights
from tests.model import scenarios
from tests.model.adapters.folders import Lora
from tests.model.conftest import DATA
from tests.model.families.checkpoints import load
from tests.model.numpy_llama import read_safetensors, write_safetensors

GROUPED, _ = read_model(DATA / "grouped")


def open_checkpoint(path, spec: Spec, *, fused: bool = False) -> tuple[Weight, ...]:
    return network_weights(spec, "Llama", canonical_weights(spec, path), fused=fused)


def stored(name: str) -> dict[str, np.ndarray]:
    tensors = {}
    for file in (DATA / name).glob("*.safetensors"):
        tensors |= read_safetensors(file)
    return tensors


@pytest.mark.parametrize("name", ["grouped", "tied", "llama3"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_reads_and_converts(name, dtype):
    """float32, float16 and, in shards, bfloat16."""
    expected = stored(name)
    weights = {weight.name: weight for weight in open_checkpoint(DATA / name, read_model(DATA / name)[0])}
    for ours, theirs in (
        ("model.tok_embeddings.embedding_weight", "model.embed_tokens.weight"),
        ("model.layers.1.attention.wk.weight", "model.layers.1.self_attn.k_proj.weight"),
        ("model.layers.0.feed_forward.w2.weight", "model.layers.0.mlp.down_proj.weight"),
        ("model.layers.1.ffn_norm.weight", "model.layers.1.post_attention_layernorm.weight"),
        ("model.norm_out.weight", "model.norm.weight"),
    ):
        read = weights[ours].read(dtype)
        assert read.dtype == dtype
        np.testing.assert_array_equal(read, expected[theirs].astype(dtype))


@pytest.mark.parametrize("file_format", ["ckpt", "safetensors"])
@pytest.mark.parametrize("fused", [False, True])
def test_files_of_mindspore(in_mindspore, tmp_path, file_format, fused):
    """With mindformers' names, of either form, for the network of either form."""
    file = tmp_path / f"model.{file_format}"
    in_mindspore(scenarios.save_in_mindspore_format, DATA / "grouped", file, file_format, fused=fused)
    for form in (False, True):
        ours, theirs = (open_checkpoint(path, GROUPED, fused=form) for path in (DATA / "grouped", file))
        require_the_same(ours, theirs)


def test_a_merged_adapter_is_in_the_weights(tmp_path):
    """The network's parameters are those of a checkpoint that was changed."""
    it = load()["qwen2"]
    lora, base = Lora(it), it.save(tmp_path / "base")
    changed = tmp_path / "changed.safetensors"
    write_safetensors(changed, lora.merged())
    length = {"config_path": base, "max_length": 64}
    runner = MindFormersRunner(
        MindFormersSettings(**length, checkpoint_path=base, merged_adapter=lora.save(tmp_path / "adapter"))
    )
    expected = MindFormersRunner(MindFormersSettings(**length, checkpoint_path=changed))
    for one, other in zip(runner._weights, expected._weights, strict=True):
        np.testing.assert_allclose(one.read(np.float32), other.read(np.float32), atol=1e-5, err_msg=one.name)


def require_the_same(ours, theirs):
    ours, theirs = ({weight.name: weight.read(np.float32) for weight in weights} for weights in (ours, theirs))
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name])


def test_truncated_mindspore_file(in_mindspore, tmp_path):
    file = tmp_path / "model.ckpt"
    in_mindspore(scenarios.save_in_mindspore_format, DATA / "grouped", file, "ckpt")
    whole = file.read_bytes()
    for length in (len(whole) - 1, len(whole) // 2, 7):
        file.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"model\.ckpt is truncated or not a MindSpore checkpoint"):
            open_checkpoint(file, GROUPED)


def test_all_misfits_are_in_one_error(tmp_path):
    tensors = stored("grouped")
    del tensors["model.layers.0.self_attn.q_proj.weight"], tensors["lm_head.weight"]
    tensors["model.layers.1.mlp.up_proj.weight"] = np.zeros((64, 128))
    tensors["model.layers.2.input_layernorm.weight"] = np.zeros(64)
    write_safetensors(tmp_path / "model.safetensors", tensors)
    with pytest.raises(CheckpointError) as error:
        open_checkpoint(tmp_path, GROUPED)
    message = str(error.value)
    assert "2 missing: model.layers.0.self_attn.q_proj.weight (64, 64), lm_head.weight (256, 64)" in message
    assert "1 surplus: model.layers.2.input_layernorm.weight (64,)" in message
    assert "1 wrongly shaped: model.layers.1.mlp.up_proj.weight is (64, 128), expected (128, 64)" in message


def test_derived_and_doubled_tensors_are_no_surplus(tmp_path):
    tensors = stored("tied")
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.zeros(8)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    write_safetensors(tmp_path / "model.safetensors", tensors)
    names = {weight.name for weight in open_checkpoint(tmp_path, read_model(DATA / "tied")[0])}
    assert "lm_head.weight" not in names


def test_fused_model_from_parts(tmp_path):
    """mindformers' layout: per key/value head its queries, key and value; gate and up rows alternate."""
    opened = open_checkpoint(DATA / "grouped", GROUPED, fused=True)
    weights = {weight.name: weight.read(np.float32) for weight in opened}
    assert {weight.name: weight.shape for weight in opened} == {name: it.shape for name, it in weights.items()}
    tensors = stored("grouped")
    query, key, value = (tensors[f"model.layers.0.self_attn.{kind}_proj.weight"] for kind in "qkv")
    qkv = weights["model.layers.0.attention.w_qkv.weight"]
    np.testing.assert_array_equal(qkv[:32], query[:32].astype(np.float32))  # two query heads of 16
    np.testing.assert_array_equal(qkv[32:48], key[:16].astype(np.float32))
    np.testing.assert_array_equal(qkv[48:64], value[:16].astype(np.float32))
    np.testing.assert_array_equal(qkv[64:96], query[32:].astype(np.float32))
    gate = weights["model.layers.1.feed_forward.w_gate_hidden.weight"]
    np.testing.assert_array_equal(gate[0::2], tensors["model.layers.1.mlp.gate_proj.weight"].astype(np.float32))
    np.testing.assert_array_equal(gate[1::2], tensors["model.layers.1.mlp.up_proj.weight"].astype(np.float32))


def test_fused_model_computes_the_same(in_mindspore, tmp_path):
    document = """
model:
  arch: {type: LlamaForCausalLM}
  model_config:
    {type: LlamaConfig, hidden_size: 64, num_layers: 2, num_heads: 4, n_kv_heads: 2, intermediate_size: 128,
     vocab_size: 256, seq_length: 256, rms_norm_eps: 1.0e-5, qkv_concat: %s}
"""
    logits = []
    for fused in (True, False):
        config = tmp_path / f"{fused}.yaml"
        config.write_text(document % fused)
        logits.append(in_mindspore(scenarios.logits_of_one_token, DATA / "grouped", config_path=config))
    np.testing.assert_allclose(*logits, atol=1e-5)


def test_a_missing_tensor_is_spelled_as_the_file_spells_its_others(in_mindspore, tmp_path):
    file = tmp_path / "model.safetensors"
    in_mindspore(scenarios.save_in_mindspore_format, DATA / "grouped", file, "safetensors")
    tensors = read_safetensors(file)
    del tensors["model.layers.1.ffn_norm.weight"]
    write_safetensors(file, tensors)
    with pytest.raises(CheckpointError, match=r"1 missing: model\.layers\.1\.ffn_norm\.weight \(64,\)"):
        open_checkpoint(file, GROUPED)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-1], "is truncated: its header describes"),
        (lambda data: data[:100], "is truncated or not a safetensors file"),
        (lambda data: b"", "is truncated or not a safetensors file"),
        (lambda data: data[:8] + b"x" + data[9:], "its header is not JSON"),
        (lambda data: b"\xff" * 8 + data[8:], "is truncated or not a safetensors file"),
        (
            lambda data: data.replace(b'"F32"', b'"I32"'),
            "has dtype I32; supported are float32, float16, bfloat16",
        ),
        (lambda data: data.replace(b'"shape"', b'"shapE"'), "the header's entry for .* is malformed"),
    ],
)
def test_damaged_safetensors(tmp_path, damage, message):
    data = (DATA / "grouped" / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(damage(data))
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(tmp_path / "model.safetensors", GROUPED)


def test_missing_shard_and_missing_files(tmp_path):
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        open_checkpoint(tmp_path, GROUPED)
    with pytest.raises(CheckpointError, match="does not exist"):
        open_checkpoint(tmp_path / "no.ckpt", GROUPED)
    (tmp_path / "model.bin").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"expected a \.safetensors or \.ckpt file"):
        open_checkpoint(tmp_path / "model.bin", GROUPED)
    shards = tmp_path / "shards"
    shutil.copytree(DATA / "llama3", shards)
    (shards / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"missing beside it: model-00002-of-00003\.safetensors"):
        open_checkpoint(shards, read_model(shards)[0])
    (shards / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(CheckpointError, match="is not a safetensors index"):
        open_checkpoint(shards, read_model(shards)[0])


def test_tensor_in_two_files(tmp_path):
    for name in ("a", "b"):
        shutil.copy(DATA / "grouped" / "model.safetensors", tmp_path / f"{name}.safetensors")
    with pytest.raises(CheckpointError, match=r"is in .*a\.safetensors and again in .*b\.safetensors"):
        open_checkpoint(tmp_path, GROUPED)


def test_file_that_shrinks_after_it_was_opened(tmp_path):
    file = tmp_path / "model.safetensors"
    shutil.copy(DATA / "grouped" / "model.safetensors", file)
    weights = open_checkpoint(file, GROUPED)
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="cannot read tensor"):
        [weight.read(np.float32) for weight in weights]

"""The random checkpoint as GGUF, for llama.cpp. Runs in its environment:

python -m scripts.bench.peers.to_gguf CHECKPOINT_FOLDER f32|bf16|q8_0 FILE.gguf

As llama.cpp's own tools do it, all matrices get the type, the embedding among them, and norms stay float32.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType, TokenType, quants
from numpy.typing import NDArray

from scripts.bench.peers.safetensors_file import read_tensors, widened

_FILE_TYPES = {"f32": "ALL_F32", "bf16": "MOSTLY_BF16", "q8_0": "MOSTLY_Q8_0"}
_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
_TOP = {"model.embed_tokens": "token_embd", "lm_head": "output", "model.norm": "output_norm"}


def convert(folder: Path, dtype: str, file: Path) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    writer = GGUFWriter(file, "llama")
    _add_settings(writer, config)
    writer.add_file_type(LlamaFileType[_FILE_TYPES[dtype]])
    _add_tokenizer(writer, json.loads((folder / "tokenizer.json").read_text(encoding="utf-8")), config)
    for name, array in read_tensors(folder / "model.safetensors").items():
        renamed, values = _renamed(name, array, config)
        kind = GGMLQuantizationType[dtype.upper() if values.ndim > 1 else "F32"]
        writer.add_tensor(renamed, quants.quantize(widened(values), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_settings(writer: GGUFWriter, config: dict[str, Any]) -> None:
    writer.add_name("random")
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])


def _add_tokenizer(writer: GGUFWriter, tokenizer: dict[str, Any], config: dict[str, Any]) -> None:
    """Byte-level BPE, which GGUF knows as "gpt2"."""
    by_id = sorted(tokenizer["model"]["vocab"].items(), key=lambda item: item[1])
    special = {added["content"] for added in tokenizer["added_tokens"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([token for token, _ in by_id])
    writer.add_token_types([TokenType.CONTROL if token in special else TokenType.NORMAL for token, _ in by_id])
    merges = tokenizer["model"]["merges"]
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_pad_token_id(config["pad_token_id"])
    writer.add_add_bos_token(True)


def _renamed(name: str, array: NDArray[Any], config: dict[str, Any]) -> tuple[str, NDArray[Any]]:
    stem = name.removesuffix(".weight")
    if stem in _TOP:
        return f"{_TOP[stem]}.weight", array
    _, _, layer, part = stem.split(".", 3)
    heads = {"self_attn.q_proj": "num_attention_heads", "self_attn.k_proj": "num_key_value_heads"}.get(part)
    return f"blk.{layer}.{_NAMES[part]}.weight", interleaved(array, config[heads]) if heads else array


def interleaved(array: NDArray[Any], heads: int) -> NDArray[Any]:
    """Rotary pairs stand beside each other in GGUF, half a head apart in Hugging Face's form."""
    rows, columns = array.shape
    halves = array.reshape(heads, 2, rows // heads // 2, columns)
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows, columns))


if __name__ == "__main__":
    convert(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))

"""Makes tests/model/data: small random Llamas, and the logits that Hugging Face transformers computes.

`make fixtures` installs torch and runs this; the result is kept in the repository.
"""

from __future__ import annotations

import argparse
import shutil
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from scripts.lab.paths import ROOT

DATA = ROOT / "tests" / "model" / "data"

COMMON: dict[str, Any] = {
    "vocab_size": 256,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "initializer_range": 0.15,  # large enough for logits of a few units, so that errors show
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LINEAR = {"rope_type": "linear", "factor": 2.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}

MODELS: dict[str, tuple[dict[str, Any], torch.dtype, str]] = {
    # name: (configuration, stored as, largest shard)
    "grouped": ({"num_key_value_heads": 2}, torch.float32, "1GB"),
    "tied": (
        {"num_key_value_heads": 4, "tie_word_embeddings": True, "rope_scaling": LINEAR},
        torch.float16,
        "1GB",
    ),
    "llama3": (
        {"num_key_value_heads": 1, "rope_theta": 500000.0, "rope_scaling": LLAMA3, "attention_bias": True},
        torch.bfloat16,
        "100KB",
    ),
    "yarn": (
        {"num_key_value_heads": 2, "rope_scaling": YARN, "num_attention_heads": 2, "num_hidden_layers": 1},
        torch.bfloat16,
        "1GB",
    ),
}
LENGTHS = (150, 9, 64, 33, 1, 97)


def make_model(name: str) -> LlamaForCausalLM:
    """A random model, stored, and read again in float32 (its rotary tables must not pass through float16)."""
    settings, dtype, shard = MODELS[name]
    torch.manual_seed(len(name))
    model = LlamaForCausalLM(LlamaConfig(**{**COMMON, **settings}))
    for parameter in model.parameters():
        if parameter.ndim == 1:  # norms and biases start as constants, which would hide a mix-up
            parameter.data += 0.1 * torch.randn_like(parameter)
    shutil.rmtree(DATA / name, ignore_errors=True)
    model.to(dtype).save_pretrained(DATA / name, max_shard_size=shard)
    (DATA / name / "generation_config.json").unlink(missing_ok=True)
    return LlamaForCausalLM.from_pretrained(DATA / name, dtype=torch.float32).eval()


def make_reference(name: str) -> None:
    model = make_model(name)
    generator = np.random.default_rng(len(name))
    arrays = {}
    for number, length in enumerate(LENGTHS):
        tokens = generator.integers(0, COMMON["vocab_size"], length)
        with torch.no_grad():
            logits = model(torch.from_numpy(tokens)[None]).logits[0]
        arrays[f"tokens_{number}"] = tokens.astype(np.int32)
        arrays[f"logits_{number}"] = logits.numpy().astype(np.float32)[:: stride(length)]
    np.savez_compressed(DATA / name / "reference.npz", **arrays)


def stride(length: int) -> int:
    """Of a long sequence every third position is kept, to keep the repository small."""
    return 3 if length > 64 else 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(MODELS), help="which models (default: all)")
    for name in parser.parse_args().names:
        make_reference(name)
        size = sum(file.stat().st_size for file in (DATA / name).iterdir())
        print(f"{DATA / name}: {size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()

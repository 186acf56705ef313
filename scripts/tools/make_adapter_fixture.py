"""Writes tests/model/adapters/peft/: adapters as PEFT saves them, and the logits of PEFT on transformers with them.

`make fixtures-adapters` installs torch, transformers and peft in an environment of their own. Base models are the
families' checkpoints (make_family_fixture.py): only adapters and answers are stored.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model

from scripts.lab.paths import ROOT
from scripts.tools.family_weights import make_tensor
from scripts.tools.make_family_fixture import random_model

FOLDER = ROOT / "tests" / "model" / "adapters" / "peft"
TOKENS = np.random.default_rng(7).integers(3, 256, 24)

ADAPTERS: dict[str, dict[str, Any]] = {
    "qwen2": {
        "r": 4,
        "lora_alpha": 6,
        "use_rslora": True,
        "target_modules": "all-linear",
        "rank_pattern": {"down_proj": 6, r"layers\.1\.self_attn\.q_proj": 2},
        "alpha_pattern": {"^model.layers.0.self_attn.v_proj": 3, "up_proj": 9},
    },
    "phi3": {"r": 3, "lora_alpha": 5, "target_modules": ["qkv_proj", "gate_up_proj"], "layers_to_transform": [1]},
}
"""By the checkpoint's name."""


def save(name: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        model = get_peft_model(
            random_model(name, Path(directory))[0], LoraConfig(task_type="CAUSAL_LM", **ADAPTERS[name])
        )
    with torch.no_grad():
        for key, tensor in model.named_parameters():
            if "lora_" in key:
                tensor.copy_(torch.from_numpy(make_tensor(name, key, tuple(tensor.shape))))
        logits = model.eval()(torch.from_numpy(TOKENS[None]), use_cache=False).logits[0]
        with model.disable_adapter():
            plain = model(torch.from_numpy(TOKENS[None]), use_cache=False).logits[0]
    folder = FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    (folder / "README.md").unlink()
    (folder / "adapter_config.json").write_text(
        json.dumps({**json.loads((folder / "adapter_config.json").read_text()), "base_model_name_or_path": name})
    )
    np.savez_compressed(folder / "reference.npz", tokens=TOKENS.astype(np.int32), logits=logits.float().numpy())
    print(f"{name}: standard deviation {logits.std():.2f}, of what the adapter changes {(logits - plain).std():.2f}")


def main() -> None:
    torch.set_num_threads(1)
    for name in ADAPTERS:
        save(name)


if __name__ == "__main__":
    main()

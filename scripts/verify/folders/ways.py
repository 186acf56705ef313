"""The ways in which one checkpoint may lie in a folder."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scripts.tools.family_checkpoints import Checkpoint, older, write_safetensors
from scripts.verify.folders.alphabets import Alphabet, ranks, sentence_piece, signs, vocabulary

Change = Callable[[Path, Checkpoint], Path | None]
"""What is done to a folder that is complete; where it lies then, if elsewhere."""
_WHOLE = "model.safetensors"


@dataclass(frozen=True, slots=True)
class Way:
    """``family``: name of the checkpoint."""

    name: str
    family: str
    change: Change = lambda _folder, _checkpoint: None
    alphabet: Callable[[], Alphabet] = signs

    @property
    def settings(self) -> tuple[str, ...]:
        """LongRoPE has other factors for short contexts than for long ones; those of the longest that is served are
        taken."""
        return ("model_config.max_generate_length=64",) if self.family == "phi4-mini" else ()

    def write(self, checkpoint: Checkpoint, place: Path) -> Path:
        """The folder to be served."""
        folder = checkpoint.save(place / "model")
        self.alphabet().write(folder)
        return self.change(folder, checkpoint) or folder


def _write(file: Path, content: Mapping[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content), encoding="utf-8")


def _older(folder: Path, checkpoint: Checkpoint) -> None:
    _write(folder / "config.json", older(checkpoint.config))


def _without_dtype(folder: Path, checkpoint: Checkpoint) -> None:
    """As people who train write it; and nothing of what transformers takes by default."""
    keys = ("dtype", "use_cache", "pretraining_tp", "initializer_range", "attention_dropout", "architectures")
    _write(folder / "config.json", {key: it for key, it in checkpoint.config.items() if key not in keys})


def _stored(dtype: str) -> Change:
    return lambda folder, checkpoint: write_safetensors(folder / _WHOLE, checkpoint.tensors(), dtype)


def _sharded(index: bool) -> Change:
    """In three files; their names or an index say so."""

    def change(folder: Path, checkpoint: Checkpoint) -> None:
        (folder / _WHOLE).unlink()
        tensors = checkpoint.tensors()
        places: dict[str, str] = {}
        for number, names in enumerate(np.array_split(np.array(list(tensors)), 3), 1):
            file = f"model-{number:05}-of-00003.safetensors"
            write_safetensors(folder / file, {str(name): tensors[str(name)] for name in names})
            places |= {str(name): file for name in names}
        if index:
            _write(folder / "model.safetensors.index.json", {"metadata": {"total_size": 0}, "weight_map": places})

    return change


def _stray(folder: Path, checkpoint: Checkpoint) -> None:
    """What else lies in folders of the Hub, and is not the model."""
    tensor = {"layers.0.attention.wq.weight": np.zeros((2, 2), np.float32)}
    for name in ("consolidated.safetensors", "adapter_model.safetensors", "optimizer.safetensors"):
        write_safetensors(folder / name, tensor)
    for name in ("pytorch_model.bin", "model.gguf", "consolidated.00.pth", "flax_model.msgpack", "tf_model.h5"):
        (folder / name).write_bytes(b"\x80\x02not to be opened")
    for name in ("README.md", ".gitattributes", "LICENSE", "USE_POLICY.md", "tekken.json", "trainer_state.json"):
        (folder / name).write_text("not to be read")
    _write(folder / "original/params.json", {"dim": 64})
    (folder / "original/consolidated.00.pth").write_bytes(b"\x80\x02")
    (folder / ".git").mkdir()


def _computed_too(folder: Path, checkpoint: Checkpoint) -> None:
    """Older checkpoints have what follows from the configuration, and a head that is the embedding."""
    tensors = checkpoint.tensors()
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    for layer in range(checkpoint.config["num_hidden_layers"]):
        tensors[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = np.ones(8, np.float32)
    write_safetensors(folder / _WHOLE, tensors)


def _generation(folder: Path, checkpoint: Checkpoint) -> None:
    content = {"_from_model_config": True, "eos_token_id": [2, 7, 9], "max_length": 4096, "transformers_version": "4"}
    _write(folder / "generation_config.json", {**content, "do_sample": True, "temperature": 0.6, "top_p": 0.95})
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")


def _another_name(folder: Path, checkpoint: Checkpoint) -> None:
    (folder / _WHOLE).rename(folder / "my-merge.safetensors")


def _moved(name: str) -> Change:
    return lambda folder, checkpoint: folder.rename(folder.with_name(name))


def _read_only(folder: Path, checkpoint: Checkpoint) -> None:
    for file in folder.iterdir():
        file.chmod(0o444)
    folder.chmod(0o555)


def _cached(repository: bool) -> Change:
    """In the Hub's cache: names are links to blobs."""

    def change(folder: Path, checkpoint: Checkpoint) -> Path:
        place = folder.with_name("models--some-org--some-model")
        blobs, snapshot = place / "blobs", place / "snapshots" / "0123abc"
        blobs.mkdir(parents=True)
        snapshot.mkdir(parents=True)
        for file in list(folder.iterdir()):
            blob = hashlib.sha256(file.read_bytes()).hexdigest()
            shutil.move(file, blobs / blob)
            (snapshot / file.name).symlink_to(Path("../../blobs", blob))
        folder.rmdir()
        (place / "refs").mkdir()
        (place / "refs" / "main").write_text("0123abc")
        return place if repository else snapshot

    return change


WAYS = (
    Way("stored as bfloat16", "llama-bfloat16", _stored("BF16")),
    Way("stored as float16", "llama-float16", _stored("F16")),
    Way("sharded, with an index", "qwen2", _sharded(index=True)),
    Way("sharded, without an index", "mistral-window", _sharded(index=False)),
    Way("stray files of other formats", "llama-mha", _stray),
    Way("inv_freq and a tied head stored, too", "llama-tied", _computed_too),
    Way("transformers 4: rope_scaling", "llama-llama3", _older),
    Way("transformers 4: windows, partial rope", "phi4-mini", _older),
    Way("config.json without a dtype", "llama-theta", _without_dtype),
    Way("generation_config.json, chat_template.jinja", "llama-mqa", _generation),
    Way("weights of another name", "qwen3", _another_name),
    Way("tokenizer.model of SentencePiece alone", "llama-yarn", alphabet=sentence_piece),
    Way("tokenizer.model of ranks (tiktoken)", "llama-bytes", alphabet=ranks),
    Way("original/tokenizer.model of ranks", "llama-bytes", alphabet=lambda: ranks("original/tokenizer.model")),
    Way("vocab.json and merges.txt", "llama-bytes", alphabet=vocabulary),
    Way("the Hub's cache", "smollm3", _cached(repository=True)),
    Way("a snapshot of the Hub's cache", "gemma", _cached(repository=False)),
    Way("a name with blanks and Unicode", "olmo2", _moved("my modèle 模型")),
    Way("a folder that is read-only", "granite", _read_only),
)
"""Beside each family's checkpoint as transformers stores it."""

"""Why a folder holds no weights that can be read, and what to do. Pickles are never opened: that would run code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from model.folder.location import download_command, unfinished_downloads

_LISTED = 4  # folders that may be meant
_PICKLE = "is a pickle, and reading one can run any code; convert it once, where torch and transformers are installed"
_LOAD = "from transformers import AutoModelForCausalLM as M, AutoTokenizer as T"


def explain_missing(folder: Path) -> str:
    """For a folder without a single file of weights that counts."""
    for pattern, explain in _FORMATS:
        files = sorted(folder.glob(pattern))
        if files:
            return f"{folder} holds no weights that can be read: {explain(folder, files[0])}"
    if begun := unfinished_downloads(folder):
        return f"{folder} holds no weights: a download is unfinished ({begun[0]}); run it again"
    if (folder / "model_index.json").exists():
        return f"{folder} is a pipeline that makes images (model_index.json); only models of text are served"
    inner = sorted({*(place.parent for place in folder.glob("*/config.json")), *folder.glob("models--*")})
    if inner:
        more = f" ({len(inner) - _LISTED} more)" if len(inner) > _LISTED else ""
        return f"{folder} holds no checkpoint; did you mean {' or '.join(map(str, inner[:_LISTED]))}{more}?"
    complete = download_command(folder)
    return f"{folder} holds no checkpoint: expected *.safetensors or *.ckpt files; complete it: {complete}"


def explain_file(file: Path) -> str:
    """Of a checkpoint that was named and is neither a .safetensors nor a .ckpt file."""
    text = f"checkpoint {file}: expected a .safetensors or .ckpt file"
    found = next((explain for pattern, explain in _FORMATS if file.match(pattern)), None)
    return text if found is None else f"{text}; {found(file.parent, file)}"


def _converted(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}-safetensors")


def _python(folder: Path, source: str) -> str:
    target = str(_converted(folder))
    save = f"M.from_pretrained({source}).save_pretrained({target!r}); T.from_pretrained({source})"
    return f'python -c "{_LOAD}; {save}.save_pretrained({target!r})"'


def _bin(folder: Path, file: Path) -> str:
    return f"{file.name} {_PICKLE}: {_python(folder, repr(str(folder)))}"


def _pth(folder: Path, file: Path) -> str:
    """Meta's releases have params.json beside them."""
    if (folder / "params.json").exists():
        parent = folder.parent
        if folder.name == "original" and any(parent.glob("model*.safetensors")):
            return (
                f"{file.name} is Meta's own format; the folder above has the weights as safetensors: serve {parent}"
            )
        command = (
            f"python -m transformers.models.llama.convert_llama_weights_to_hf --input_dir {folder} "
            f"--output_dir {_converted(folder)} --llama_version 3 --num_shards {len(list(folder.glob('*.pth')))}"
        )
        return f"{file.name} (Meta's own format) {_PICKLE}: {command}"
    save = f"safetensors.torch.save_file(torch.load({str(file)!r}, weights_only=True), 'model.safetensors')"
    return f'{file.name} {_PICKLE}: python -c "import torch, safetensors.torch; {save}"'


def _gguf(folder: Path, file: Path) -> str:
    source = f"{str(folder)!r}, gguf_file={file.name!r}"
    return (
        f"{file.name} is GGUF, llama.cpp's format; take the repository that it was made from, or convert it once, "
        f"where torch, gguf and transformers are installed: {_python(folder, source)}"
    )


def _adapter(folder: Path, file: Path) -> str:
    base = _json(folder / "adapter_config.json").get("base_model_name_or_path")
    of = f" of {base}" if isinstance(base, str) else ""
    return (
        f"{file.name} is an adapter (LoRA){of}, not a model; serve it with that model: ringserve serve MODEL "
        f"--lora {folder}, or --lora NAME={folder} to have both; or merge the two once, where torch, transformers "
        f'and peft are installed: python -c "from peft import AutoPeftModelForCausalLM as M; '
        f'M.from_pretrained({str(folder)!r}).merge_and_unload().save_pretrained({str(_converted(folder))!r})"'
    )


def _consolidated(folder: Path, file: Path) -> str:
    return (
        f"{file.name} is in Mistral's own format; the repository has the same weights as model*.safetensors, with a "
        f"config.json: {download_command(folder)} --include 'model*' '*.json' 'tokenizer*'"
    )


def _elsewhere(folder: Path, file: Path) -> str:
    return f"{file.name} is of another framework; take the repository's *.safetensors: {download_command(folder)}"


def _sharded_states(folder: Path, file: Path) -> str:
    return (
        f"{file.relative_to(folder)} is a state of DeepSpeed's training; gather the weights once, where it is "
        f"installed: python {folder}/zero_to_fp32.py --safe_serialization {folder} {folder}"
    )


def _json(path: Path) -> dict[str, object]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


_FORMATS: tuple[tuple[str, Callable[[Path, Path], str]], ...] = (
    ("consolidated*.safetensors", _consolidated),
    ("adapter*.safetensors", _adapter),
    ("adapter*.bin", _adapter),
    ("*.gguf", _gguf),
    ("*.pth", _pth),
    ("*.pt", _pth),
    ("*.bin", _bin),
    ("tf_model*.h5", _elsewhere),
    ("flax_model*.msgpack", _elsewhere),
    ("*.onnx", _elsewhere),
    ("onnx/*.onnx", _elsewhere),
    ("global_step*/*.pt", _sharded_states),
)
"""The first that a folder has is the reason."""

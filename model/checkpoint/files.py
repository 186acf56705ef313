"""The files of a checkpoint, and whether what they hold is what a model needs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from model.checkpoint.mindspore_file import index_mindspore
from model.checkpoint.safetensors_file import index_safetensors
from model.checkpoint.stored_tensor import StoredTensor
from model.errors import CheckpointError

Shape = tuple[int, ...]

_LISTED = 20  # problems of one kind that an error spells out


def checkpoint_files(path: Path) -> tuple[Path, ...]:
    """The files that make up a checkpoint."""
    if path.is_dir():
        return _files_of_directory(path)
    if not path.exists():
        raise CheckpointError(f"checkpoint {path} does not exist")
    return _files_of_index(path) if path.name.endswith(".index.json") else (path,)


def _files_of_directory(directory: Path) -> tuple[Path, ...]:
    indices = sorted(directory.glob("*.safetensors.index.json"))
    if indices:
        return _files_of_index(indices[0])
    for pattern in ("*.safetensors", "*.ckpt"):
        files = tuple(sorted(directory.glob(pattern)))
        if files:
            return files
    raise CheckpointError(f"{directory} holds no checkpoint: expected *.safetensors or *.ckpt files")


def _files_of_index(index: Path) -> tuple[Path, ...]:
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} is not a safetensors index: {error!r}") from error
    files = tuple(index.parent / Path(name).name for name in sorted(names))
    missing = [file.name for file in files if not file.exists()]
    if missing:
        raise CheckpointError(f"{index} names files that are missing beside it: {', '.join(missing)}")
    return files


def index_files(path: Path) -> dict[str, StoredTensor]:
    """Every tensor of a checkpoint, by name. Raises CheckpointError."""
    tensors: dict[str, StoredTensor] = {}
    for file in checkpoint_files(path):
        for name, tensor in _index_file(file).items():
            if name in tensors:
                raise CheckpointError(f"tensor {name} is in {tensors[name].file} and again in {file}")
            tensors[name] = tensor
    return tensors


def _index_file(file: Path) -> dict[str, StoredTensor]:
    try:
        if file.suffix == ".safetensors":
            return index_safetensors(file)
        if file.suffix == ".ckpt":
            return index_mindspore(file)
    except OSError as error:
        raise CheckpointError(f"cannot read checkpoint {file}: {error}") from error
    raise CheckpointError(f"checkpoint {file}: expected a .safetensors or .ckpt file")


def require_fit(path: Path, expected: Mapping[str, Shape], stored: Mapping[str, StoredTensor]) -> None:
    """Raises CheckpointError that names, in one message, all missing, surplus and wrongly shaped tensors."""
    missing = [f"{name} {shape}" for name, shape in expected.items() if name not in stored]
    surplus = [f"{name} {tensor.shape}" for name, tensor in stored.items() if name not in expected]
    wrong = [
        f"{name} is {stored[name].shape}, expected {shape}"
        for name, shape in expected.items()
        if name in stored and stored[name].shape != shape
    ]
    problems = list(_problems(missing=missing, surplus=surplus, **{"wrongly shaped": wrong}))
    if problems:
        raise CheckpointError(f"checkpoint {path} does not fit the model configuration: {'; '.join(problems)}")


def is_derived(name: str) -> bool:
    """Older Hugging Face checkpoints store the rotary frequencies, which follow from the configuration."""
    return name.endswith("rotary_emb.inv_freq")


def _problems(**kinds: list[str]) -> Iterator[str]:
    for kind, items in kinds.items():
        if items:
            rest = f" and {len(items) - _LISTED} more" if len(items) > _LISTED else ""
            yield f"{len(items)} {kind}: {', '.join(items[:_LISTED])}{rest}"

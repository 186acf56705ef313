"""Which files of a folder are the model's weights.

A folder of the Hub may hold the same weights several times, and others beside them. What counts is what the index
names, or ``model*.safetensors`` where there is no index.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

from model.errors import CheckpointError
from model.folder.location import download_command, unfinished_downloads
from model.folder.other_formats import explain_missing
from model.folder.pointers import require_content

_WHOLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_SHARD = re.compile(r"model-(\d+)-of-(\d+)\.safetensors\Z")
STRAY = re.compile(r"(consolidated|adapter|optimizer|training_args)", re.IGNORECASE)
"""How names of files begin that lie beside a model and are not its weights."""


def weight_files(path: Path) -> tuple[Path, ...]:
    """The files that make up a checkpoint: of a folder, of an index, or the file itself.

    Raises CheckpointError, which says what to do, for files that are missing, Git LFS pointers, and formats that are
    not read.
    """
    if path.is_dir():
        return _of_folder(path)
    if not path.exists():
        raise CheckpointError(f"checkpoint {path} does not exist")
    return _of_index(path) if path.name.endswith(".index.json") else (path,)


def _of_folder(folder: Path) -> tuple[Path, ...]:
    index = _first(folder, _INDEX, "*.safetensors.index.json")
    if index is not None:
        return _of_index(index)
    if _lies_in(folder, _WHOLE):
        return _complete([folder / _WHOLE])
    shards = {match[0]: match for file in folder.iterdir() if (match := _SHARD.match(file.name))}
    if shards:
        return _complete(folder / name for name in _all_shards(folder, shards))
    for pattern in ("*.safetensors", "*.ckpt"):
        if files := [file for file in sorted(folder.glob(pattern)) if not STRAY.match(file.name)]:
            return _complete(files)
    raise CheckpointError(explain_missing(folder))


def _first(folder: Path, name: str, pattern: str) -> Path | None:
    if (folder / name).exists():
        return folder / name
    return next((file for file in sorted(folder.glob(pattern)) if not STRAY.match(file.name)), None)


def _all_shards(folder: Path, found: dict[str, re.Match[str]]) -> list[str]:
    """Without an index, their names say how many there are."""
    counts = {match[2] for match in found.values()}
    if len(counts) > 1:
        raise CheckpointError(
            f"{folder} holds shards of {' and of '.join(sorted(counts))}, and no {_INDEX} that says which count; "
            "remove those of the other checkpoint"
        )
    width, count = len(next(iter(found.values()))[1]), counts.pop()
    names = [f"model-{number:0{width}}-of-{count}.safetensors" for number in range(1, int(count) + 1)]
    _require_all(folder, [name for name in names if name not in found], f"{folder} lacks shards")
    return names


def _of_index(index: Path) -> tuple[Path, ...]:
    require_content(index)
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        files = [index.parent / Path(name).name for name in sorted(names)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} is not a safetensors index: {error!r}") from error
    missing = [file.name for file in files if not _lies_in(file.parent, file.name)]
    _require_all(index.parent, missing, f"{index} names files that are missing beside it")
    return _complete(files)


def _require_all(folder: Path, missing: list[str], what: str) -> None:
    if not missing:
        return
    begun = unfinished_downloads(folder)
    reason = f"; a download is unfinished ({begun[0]})" if begun else ""
    raise CheckpointError(f"{what}: {', '.join(missing)}{reason}; complete the folder: {download_command(folder)}")


def _lies_in(folder: Path, name: str) -> bool:
    """Also a link to a file that is missing, of which more is said."""
    return (folder / name).exists() or (folder / name).is_symlink()


def _complete(files: Iterable[Path]) -> tuple[Path, ...]:
    files = tuple(files)
    for file in files:
        require_content(file)
    return files

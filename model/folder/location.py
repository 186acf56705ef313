"""Where a model's files lie, and what the model is called: a folder, or one of the Hub's cache."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from model.errors import CheckpointError

_REPOSITORY = "models--"  # models--ORG--NAME/snapshots/COMMIT/config.json


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """``path`` has the files themselves. ``name``: ORG/NAME where the folder is of a Hub cache, else the folder's."""

    path: Path
    name: str

    @property
    def short_name(self) -> str:
        return self.name.rpartition("/")[2]


def locate_model(folder: Path) -> ModelFolder:
    """A folder of a Hub cache (``models--ORG--NAME``) stands for its newest snapshot.

    Raises CheckpointError for a path that is no folder, and for a cache without a snapshot.
    """
    folder = folder.absolute()
    if not folder.is_dir():
        raise CheckpointError(_no_folder(folder))
    repository = _repository_of(folder)
    if repository is None:
        return ModelFolder(folder, folder.resolve().name or "model")
    name = repository.name.removeprefix(_REPOSITORY).replace("--", "/")
    snapshot = _newest_snapshot(repository, name) if folder in (repository, repository / "snapshots") else folder
    return ModelFolder(snapshot, name)


def unfinished_downloads(folder: Path) -> list[str]:
    """Names of files that a download has begun, in the folder or in its part of the Hub's cache."""
    places = [folder, folder / ".cache/huggingface/download"]
    if (repository := _repository_of(folder)) is not None:
        places.append(repository / "blobs")
    return [file.name for place in places for file in sorted(place.glob("*.incomplete"))]


def download_command(folder: Path) -> str:
    """That completes this folder."""
    if (repository := _repository_of(folder)) is not None:
        return f"hf download {repository.name.removeprefix(_REPOSITORY).replace('--', '/')}"
    return f"hf download ORG/NAME --local-dir {folder}"


def _repository_of(folder: Path) -> Path | None:
    return next((place for place in (folder, *folder.parents) if place.name.startswith(_REPOSITORY)), None)


def _newest_snapshot(repository: Path, name: str) -> Path:
    snapshots = [place for place in repository.glob("snapshots/*") if place.is_dir()]
    if not snapshots:
        raise CheckpointError(
            f"{repository} holds no snapshot of {name}; complete it: {download_command(repository)}"
        )
    return max(snapshots, key=lambda place: (place.stat().st_mtime_ns, place.name))


def _no_folder(path: Path) -> str:
    if path.suffix in {".yaml", ".yml"} and path.exists():
        return f"{path} is a configuration, not a model's folder; start it with --config {path}"
    if path.is_symlink() and not path.exists():
        return f"{path} is a link to {path.readlink()}, where nothing is; give a model's folder"
    if path.exists():
        return f"{path} is a file; give the folder that holds config.json, the weights and the tokenizer"
    return (
        f"{path} does not exist; give a model's folder. One of the Hugging Face Hub is downloaded by: "
        f"hf download ORG/NAME --local-dir {path}"
    )

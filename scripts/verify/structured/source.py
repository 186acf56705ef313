"""Where the schemas come from. Nothing of them is kept in the repository."""

from __future__ import annotations

import io
import sys
import tarfile
import urllib.request
from pathlib import Path

COMMIT = "ba103c73756198dd9b149ddc7db7867da7a077f6"  # docs/structured-output.md has its numbers
ADDRESS = "https://codeload.github.com/guidance-ai/jsonschemabench/tar.gz/"


def fetch(folder: Path) -> Path:
    try:
        with urllib.request.urlopen(ADDRESS + COMMIT, timeout=60) as answer:  # noqa: S310
            packed = answer.read()
    except OSError as error:
        sys.exit(f"{ADDRESS}{COMMIT}: {error}; give the directory of a copy")
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def find(directory: Path) -> list[Path]:
    files = sorted(file for file in directory.rglob("*.json") if file.parent.name == "data")
    if not files:
        sys.exit(f"{directory} has no maskbench/data/*.json: it is not a copy of guidance-ai/jsonschemabench")
    return files

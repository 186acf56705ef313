"""Compiled graphs kept between runs, one directory per graph.

MindSpore names the files of its cache by the order of compilation in the process. Two processes that compile
in different order would load each other's graphs, so every graph gets a directory of its own, named by
everything that decides what is in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mindformers
import mindspore as ms

from model.mindformers_runner.architecture import Architecture
from model.mindformers_runner.native import LIBRARY
from model.mindformers_runner.settings import MindFormersSettings
from model.runner import Bucket


class CompileCache:
    """Wraps compilations; does nothing when the settings name no directory."""

    def __init__(self, settings: MindFormersSettings, architecture: Architecture, max_length: int) -> None:
        self._directory = settings.compile_cache_dir
        parts = (
            architecture,
            (settings.device, settings.num_blocks, settings.block_size, settings.attention, max_length),
            (ms.__version__, mindformers.__version__, str(LIBRARY)),
            [hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(Path(__file__).parent.glob("*.py"))],
        )
        self._key = hashlib.sha256(repr(parts).encode()).hexdigest()[:24]

    @contextmanager
    def of(self, bucket: Bucket) -> Iterator[None]:
        """While inside, a compilation looks for its graph in this bucket's directory, or leaves it there."""
        if self._directory is None:
            yield
            return
        path = self._directory / self._key / f"{bucket.tokens}x{bucket.rows}"
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        ms.set_context(enable_compile_cache=True, compile_cache_path=str(path))
        try:
            yield
        finally:
            ms.set_context(enable_compile_cache=False)

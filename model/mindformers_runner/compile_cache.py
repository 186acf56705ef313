"""Compiled graphs kept between runs, one directory per sequence of graphs.

MindSpore names the files of its cache by the order of compilation in the process, checks only the sources of a graph
and not its shapes when it reads one, and keeps to the first directory that a process names. Processes that compile
other graphs, or in another order, would load each other's: a step would compute something else, or fail. So the
directory is named by everything that decides which graphs there are and in which order.
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
from model.runner import RunnerFacts


class CompileCache:
    """Wraps compilations; does nothing when the settings name no directory, nor for a process's second model."""

    def __init__(self, settings: MindFormersSettings, architecture: Architecture, facts: RunnerFacts) -> None:
        parts = (
            architecture,
            facts.buckets,  # in the order of warm-up
            (settings.device, settings.num_blocks, settings.block_size, settings.attention, facts.max_length),
            (ms.__version__, mindformers.__version__, str(LIBRARY)),
            [hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(Path(__file__).parent.glob("*.py"))],
        )
        key = hashlib.sha256(repr(parts).encode()).hexdigest()[:24]
        self._path = settings.compile_cache_dir / key if settings.compile_cache_dir else None

    @contextmanager
    def compiling(self) -> Iterator[None]:
        """While inside, a compilation looks for its graph in the directory, or leaves it there."""
        if self._path is None or ms.get_context("compile_cache_path") not in ("", str(self._path)):
            yield
            return
        self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
        ms.set_context(enable_compile_cache=True, compile_cache_path=str(self._path))
        try:
            yield
        finally:
            ms.set_context(enable_compile_cache=False)

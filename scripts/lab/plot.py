"""Pictures by matplotlib, which need not be installed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scripts.lab.errors import BenchError

BLUE, ORANGE, GREY = "#1f6f8b", "#d08c47", "#9aa5ad"
"""Ours, others', and what both are measured against."""


@contextlib.contextmanager
def picture(file: Path, rows: int, columns: int, size: tuple[float, float], **options: Any) -> Iterator[Any]:
    """Figure and axes (`[rows, columns]`), which are written as PNG when the context ends. `size` in inches. Raises
    BenchError where matplotlib is missing, or the file can't be written."""
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise BenchError("--plot needs matplotlib: pip install 'ringserve[bench]'") from error
    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(rows, columns, figsize=size, squeeze=False, **options)
    try:
        yield figure, axes
        figure.savefig(file, dpi=120, format="png")
    except OSError as error:
        raise BenchError(f"--plot {file}: {error.strerror}") from error
    finally:
        pyplot.close(figure)
